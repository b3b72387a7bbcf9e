"""Page layout: headings, labelled lines, tables and drawings, added line by line."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.console import Console
from rich.text import Text

from initbench.render.terminal import print_uncut
from initbench.render.text_table import TextTable

_MARGIN = "  "
_LABEL = 14


@dataclass
class Page:
    """Lines and tables in order. Prose is wrapped to `width`; drawings and table cells are never cut."""

    width: int | None
    """Columns of the terminal; None for lines of any length."""
    parts: list[Text | TextTable] = field(default_factory=list)

    def title(self, name: str, noun: str) -> None:
        """Add the name of the subject, followed by its kind."""
        self.parts.append(Text.assemble((name, "bold"), f"  {noun}", no_wrap=True, overflow="ignore"))

    def heading(self, text: str) -> None:
        """Add a heading with a blank line above it."""
        self.parts += [Text(), Text(text, style="bold", no_wrap=True, overflow="ignore")]

    def say(self, text: str) -> None:
        """Add a paragraph."""
        self.draw(self._wrap(text, len(_MARGIN)))

    def pair(self, label: str, text: str) -> None:
        """Add a label with its text; nothing if the text is empty."""
        lines = self._wrap(text, len(_MARGIN) + _LABEL) if text else []
        for position, line in enumerate(lines):
            self.draw([f"{'' if position else label:<{_LABEL}}{line}"])

    def draw(self, lines: Iterable[str]) -> None:
        """Add lines that are not wrapped."""
        for line in lines:
            self.parts.append(Text(_MARGIN + line if line else "", no_wrap=True, overflow="ignore"))

    def table(self, grid: TextTable) -> None:
        """Add a table whose last column is wrapped."""
        self.parts.append(grid if self.width is None else grid.wrapped(self.width))

    def print(self, console: Console) -> None:
        """Print the page."""
        for part in self.parts:
            print_uncut(console, part.table() if isinstance(part, TextTable) else part)

    def _wrap(self, text: str, indent: int) -> list[str]:
        if self.width is None:
            return [text]
        return textwrap.wrap(text, max(24, self.width - indent), break_long_words=False)
