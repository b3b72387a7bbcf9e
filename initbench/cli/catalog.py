"""`initbench catalog`: everything that has a name."""

from __future__ import annotations

from typing import Annotated

import typer

from initbench.cli.options import Json


def catalog(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND]",
            help="inits, activations, norms, families, datasets, optimizers, schedules, executors or"
            " diagnostics; all of them when none is named.",
            show_default=False,
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """List what a config or --executor can name and a diagnosis find: formula, meaning, source of each."""
    from initbench.render.catalog import document, kind_of, kinds

    catalog_kinds = kinds() if kind is None else [kind_of(kind)]
    if json_output:
        from initbench.store import strict_json

        typer.echo(strict_json.dumps(document(catalog_kinds)))
        return
    from initbench.render.catalog import print_catalogue
    from initbench.render.terminal import stdout_console, stdout_width

    print_catalogue(stdout_console(), catalog_kinds, stdout_width())
