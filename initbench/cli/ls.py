"""`initbench ls`: what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from initbench.cli.options import Json, RunPatterns, RunsDir, runs_root

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

SCHEMA = "initbench.ls/1"
_COPIED = (
    "run_id",
    "experiment",
    "seed",
    "status",
    "dataset",
    "dataset_requested",
    "device",
    "created",
    "finished",
)
_STYLES = {"running": "cyan", "diverged": "yellow", "failed": "red", "crashed": "red", "interrupted": "dim"}
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def ls(
    patterns: RunPatterns = None,
    runs_dir: RunsDir = None,
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATUS", help="Only runs of this status.")
    ] = None,
    json_output: Json = False,
) -> None:
    """List the stored runs: status, data set, accuracy, steps and age."""
    root = runs_root(runs_dir)
    records = _select(root, patterns or [], status)
    if json_output:
        from initbench.store import strictjson

        typer.echo(strictjson.dumps({"schema": SCHEMA, "runs": [_summary(record) for record in records]}))
    elif records:
        from initbench.report.terminal import print_uncut, stdout_console

        print_uncut(stdout_console(), run_table(records, datetime.now(UTC)))
    else:
        typer.echo(_nothing(root, status), err=True)


def run_table(records: Sequence[dict[str, Any]], now: datetime) -> Table:
    """One line for each record, nothing cut."""
    from initbench.report.grid import Grid

    grid = Grid(("run", "status", "data", "val %", "test %", "steps", "age"), left=("run", "status", "data"))
    for record in records:
        cells = _cells(_summary(record), now)
        grid.add(cells, _STYLES.get(cells[1]))
    return grid.table()


def age(created: object, now: datetime) -> str:
    """The time since `created` (ISO 8601) in its largest unit: `3 min`."""
    try:
        seconds = (now - datetime.fromisoformat(str(created))).total_seconds()
    except (ValueError, TypeError):
        return "–"
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def _select(root: Path, patterns: list[str], status: str | None) -> list[dict[str, Any]]:
    from initbench.store.layout import STATUSES
    from initbench.store.store import Store

    if status is not None and status not in STATUSES:
        from initbench.errors import UnknownNameError
        from initbench.registry import unknown_name

        raise UnknownNameError(unknown_name("status", status, STATUSES))
    store = Store(root)
    wanted = set(store.find(patterns)) if patterns else None
    return [
        record
        for record in store.records()
        if (wanted is None or record["run_id"] in wanted) and status in (None, record["status"])
    ]


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    final = record.get("final")
    final = final if isinstance(final, dict) else {}
    steps = record.get("steps")
    return {
        **{key: record.get(key) for key in _COPIED},
        "steps": steps if isinstance(steps, int) else None,
        "val_accuracy": final.get("val_accuracy"),
        "test_accuracy": final.get("test_accuracy"),
    }


def _cells(summary: dict[str, Any], now: datetime) -> list[str]:
    return [
        str(summary["run_id"]),
        str(summary["status"]),
        _dataset(summary),
        _percent(summary["val_accuracy"]),
        _percent(summary["test_accuracy"]),
        "–" if summary["steps"] is None else f"{summary['steps']:,}",
        age(summary["created"], now),
    ]


def _dataset(summary: dict[str, Any]) -> str:
    used, requested = summary["dataset"], summary["dataset_requested"]
    if used is None:
        return "–"
    return str(used) if requested in (None, used) else f"{used} (for {requested})"


def _percent(fraction: object) -> str:
    from initbench.store.strictjson import number

    try:
        return f"{100 * number(fraction):.1f}"
    except ValueError:
        return "–"


def _nothing(root: Path, status: str | None) -> str:
    if status is not None:
        return f"No {status} runs in {root}."
    return f"No runs in {root} yet. Start one: initbench run configs/relu_kaiming.yaml"
