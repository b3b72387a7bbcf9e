"""JSON documents of stored runs and comparisons. Their keys are a contract: later versions only add keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from initbench.analysis.baseline import BaselineComparison
from initbench.analysis.metrics import METRICS
from initbench.analysis.stats.confidence_intervals import Interval, rate_interval
from initbench.analysis.tables import Row, Table
from initbench.render.compare.analysed_table import AnalysedTable, analyse
from initbench.render.compare.display_options import View, check_names
from initbench.store import strict_json
from initbench.store.store import StoredRun

RUN_SCHEMA = "initbench.run/1"
COMPARE_SCHEMA = "initbench.compare/1"
_OF_THE_EXPERIMENT = ("experiment", "dataset", "dataset_requested", "device", "config")


def runs_json(runs: Sequence[StoredRun], more: Mapping[str, Any]) -> str:
    """Return the document of stored runs, extended by the keys of `more`, as strict JSON."""
    return strict_json.dumps({**runs_document(runs), **more})


def runs_document(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """Return the document of one or more stored runs, of one experiment or of several.

    Each run has the keys that identify its experiment. The document has them too; they are null if the runs
    are of several experiments.
    """
    experiments = {(run.record["experiment"], run.record.get("arm")) for run in runs}
    shared = runs[0].record if len(experiments) == 1 else dict.fromkeys(_OF_THE_EXPERIMENT)
    return {
        "schema": RUN_SCHEMA,
        **{key: shared[key] for key in _OF_THE_EXPERIMENT},
        "runs": [run_document(run) for run in runs],
    }


def run_document(run: StoredRun) -> dict[str, Any]:
    """Return one stored run as plain data."""
    record = run.record
    return {
        "run_id": run.run_id,
        **{key: record[key] for key in _OF_THE_EXPERIMENT},
        "seed": record["seed"],
        "status": record["status"],
        "final": record.get("final"),
        "diverged": record.get("diverged"),
        "steps": record.get("steps"),
        "transfer": record.get("transfer"),
        "plugins": record.get("plugins") or [],
        "custom_model": record.get("custom_model"),
        "custom_data": record.get("custom_data"),
        "pretraining": record.get("pretraining"),
        "timings": record.get("timings"),
        "evaluation_share": run.evaluation_share,
        "convergence": run.convergence,
        "snapshots": run.snapshots,
        "shifts": run.shifts,
        "diagnosis": record.get("diagnosis") or [],
        "error": record.get("error"),
    }


def compare_document(tables: Sequence[Table], view: View | None = None) -> dict[str, Any]:
    """Return the comparison of stored runs, with all metrics of all rows.

    Only the baseline, the confidence and the order of rows of `view` have an effect.

    Raises:
        UsageError: If `view` names a metric or row that does not exist.
    """
    view = view or View()
    check_names(view, tables)
    return {
        "schema": COMPARE_SCHEMA,
        "by": list(tables[0].by) if tables else [],
        "baseline": view.baseline,
        "confidence": view.confidence,
        "tables": [_table(analysed) for analysed in analyse(tables, view)],
    }


def _table(analysed: AnalysedTable) -> dict[str, Any]:
    table = analysed.table
    return {
        "dataset": table.dataset,
        "fingerprint": table.fingerprint,
        "precision": table.conditions.precision,
        "steps": table.conditions.steps,
        "batch_size": table.conditions.batch_size,
        "target": table.target,
        "baseline": analysed.baseline.label if analysed.baseline else None,
        "rows": [_row(analysed, row) for row in analysed.rows],
    }


def _row(analysed: AnalysedTable, row: Row) -> dict[str, Any]:
    lettered = {
        name: analysed.letters(name).get(row.label) for name, m in METRICS.items() if m.view == "convergence"
    }
    document = {
        "key": row.key,
        "label": row.label,
        "varies": row.group.varies,
        "n": row.n,
        "diverged": row.diverged,
        "divergence_ci": _ends(rate_interval(row.diverged, row.n, analysed.confidence)),
        "unfinished": row.unfinished,
        "reached_target": row.reached,
        "metrics": {
            name: _metric(analysed, row, name)
            for name, summary in row.metrics.items()
            if summary.n or not METRICS[name].is_optional
        },
        "letters": {name: letters for name, letters in lettered.items() if letters},
    }
    if analysed.baseline is None:
        return document
    return {**document, "versus_baseline": _versus(analysed, row)}


def _metric(analysed: AnalysedTable, row: Row, name: str) -> dict[str, Any]:
    summary = row.metrics[name]
    interval = analysed.interval(row, name)
    document = {"mean": summary.mean, "std": summary.std, "n": summary.n, "ci": _ends(interval)}
    # The spread of a geometric mean is in logarithms; `std` repeats it for compatibility.
    return {**document, "log_std": summary.std} if METRICS[name].log else document


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _versus(analysed: AnalysedTable, row: Row) -> dict[str, Any] | None:
    """Return the differences of a row from the baseline; None for the baseline itself."""
    if analysed.baseline is None or row is analysed.baseline:
        return None
    rates, p = analysed.divergence[row.label]
    rate = {"difference": rates.difference, "p_adjusted": p, "method": str(rates.method)}
    metrics = {name: _difference(analysed.versus(name)[row.label]) for name in row.metrics}
    return {**metrics, "divergence_rate": rate}


def _difference(comparison: BaselineComparison) -> dict[str, Any]:
    difference = comparison.difference
    return {
        "difference": difference.difference,
        "scale": difference.scale,
        "ci": _ends(difference.interval),
        "p": difference.p,
        "p_adjusted": comparison.p_adjusted,
        "effect_size": difference.effect_size,
        "verdict": str(comparison.verdict),
        "seeds_needed": comparison.seeds_needed.seeds if comparison.seeds_needed else None,
        "seeds_needed_more": comparison.seeds_needed.more if comparison.seeds_needed else None,
        "method": str(difference.method),
        "n": [difference.n_a, difference.n_b],
    }
