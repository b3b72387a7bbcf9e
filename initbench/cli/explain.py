"""`initbench explain`: describe one entry of the catalog in detail."""

from __future__ import annotations

from typing import Annotated

import typer

from initbench.cli.completion import complete_entries
from initbench.cli.options import Json, Plugins
from initbench.render.page import Page
from initbench.render.terminal import stdout_console, stdout_width
from initbench.store import strict_json


def explain(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="An entry, or kind/entry, as in: batch, norms/none, vanishing_forward.",
            autocompletion=complete_entries,
        ),
    ],
    kind: Annotated[
        str | None,
        typer.Option("--kind", metavar="KIND", help="Only entries of this kind, named as in `catalog`."),
    ] = None,
    _plugins: Plugins = None,
    json_output: Json = False,
) -> None:
    """Explain one init, activation, norm, … or diagnosis: options, usage and a plot.

    If several kinds have an entry of this name, all of them are shown.
    """
    from initbench.render import explain
    from initbench.render.catalog import find_entries

    entries = find_entries(name, kind)
    if json_output:
        typer.echo(strict_json.dumps(explain.explain_document(entries)))
        return

    console = stdout_console()
    for index, (entry_kind, entry) in enumerate(entries):
        page = Page(stdout_width())
        if index:
            page.draw([""])
        explain.explain_entry(page, entry_kind, entry, ascii_only=console.options.ascii_only)
        page.print(console)
