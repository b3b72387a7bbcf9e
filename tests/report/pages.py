"""Parser of the pages of reports for tests."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

VOID = {"meta", "link", "wbr", "input", "br", "img"}


@dataclass
class Page(HTMLParser):
    """The elements of a page, by the parser of the standard library."""

    path: Path
    rows: list[str] = field(default_factory=list)
    """Names in the legend."""
    sections: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    """Types of the script elements."""
    handlers: list[str] = field(default_factory=list)
    """Attributes that run scripts."""
    cells: list[list[str]] = field(default_factory=list)
    """Rows of all tables outside figures."""
    words: str = ""
    """Text outside figures, scripts and styles."""
    data: dict[str, Any] = field(default_factory=dict)
    """Columns of each figure."""

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self.feed(self.path.read_text(encoding="utf-8"))
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.handlers += [name for name in given if name.startswith("on")]
        if tag == "script":
            self.scripts.append(given.get("type") or "")
        if tag == "section":
            self.sections.append(given["id"] or "")
        if tag == "figure":
            self.figures.append(given["data-key"] or "")
        if "row-shown" in (given.get("class") or ""):
            self.rows.append(given["data-row"] or "")
        if tag == "tr":
            self.cells.append([])
        if tag in ("th", "td"):
            self.cells[-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if "figure" in self._open:
            if self._open[-1] == "script":
                self.data[self.figures[-1]] = json.loads(data)["columns"]
        elif self._open and self._open[-1] not in ("script", "style", "title"):
            self.words += data
            if {"th", "td"} & set(self._open):
                self.cells[-1][-1] += data

    def column(self, figure: str, name: str) -> list[Any]:
        """Return a column of the data of a figure; runs of equal values are expanded."""
        column = self.data[figure][name]
        if isinstance(column, list):
            return column
        return [
            value
            for value, count in zip(column["values"], column["counts"], strict=True)
            for _ in range(count)
        ]

    def cells_of(self, first: str) -> list[str]:
        """Return the first table row that begins with this cell."""
        return next(row for row in self.cells if row and row[0] == first)

    @property
    def own_scripts(self) -> list[str]:
        """Types of the script elements that a page of these figures has."""
        data = ["application/json"] * (len(self.figures) + 1)
        return [*data, "module", "module"]
