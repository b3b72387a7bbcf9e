"""The JSON documents that --json prints. Keys are a contract: later versions only add to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from initbench.compare.metrics import METRICS
from initbench.compare.rows import Row, Table
from initbench.compare.statistics import Summary
from initbench.store import strictjson
from initbench.store.store import StoredRun

RUN_SCHEMA = "initbench.run/1"
COMPARE_SCHEMA = "initbench.compare/1"


def experiments_json(experiments: Sequence[Sequence[StoredRun]], *, several: bool) -> str:
    """One experiment's document, or an array of them where several were asked for."""
    documents = [experiment_document(runs) for runs in experiments]
    return strictjson.dumps(documents if several else documents[0])


def experiment_document(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """The stored runs of one experiment; there is at least one."""
    record = runs[0].record
    return {
        "schema": RUN_SCHEMA,
        "experiment": record["experiment"],
        "dataset": record["dataset"],
        "dataset_requested": record["dataset_requested"],
        "device": record["device"],
        "config": record["config"],
        "runs": [run_document(run) for run in runs],
    }


def run_document(run: StoredRun) -> dict[str, Any]:
    """One stored run."""
    record = run.record
    return {
        "run_id": run.run_id,
        "seed": record["seed"],
        "status": record["status"],
        "final": record.get("final"),
        "diverged": record.get("diverged"),
        "steps": record.get("steps"),
        "timings": record.get("timings"),
        "convergence": run.convergence,
        "snapshots": run.snapshots,
        "diagnosis": record.get("diagnosis") or [],
        "error": record.get("error"),
    }


def compare_document(tables: Sequence[Table]) -> dict[str, Any]:
    """The comparison of stored runs."""
    return {
        "schema": COMPARE_SCHEMA,
        "tables": [_table(table) for table in tables],
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        "dataset": table.dataset,
        "fingerprint": table.fingerprint,
        "target": table.target,
        "rows": [_row(row) for row in table.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "key": row.key,
        "n": row.n,
        "diverged": row.diverged,
        "unfinished": row.unfinished,
        "reached_target": row.reached,
        "metrics": {name: _summary(name, summary) for name, summary in row.metrics.items()},
    }


def _summary(name: str, summary: Summary) -> dict[str, Any]:
    document = {"mean": summary.mean, "std": summary.std, "n": summary.n}
    # A geometric mean has its spread in logarithms; `std` is that too, because it always was.
    return {**document, "log_std": summary.std} if METRICS[name].log else document
