"""`initbench rm`: delete stored runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from initbench.cli.completion import complete_runs
from initbench.cli.options import RunsDir, runs_root
from initbench.errors import StoreError, UsageError
from initbench.render.text import one_line, plural
from initbench.store.store import Store


def rm(
    patterns: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|NAME|GLOB",
            help="Run ids or prefixes of them, experiments, sweeps, globs.",
            autocompletion=complete_runs,
        ),
    ],
    runs_dir: RunsDir = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be removed.")] = False,
) -> None:
    """Delete stored runs; if one of them is running, nothing is deleted."""
    store = Store(runs_root(runs_dir))
    if not dry_run:  # leftovers of an interrupted removal no longer match their name
        store.recover()
    run_ids = store.find(patterns)
    _require_none_running(store, run_ids)
    if dry_run:
        _print_run_ids("would remove", run_ids)
    elif yes or _confirm_removal(run_ids):
        for run_id in run_ids:
            store.remove(run_id)
            _print_run_ids("removed", [run_id])
    else:
        typer.echo("Nothing was removed.", err=True)


def _require_none_running(store: Store, run_ids: list[str]) -> None:
    if running := [run_id for run_id in run_ids if store.is_busy(run_id)]:
        raise StoreError(f"still running, so nothing was removed: {', '.join(running)}")


def _confirm_removal(run_ids: list[str]) -> bool:
    runs = plural(len(run_ids), "run")
    if not _is_interactive():
        raise UsageError(f"pass --yes to remove {runs} without confirmation")
    for run_id in run_ids:
        typer.echo(f"  {one_line(run_id)}", err=True)
    return typer.confirm(f"Remove {runs}?", err=True)


def _is_interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _print_run_ids(action: str, run_ids: list[str]) -> None:
    for run_id in run_ids:
        typer.echo(f"{action} {one_line(run_id)}")
