"""JSON document of `initbench sweep --json`: points, runs, failures, tuning and comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from initbench.render.compare.display_options import View
from initbench.render.run_documents import compare_document
from initbench.study.run_study import SweepResult, VariantResult

SCHEMA = "initbench.sweep/1"


def sweep_document(result: SweepResult, view: View, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a sweep, extended by the keys of `more`."""
    sweep = result.study
    return {
        "schema": SCHEMA,
        "sweep": sweep.name,
        "notes": sweep.config.notes,
        "points": [_point(result, point) for point in result.variants],
        "statuses": dict(sorted(result.statuses.items())),
        "unfinished": result.unfinished,
        "failures": [
            {"run_id": run.run_id, "status": run.status, "error": run.error} for run in result.failed
        ],
        "excluded": sweep.excluded,
        "same": dict(sweep.same),
        "skipped": [
            {"label": skipped.label, "faults": [str(fault) for fault in skipped.faults]}
            for skipped in sweep.skipped
        ],
        "comparison": compare_document(result.tables, view),
        **more,
    }


def _point(result: SweepResult, point: VariantResult) -> dict[str, Any]:
    record = point.as_record()
    return {
        "label": point.label,
        **record,
        "runs": _runs(result, point.run_ids),
        "tuning_runs": _runs(result, point.tuning_ids),
    }


def _runs(result: SweepResult, run_ids: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{"run_id": run_id, "status": result.status(run_id)} for run_id in run_ids]
