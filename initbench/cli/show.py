"""`initbench show`: print the tables of stored runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from initbench.cli.options import AllLayers, Json, RunPatterns, RunsDir, runs_root
from initbench.errors import UsageError

if TYPE_CHECKING:
    from initbench.store.store import Store, StoredRun


def show(
    patterns: RunPatterns = None,
    runs_dir: RunsDir = None,
    all_layers: AllLayers = False,
    json_output: Json = False,
) -> None:
    """Show stored runs as `run` prints them, grouped by experiment, and the errors of failed runs."""
    from initbench.store.store import Store

    if not patterns:
        raise UsageError("name a run or an experiment; `initbench ls` lists them")
    experiments = _group_by_experiment(Store(runs_root(runs_dir)), patterns)
    if json_output:
        from initbench.render.json_documents import runs_json

        typer.echo(runs_json([run for runs in experiments for run in runs], {}))
        return
    from initbench.render.run_tables import failure_tracebacks, print_experiment
    from initbench.render.terminal import stdout_console

    for runs in experiments:
        print_experiment(stdout_console(), runs, all_layers=all_layers)
        for failed in failure_tracebacks(runs):
            typer.echo(failed)


def _group_by_experiment(store: Store, patterns: list[str]) -> list[list[StoredRun]]:
    """Group the runs that differ only in their seed, sorted by seed."""
    groups: dict[tuple[str, str], list[StoredRun]] = {}
    for run_id in store.find(patterns):
        run = store.read(run_id)
        groups.setdefault((run.record["experiment"], run.record["arm"]), []).append(run)
    return [sorted(runs, key=lambda run: int(run.record["seed"])) for runs in groups.values()]
