"""Terminal output of comparison tables; wide tables are split into parts, never truncated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, chop_cells
from rich.console import Console, RenderableType
from rich.text import Text

from initbench.render.compare.table import ComparisonTable, TableCell
from initbench.render.terminal import print_uncut
from initbench.render.text_table import GAP, TextTable

_MIN_NUMBERED = 24
"""Names of up to this many columns are never replaced by numbers."""


def print_blocks(
    console: Console, blocks: Sequence[ComparisonTable], width: int | None, *, all_notes: bool = True
) -> None:
    """Print the blocks, each followed by a blank line."""
    for block in blocks:
        for piece in table_renderables(block, width, all_notes=all_notes):
            print_uncut(console, piece)


def table_renderables(
    block: ComparisonTable, width: int | None, *, all_notes: bool = True
) -> Iterator[RenderableType]:
    """Yield the title, the table, its notes and its warnings.

    A table wider than `width` (None: unlimited) is split into parts. Without `all_notes` a one-line summary
    replaces the notes; warnings are always included.
    """
    if block.title:
        yield Text(block.title, "bold")
        yield Text("")
    if block.picture:
        yield Text("\n".join(block.picture), no_wrap=True, overflow="ignore")
        yield Text("")
    elif block.headings:
        yield from _table(block, width)
    is_short = bool(block.summary) and not all_notes
    notes = [f"{block.summary}; --notes for details"] if is_short else block.notes
    yield from (Text(note, "dim") for note in notes)
    yield from (Text(warning, "yellow") for warning in block.warnings)
    yield Text("")


def _table(block: ComparisonTable, width: int | None) -> Iterator[RenderableType]:
    rows, names = _numbered(block, width)
    grid = TextTable(block.headings, tuple(block.left_aligned))
    for row in _aligned(rows):
        grid.add(row)
    if not block.rows:
        yield Text("nothing to show")
        return
    for i, part in enumerate([grid] if width is None else grid.parts(width, block.fixed)):
        if i:
            yield Text("")
        yield part.table()
    for number, name in names.items():
        yield Text("\n".join(_legend(number, name, width)), no_wrap=True, overflow="ignore")


def _numbered(block: ComparisonTable, width: int | None) -> tuple[list[list[TableCell]], dict[str, str]]:
    """Replace row names that would fill half of `width` by numbers; return rows and names by number."""
    longest = max((cell_len(row[0].text) for row in block.rows), default=0)
    if width is None or longest <= max(_MIN_NUMBERED, width // 2):
        return block.rows, {}
    names: dict[str, str] = {}
    rows = []
    for first, *rest in block.rows:
        number = str(len(names) + 1) if first.text else ""
        if number:
            names[number] = first.text
        rows.append([TableCell(number), *rest])
    return rows, names


def _legend(number: str, name: str, width: int | None) -> Iterator[str]:
    """Yield the lines of a number and its name, which is wrapped at the width of the terminal."""
    indent = len(number) + GAP
    room = cell_len(name) if width is None else max(1, width - indent)
    for i, part in enumerate(chop_cells(name, max(1, room))):
        yield (f"{number:<{indent}}" if i == 0 else " " * indent) + part


def _aligned(rows: Sequence[Sequence[TableCell]]) -> list[list[str]]:
    """Return the texts of the cells, with the letters of each column aligned after the numbers."""
    widths = [max((len(cell.letters) for cell in column), default=0) for column in zip(*rows, strict=True)]
    return [
        [
            cell.text + (f" {cell.letters:<{room}}" if room else "")
            for cell, room in zip(row, widths, strict=True)
        ]
        for row in rows
    ]
