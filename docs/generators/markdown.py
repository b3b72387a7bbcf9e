"""Helpers that write Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

NOTHING = "–"


def cell(text: object) -> str:
    """Return text that is safe in a table cell: one line, no bare pipes."""
    return " ".join(str(text).split()).replace("|", r"\|") or NOTHING


def code(text: object) -> str:
    """Return text as inline code, or an en dash for nothing."""
    return f"`{text}`" if str(text) else NOTHING


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a pipe table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell(c) for c in line) + " |" for line in lines)


def generated(source: str) -> str:
    """Return the comment at the head of a generated page."""
    return f"<!-- Written by `python -m docs.generate` from {source}; do not edit. -->"


def page(*parts: str) -> str:
    """Join paragraphs, tables and headings with blank lines."""
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def between(text: str, begin: str, end: str, content: str) -> str:
    """Replace the text between the marker lines `begin` and `end` with `content`."""
    pattern = re.compile(f"({re.escape(begin)}\n).*?({re.escape(end)})", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the marker {begin} … {end} is missing")
    return pattern.sub(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", text, count=1)


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    plain = re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", ""))
    return plain.replace(" ", "-")
