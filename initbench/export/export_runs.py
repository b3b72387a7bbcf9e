"""Export of stored runs to files and experiment trackers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from initbench.analysis.damaged_runs import DAMAGED, damage_messages, summarise_or_mark_damaged
from initbench.analysis.load_runs import report_remaining_time
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.selection import Selection
from initbench.errors import StoreError, UsageError
from initbench.export.table_files import ExportCounts
from initbench.export.tables import TABLES, Columns, RunTables, Schemas, build_run_tables, table_schemas
from initbench.registry import nearest_name
from initbench.store.locks import acquire_lock
from initbench.store.store import Store

Destination = Literal["parquet", "csv", "tensorboard", "mlflow", "wandb"]
LOCK = ".export.lock"
"""Name of the file in the output directory that an export locks."""


class Exporter(Protocol):
    """Writes runs to one destination. The constructor imports what it needs."""

    def write(self, runs: Iterable[RunTables], schemas: Schemas, output: Path) -> ExportCounts:
        """Write the runs one by one to the directory `output`, which exists and is locked."""


@dataclass
class ExportReport:
    """Result of an export."""

    counts: ExportCounts = field(default_factory=ExportCounts)
    skipped: dict[str, str] = field(default_factory=dict)
    """Reason for each run that was not exported, by run id: its status, or the problem of a damaged run."""


def export_runs(
    selection: Selection,
    destination: Destination,
    output: Path,
    *,
    tables: Sequence[str] = (),
    target: float | None = None,
) -> ExportReport:
    """Export the complete runs of a selection; damaged and unfinished runs are skipped.

    The runs are read and written one by one, so that memory does not grow with their number.

    Args:
        selection: The runs.
        destination: The kind of files or tracker.
        output: Directory of the export, created if necessary.
        tables: The tables to write to csv or parquet; empty for all.
        target: Validation accuracy of metrics such as `steps_to_target`.

    Raises:
        MissingExtraError: If a package of the destination is not installed.
        UsageError: If no run is selected, `output` is in the directory of stored runs, or `tables` names an
            unknown table or is given for another destination.
        StoreError: If no selected run is complete, or another process exports to `output`.
    """
    _check_tables(tables, destination)
    exporter = load_exporter(destination)
    root = selection.store.root
    if output.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"--output {output} is in the directory of stored runs, {root}; choose another one")
    if not selection.runs:
        raise UsageError(f"there are no runs in {root} to export")
    report = ExportReport()
    complete = [run for run in selection.runs if run.is_complete]
    for run in selection.runs:
        if not run.is_complete:
            report.skipped[run.run_id] = _describe_obstacle(run, root)
    if not complete:
        reasons = "\n".join(f"{run_id}: {reason}" for run_id, reason in report.skipped.items())
        raise StoreError(f"nothing was exported, as none of the runs is complete:\n{reasons}")
    run_ids = [run.run_id for run in complete]
    schemas = {name: schema for name, schema in table_schemas(complete).items() if name in (tables or TABLES)}
    with _locked(output):
        read_runs = _read_tables(selection.store, run_ids, target, report.skipped)
        runs = report_remaining_time(read_runs, len(run_ids), f"exporting {len(run_ids):,} runs")
        report.counts = exporter.write(runs, schemas, output)
    return report


def read_columns(
    store: Store, runs: Sequence[RunSummary], table: str, target: float | None = None
) -> Columns:
    """Return one of the tidy tables of the complete runs among these, as columns.

    Raises:
        UsageError: If there is no such table.
        StoreError: If a run has become damaged.
    """
    if table not in TABLES:
        raise UsageError(_unknown_table(table))
    complete = [run for run in runs if run.is_complete]
    schema, skipped = table_schemas(complete)[table], dict[str, str]()
    columns: Columns = {column.name: [] for column in schema}
    for tables in _read_tables(store, [run.run_id for run in complete], target, skipped):
        for name, values in tables.columns(table, schema).items():
            columns[name] += values
    if skipped:
        raise StoreError("\n".join(f"{run_id}: {reason}" for run_id, reason in skipped.items()))
    return columns


def _unknown_table(name: str) -> str:
    guess = nearest_name(name, TABLES)
    hint = f"did you mean {guess!r}?" if guess else f"the tables are {', '.join(TABLES)}"
    return f"there is no table {name!r}; {hint}"


def _check_tables(tables: Sequence[str], destination: Destination) -> None:
    if tables and destination not in ("csv", "parquet"):
        raise UsageError(
            f"--tables cannot be combined with --to {destination}; it selects csv or parquet files"
        )
    for name in tables:
        if name not in TABLES:
            raise UsageError(f"--tables: {_unknown_table(name)}")


def load_exporter(destination: Destination) -> Exporter:
    """Return the exporter of a destination; raise MissingExtraError if a package is not installed."""
    if destination == "csv":
        from initbench.export.csv_files import CsvExporter

        return CsvExporter()
    if destination == "parquet":
        from initbench.export.parquet_files import ParquetExporter

        return ParquetExporter()
    if destination == "tensorboard":
        from initbench.export.tensorboard_events import TensorBoardExporter

        return TensorBoardExporter()
    if destination == "mlflow":
        from initbench.export.mlflow_store import MlflowExporter

        return MlflowExporter()
    from initbench.export.wandb_offline import WandbExporter

    return WandbExporter()


def _read_tables(
    store: Store, run_ids: Sequence[str], target: float | None, skipped: dict[str, str]
) -> Iterator[RunTables]:
    """Yield the tables of each run; add runs to `skipped` that have changed since they were selected."""
    for run_id in run_ids:
        run = store.read_or_mark_damaged(run_id)
        if run is None:
            skipped[run_id] = "removed"
            continue
        summary = summarise_or_mark_damaged(run)
        if summary.is_complete:
            yield build_run_tables(run, summary, target)
        else:
            skipped[run_id] = _describe_obstacle(summary, store.root)


def _describe_obstacle(run: RunSummary, root: Path) -> str:
    if run.status != DAMAGED:
        return run.status
    (message,) = damage_messages([run], root)
    return message.removeprefix(f"{run.run_id}: ")


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    output.mkdir(parents=True, exist_ok=True)
    lock = acquire_lock(output / LOCK)
    if lock is None:
        raise StoreError(f"another process is exporting to {output}; wait until it has finished")
    try:
        yield
    finally:
        lock.release()
