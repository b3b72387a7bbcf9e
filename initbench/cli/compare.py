"""`initbench compare`: stored runs side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from initbench.cli.options import Json, RunPatterns, RunsDir, runs_root


def compare(
    patterns: RunPatterns = None,
    runs_dir: RunsDir = None,
    target: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Validation accuracy that steps are counted to; default 0.9 of the best mean in the table.",
            show_default=False,
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """Compare stored runs, all of them when none is named: activation statistics and convergence."""
    from initbench.compare.facts import facts_of
    from initbench.compare.rows import tables
    from initbench.store.store import Store

    store = Store(runs_root(runs_dir))
    found = tables((facts_of(store.read(run_id)) for run_id in store.find(patterns or [])), target=target)
    if json_output:
        from initbench.report.document import compare_document
        from initbench.store import strictjson

        typer.echo(strictjson.dumps(compare_document(found)))
    elif found:
        from initbench.report.compare_tables import print_tables
        from initbench.report.terminal import stdout_console

        print_tables(stdout_console(), found)
    else:
        typer.echo(
            f"No runs in {store.root} yet. Start one: initbench run configs/relu_kaiming.yaml", err=True
        )
