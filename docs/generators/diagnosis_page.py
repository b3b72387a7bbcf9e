"""Render the tables in docs/diagnosis.md."""

from __future__ import annotations

from docs.generators.markdown import NOTHING, between, code, table
from initbench.probing.diagnosis import CODES

BEGIN, END = "<!-- codes: written by `python -m docs.generate` from CODES -->", "<!-- /codes -->"


def render(current: str) -> str:
    """Return the page with its tables rewritten."""
    header = ("precedence", "code", "meaning", "what is measured", "threshold", "hides")
    rows = [
        [
            str(rank),
            code(entry.name),
            entry.summary,
            entry.measure,
            entry.limit,
            ", ".join(map(code, entry.hides)) or NOTHING,
        ]
        for rank, entry in enumerate(CODES, 1)
    ]
    remedies = [[code(entry.name), entry.level, entry.cause, entry.cure] for entry in CODES]
    remedy_table = table(("code", "level", "usual cause", "cure"), remedies)
    return between(current, BEGIN, END, f"{table(header, rows)}\n\n{remedy_table}")
