"""Plain tables with columns two spaces apart, in which no cell is cut."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Group, JustifyMethod
from rich.table import Table
from rich.text import Text

from initbench.render.text import one_line

GAP = 2
_MIN_WRAPPED = 24  # in characters; narrower columns would hold one word per line


@dataclass
class TextTable:
    """Headings and rows of text, laid out at their natural width."""

    headings: Sequence[str]
    left_aligned: Sequence[str] = ()
    """Headings of the left-aligned columns; the rest hold numbers and are right-aligned."""
    rows: list[tuple[list[str], str | None]] = field(default_factory=list)

    def add(self, cells: Sequence[str], style: str | None = None) -> None:
        """Add a row with one cell for each heading; control characters in cells are escaped."""
        self.rows.append((list(map(one_line, cells)), style))

    @property
    def width(self) -> int:
        """Width of the table in characters."""
        return sum(self._widths()) + GAP * (len(self.headings) - 1)

    def without(self, headings: Iterable[str]) -> TextTable:
        """Return the table without the columns of some headings."""
        dropped = set(headings)
        columns = [i for i, heading in enumerate(self.headings) if heading not in dropped]
        return self._only(columns)

    def fitting(self, width: int, expendable: Sequence[str]) -> TextTable:
        """Return the table without the first few `expendable` columns, as many as needed to fit `width`.

        If it still does not fit, all of them are dropped.
        """
        for count in range(len(expendable) + 1):
            narrower = self.without(expendable[:count])
            if narrower.width <= width:
                return narrower
        return narrower

    def parts(self, width: int, fixed: int) -> list[TextTable]:
        """Return the table split into as few parts as fit `width`, each with the first `fixed` columns.

        A part has at least one other column, even if that is too wide.
        """
        widths = self._widths()
        room = width - sum(widths[:fixed]) - GAP * (fixed - 1)
        column_groups: list[list[int]] = [[]]
        free = room
        for i in range(fixed, len(widths)):
            if column_groups[-1] and widths[i] + GAP > free:
                column_groups.append([])
                free = room
            column_groups[-1].append(i)
            free -= widths[i] + GAP
        return [self._only([*range(fixed), *columns]) for columns in column_groups]

    def _only(self, columns: Sequence[int]) -> TextTable:
        rows = [([cells[i] for i in columns], style) for cells, style in self.rows]
        return TextTable([self.headings[i] for i in columns], self.left_aligned, rows)

    def wrapped(self, width: int) -> TextTable:
        """Return the table with its last column wrapped onto extra rows to fit `width`."""
        *others, _ = self._widths()
        room = max(_MIN_WRAPPED, width - sum(others) - GAP * len(others))
        grid = TextTable(self.headings, self.left_aligned)
        for cells, style in self.rows:
            first, *rest = textwrap.wrap(cells[-1], room, break_long_words=False) or [""]
            grid.add([*cells[:-1], first], style)
            for line in rest:
                grid.add([*[""] * len(others), line], style)
        return grid

    def table(self) -> Table:
        """Return the rich table; print it uncropped, so that a narrow terminal wraps it and loses nothing."""
        # An explicit width, because rich otherwise cuts cells to the width of the console.
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", width=self.width)
        for heading, width in zip(self.headings, self._widths(), strict=True):
            justify: JustifyMethod = "left" if heading in self.left_aligned else "right"
            table.add_column(heading, no_wrap=True, justify=justify, min_width=width)
        for cells, style in self.rows:
            table.add_row(*cells, style=style)
        return table

    def text(self) -> Group:
        """Return the table as one text, which rich prints several times as fast: for thousands of rows."""
        widths = self._widths()
        lines = Text(no_wrap=True, overflow="ignore")
        for cells, style in [(list(self.headings), "bold"), *self.rows]:
            gaps = [" " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)]
            aligned = [
                cell + gap if heading in self.left_aligned else gap + cell
                for heading, cell, gap in zip(self.headings, cells, gaps, strict=True)
            ]
            lines.append((" " * GAP).join(aligned).rstrip(" ") + "\n", style)
        lines.right_crop(1)
        return Group(lines)

    def _widths(self) -> list[int]:
        columns = zip(self.headings, *(cells for cells, _ in self.rows), strict=True)
        return [max(map(cell_len, column)) for column in columns]
