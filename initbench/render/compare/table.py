"""One table of a comparison, whatever it is going to be written as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TableCell:
    """What stands in one place: a text, and the letters of a mean."""

    text: str
    letters: str = ""


@dataclass
class ComparisonTable:
    """A title, headings, rows of cells, and what has to be said about them."""

    title: str
    headings: Sequence[str]
    left_aligned: frozenset[str] = frozenset()
    """Headings of columns of words, set flush left; the rest are numbers."""
    fixed: int = 1
    """Columns, from the left, that say what a row is."""
    rows: list[list[TableCell]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    summary: str = ""
    """A line that stands for the notes where not all are asked for; empty where there is a single one."""
    warnings: list[str] = field(default_factory=list)
    """Notes about runs that are missing or too few."""
    picture: Sequence[str] = ()
    """Lines of a drawing, instead of a table."""

    def add(self, *cells: TableCell | str) -> None:
        """Add a row, one cell for each heading."""
        assert len(cells) == len(self.headings)
        self.rows.append([TableCell(cell) if isinstance(cell, str) else cell for cell in cells])
