"""Render the table in docs/lint.md."""

from __future__ import annotations

from docs.generators.markdown import NOTHING, between, code, table
from initbench.linting.rule import LINT_RULES

BEGIN, END = "<!-- codes: written by `python -m docs.generate` from CHECKS -->", "<!-- /codes -->"


def render(current: str) -> str:
    """Return the page with its table rewritten."""
    header = ("code", "level", "what it says", "threshold", "cure", "source")
    rows = [
        [code(check.name), check.level, check.summary, check.limit, check.cure, check.source or NOTHING]
        for check in LINT_RULES
    ]
    return between(current, BEGIN, END, table(header, rows))
