"""Console for the output on stdout, and the conversion of tables for consoles that print only ASCII."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from initbench.render.ascii_text import ascii_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

PIPED_WIDTH = 240
"""Columns when stdout is not a terminal: rich would assume 80 and cut longer lines."""


def print_uncut(console: Console, renderable: RenderableType) -> None:
    """Print lines at their natural width, without the trailing spaces that rich adds.

    If the output encoding is ASCII, characters are replaced before tables are laid out.
    """
    from rich.console import Group

    if console.options.ascii_only:
        renderable = _in_ascii(renderable)
    with console.capture() as captured:
        # In a group, because rich ignores `no_wrap` of a text that is printed by itself.
        console.print(Group(renderable), crop=False)
    lines = captured.get().splitlines()
    console.file.write("".join(line.rstrip(" ") + "\n" for line in lines))


def stdout_console() -> Console:
    """Return a console that prints text as it is: no markup, no emoji codes, no highlighting.

    rich respects NO_COLOR and FORCE_COLOR; neither changes the width of piped output.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPED_WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False)


def stdout_width() -> int | None:
    """Return the columns of the terminal; None if stdout is not a terminal, for lines of any length."""
    return stdout_console().width if sys.stdout.isatty() else None


def _in_ascii(renderable: RenderableType) -> RenderableType:
    """Return the same text, table or group in ASCII; styles of parts of a line are dropped."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    if isinstance(renderable, str):
        return ascii_text(renderable)
    if isinstance(renderable, Text):
        plain = ascii_text(renderable.plain)
        if plain == renderable.plain:
            return renderable
        return Text(plain, renderable.style, no_wrap=renderable.no_wrap, overflow=renderable.overflow)
    if isinstance(renderable, Group):
        return Group(*map(_in_ascii, renderable.renderables))
    if isinstance(renderable, Table):
        return _table_in_ascii(renderable)
    return renderable


def _table_in_ascii(table: Table) -> Table:
    """Convert the cells of a table in place, and widen the table by as much as they grow."""
    from rich.cells import cell_len

    for column in table.columns:
        column.header = _in_ascii(column.header)
        column._cells = [_in_ascii(cell) for cell in column._cells]
        if column.min_width is not None:
            texts = [part for part in (column.header, *column._cells) if isinstance(part, str)]
            width = max(map(cell_len, texts), default=0)
            if table.width is not None:
                table.width += width - column.min_width
            column.min_width = width
    return table
