"""Conversion of rich tables and texts to ASCII that keeps columns aligned."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from initbench.render.ascii_text import ascii_text


def in_ascii(renderable: RenderableType) -> RenderableType:
    """Return the same text, table or group in ASCII; styles of parts of a line are dropped."""
    if isinstance(renderable, str):
        return ascii_text(renderable)
    if isinstance(renderable, Text):
        plain = ascii_text(renderable.plain)
        if plain == renderable.plain:
            return renderable
        return Text(plain, renderable.style, no_wrap=renderable.no_wrap, overflow=renderable.overflow)
    if isinstance(renderable, Group):
        return Group(*map(in_ascii, renderable.renderables))
    if isinstance(renderable, Table):
        return _table_in_ascii(renderable)
    return renderable


def _table_in_ascii(table: Table) -> Table:
    """Convert the cells of a table in place, and widen the table by as much as they grow."""
    for column in table.columns:
        column.header = in_ascii(column.header)
        column._cells = [in_ascii(cell) for cell in column._cells]
        if column.min_width is not None:
            texts = [part for part in (column.header, *column._cells) if isinstance(part, str)]
            width = max(map(cell_len, texts), default=0)
            if table.width is not None:
                table.width += width - column.min_width
            column.min_width = width
    return table
