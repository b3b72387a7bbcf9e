"""Tables of a comparison, independent of the output format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TableCell:
    """Cell of a table: a text, and the significance letters of a mean."""

    text: str
    letters: str = ""


@dataclass
class ComparisonTable:
    """Table with a title, headings, rows of cells, notes and warnings."""

    title: str
    headings: Sequence[str]
    left_aligned: frozenset[str] = frozenset()
    """Headings of text columns, which are left-aligned; all other columns are numbers."""
    fixed: int = 1
    """Number of leftmost columns that identify a row; every part of a split table repeats them."""
    rows: list[list[TableCell]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    summary: str = ""
    """One line that replaces the notes unless all are requested; empty if the notes are always shown."""
    warnings: list[str] = field(default_factory=list)
    """Warnings about missing or too few runs."""
    picture: Sequence[str] = ()
    """Lines of a plot that replaces the table."""

    def add(self, *cells: TableCell | str) -> None:
        """Add a row, one cell for each heading."""
        assert len(cells) == len(self.headings)
        self.rows.append([TableCell(cell) if isinstance(cell, str) else cell for cell in cells])
