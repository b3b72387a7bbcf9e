"""`initbench show`: print the tables of stored runs."""

from __future__ import annotations

from typing import Annotated

import typer

from initbench.cli.options import AllLayers, Json, RunPatterns, RunsDir, runs_root
from initbench.errors import UsageError
from initbench.render.terminal import print_uncut, stdout_console
from initbench.store.store import Store, group_by_experiment


def show(
    patterns: RunPatterns = None,
    runs_dir: RunsDir = None,
    all_layers: AllLayers = False,
    timings: Annotated[
        bool, typer.Option("--timings", help="Print the time of updates, evaluations and probes instead.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Show stored runs as `run` prints them, grouped by experiment, and the errors of failed runs."""
    if not patterns:
        raise UsageError("name a run or an experiment; `initbench ls` lists them")
    store = Store(runs_root(runs_dir))
    experiments = group_by_experiment(store.read(run_id) for run_id in store.find(patterns))
    if json_output:
        from initbench.render.run_documents import runs_json

        typer.echo(runs_json([run for runs in experiments for run in runs], {}))
        return
    if timings:
        from initbench.render.run_sections import timings_table

        for runs in experiments:
            print_uncut(stdout_console(), timings_table(runs))
        return
    from initbench.render.run_tables import failure_tracebacks, print_experiment

    for runs in experiments:
        print_experiment(stdout_console(), runs, all_layers=all_layers)
        for failed in failure_tracebacks(runs):
            typer.echo(failed)
