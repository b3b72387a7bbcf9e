"""Render the tables of columns in docs/export.md."""

from __future__ import annotations

from docs.generators.markdown import between, code, table
from initbench.export.tables import FIXED_COLUMNS

_KEY = ("run_id", "experiment", "seed")
"""Columns of every table, which the page lists once, with `runs`."""


def render(current: str) -> str:
    """Return the page with its tables rewritten."""
    for name, columns in FIXED_COLUMNS.items():
        begin = f"<!-- {name}: written by `python -m docs.generate` from FIXED_COLUMNS -->"
        rows = [
            [code(column.name), column.kind, column.meaning]
            for column in columns
            if name == "runs" or column.name not in _KEY
        ]
        current = between(current, begin, f"<!-- /{name} -->", table(("column", "type", "meaning"), rows))
    return current
