"""`initbench merge`: merge the runs of several directories."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from initbench.cli.options import Json, runs_root
from initbench.render.text import plural
from initbench.store import strict_json
from initbench.store.merging import merge as merged_of

if TYPE_CHECKING:
    from initbench.store.merging import MergeResult

SCHEMA = "initbench.merge/1"
_MAX_LISTED = 10


def merge(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR…", help="Runs directories, e.g. of the shards of a sweep.")
    ],
    into: Annotated[
        Path | None,
        typer.Option(
            "--into",
            envvar="INITBENCH_RUNS",
            metavar="DIR",
            help="Directory of the merged runs; default: ./runs.",
            file_okay=False,
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """Merge the runs of several directories; existing runs are not copied again.

    Verifies every file against its manifest first. Different results of the same run are a conflict: exit 3
    without merging anything. Running and crashed runs are skipped.
    """
    root = runs_root(into)
    merged = merged_of(directories, root)
    if json_output:
        typer.echo(strict_json.dumps({"schema": SCHEMA, "into": str(root), **vars(merged)}))
    else:
        _print(merged, root)


def _print(merged: MergeResult, root: Path) -> None:
    unchanged_note = f", {len(merged.same):,} already stored" if merged.same else ""
    typer.echo(f"{plural(len(merged.copied), 'run')} copied to {root}{unchanged_note}")
    for run_id, reason in list(merged.left.items())[:_MAX_LISTED]:
        typer.echo(f"skipped: {run_id} {reason}", err=True)
    if len(merged.left) > _MAX_LISTED:
        typer.echo(f"skipped: {len(merged.left) - _MAX_LISTED:,} more runs", err=True)
