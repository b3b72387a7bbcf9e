"""The catalogue as tables: one for each kind, a line for each entry where the terminal is wide enough."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from initbench.report.catalogue import Kind, describe
from initbench.report.grid import Grid
from initbench.report.terminal import print_uncut
from initbench.report.text import NOTHING

_COLUMNS = ("name", "formula", "what it is", "source")


def print_catalogue(console: Console, chosen: Sequence[Kind], width: int | None) -> None:
    """Print the tables; `width` is the terminal's, None where a line may be as long as it likes."""
    for place, kind in enumerate(chosen):
        key = f"  {kind.place.key}" if kind.place else ""
        console.print(("\n" if place else "") + kind.title + key, style="bold")
        print_uncut(console, _grid(kind, width).table())


def _grid(kind: Kind, width: int | None) -> Grid:
    """One line an entry; on a narrower terminal the formula and the source stand below what it is."""
    rows = [describe(kind, entry) for entry in kind.entries]
    wide = Grid(_COLUMNS, left=_COLUMNS)
    for row in rows:
        wide.add([row["name"], row["formula"] or NOTHING, row["summary"], row["source"] or NOTHING])
    empty = [heading for heading in ("formula", "source") if not any(row[heading] for row in rows)]
    wide = wide.without(empty)
    if width is None or wide.width <= width:
        return wide
    columns = ("name", f"what it is{''.join(f', {h}' for h in ('formula', 'source') if h not in empty)}")
    tall = Grid(columns, left=columns)
    for row in rows:
        tall.add([row["name"], row["summary"]])
        below = "   ".join(filter(None, (row["formula"], row["source"])))
        if below:
            tall.add(["", below], "dim")
    return tall.wrapped(width)
