"""`initbench catalog`: list all registered components and diagnoses."""

from __future__ import annotations

from typing import Annotated

import typer

from initbench.cli.options import Json, Plugins
from initbench.render.terminal import stdout_console, stdout_width
from initbench.store import strict_json


def catalog(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND]",
            help="inits, activations, norms, families, datasets, optimizers, schedules, executors or"
            " diagnostics; default: all.",
            show_default=False,
        ),
    ] = None,
    _plugins: Plugins = None,
    json_output: Json = False,
) -> None:
    """List components, executors and diagnoses with their formulas, meanings and sources."""
    from initbench.render.catalog import catalog_document, catalog_kinds, kind_of

    kinds = catalog_kinds() if kind is None else [kind_of(kind)]
    if json_output:
        typer.echo(strict_json.dumps(catalog_document(kinds)))
        return
    from initbench.render.catalog import print_catalogue

    print_catalogue(stdout_console(), kinds, stdout_width())
