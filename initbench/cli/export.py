"""`initbench export`: write stored runs to files and experiment trackers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from initbench.cli.options import Json, RunPatterns, RunsDir, Where, runs_root
from initbench.render.text import one_line, plural
from initbench.store import strict_json
from initbench.store.files import writing_to
from initbench.store.store import Store

if TYPE_CHECKING:
    from initbench.export.export_runs import ExportReport

SCHEMA = "initbench.export/1"
_MAX_LISTED = 10


def export(
    to: Annotated[
        Literal["parquet", "csv", "tensorboard", "mlflow", "wandb"],
        typer.Option("--to", help="Kind of files or tracker."),
    ],
    patterns: RunPatterns = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="Directory to write to; default: ./export/ and the kind.",
            file_okay=False,
        ),
    ] = None,
    where: Where = None,
    tables: Annotated[
        list[str] | None,
        typer.Option(
            "--tables",
            metavar="NAME,…",
            help="Tables for csv and parquet: runs, curves, layers, histograms; default: all.",
        ),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Validation accuracy of the metrics steps_to_target etc., which are empty without it.",
            show_default=False,
        ),
    ] = None,
    runs_dir: RunsDir = None,
    json_output: Json = False,
) -> None:
    """Export stored runs (default: all) as tables, TensorBoard event files, or MLflow or W&B runs.

    docs/export.md describes the tables. Nothing is sent over the network, and a repeated export changes
    nothing. Damaged and unfinished runs are reported on stderr and skipped.
    """
    from initbench.analysis.selection import Selection
    from initbench.export.export_runs import export_runs

    directory = output if output is not None else Path("export") / to
    selection = Selection(Store(runs_root(runs_dir)), patterns or [], where or [])
    names = [name for text in tables or [] for name in text.replace(",", " ").split()]
    with writing_to(directory):
        report = export_runs(selection, to, directory, tables=names, target=target)
    for sentence in selection.missing:
        typer.echo(f"{sentence}.", err=True)
    _report_skipped(report)
    if json_output:
        counts = report.counts
        document = {
            "schema": SCHEMA,
            "to": to,
            "output": str(directory),
            "written": counts.written,
            "unchanged": counts.unchanged,
            "files": [str(path) for path in counts.files],
            "skipped": report.skipped,
        }
        typer.echo(strict_json.dumps(document))
    else:
        _print(report, directory)


def _report_skipped(report: ExportReport) -> None:
    for run_id, reason in list(report.skipped.items())[:_MAX_LISTED]:
        typer.echo(one_line(f"skipped: {run_id}: {reason}"), err=True)
    if len(report.skipped) > _MAX_LISTED:
        typer.echo(f"skipped: {len(report.skipped) - _MAX_LISTED:,} more runs", err=True)


def _print(report: ExportReport, directory: Path) -> None:
    counts = report.counts
    unchanged = f", {counts.unchanged:,} unchanged" if counts.unchanged else ""
    typer.echo(f"{plural(counts.written, 'run')} written to {directory}{unchanged}")
    for path in counts.files:
        typer.echo(path)
    if counts.advice:
        typer.echo(counts.advice, err=True)
