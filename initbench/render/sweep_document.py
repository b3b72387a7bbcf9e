"""`initbench sweep --json`: points, runs, failures, tuning, and the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from initbench.render.compare.display_options import View
from initbench.render.json_documents import compare_document
from initbench.study.run_sweep import PointResult, SweepResult

SCHEMA = "initbench.sweep/1"


def sweep_document(found: SweepResult, view: View, more: Mapping[str, Any]) -> dict[str, Any]:
    """All of a sweep; `more` are keys beside."""
    sweep = found.sweep
    return {
        "schema": SCHEMA,
        "sweep": sweep.name,
        "notes": sweep.notes,
        "points": [_point(found, point) for point in found.points],
        "statuses": dict(sorted(found.statuses.items())),
        "unfinished": found.unfinished,
        "failures": [
            {"run_id": run.run_id, "status": run.status, "error": run.error} for run in found.failed
        ],
        "excluded": sweep.excluded,
        "same": dict(sweep.same),
        "skipped": [
            {"label": one.label, "faults": [str(fault) for fault in one.faults]} for one in sweep.skipped
        ],
        "comparison": compare_document(found.tables, view),
        **more,
    }


def _point(found: SweepResult, point: PointResult) -> dict[str, Any]:
    record = point.as_record()
    return {
        "label": point.label,
        **record,
        "runs": _runs(found, point.run_ids),
        "tuning_runs": _runs(found, point.tuning_ids),
    }


def _runs(found: SweepResult, run_ids: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{"run_id": run_id, "status": found.status(run_id)} for run_id in run_ids]
