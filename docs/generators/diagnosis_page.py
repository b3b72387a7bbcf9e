"""The table in docs/diagnosis.md."""

from __future__ import annotations

import math

from docs.generators.markdown import NOTHING, between, code, table
from initbench.probing.diagnose import CODES
from initbench.probing.finding import Code
from initbench.probing.slopes import FALL

BEGIN, END = "<!-- codes: written by `python -m docs.generate` from CODES -->", "<!-- /codes -->"


def render(current: str) -> str:
    """The page with its table written anew."""
    header = ("precedence", "code", "meaning", "what is measured", "threshold", "hides")
    rows = [
        [
            str(place),
            code(entry.name),
            entry.meaning,
            entry.measure,
            _threshold(entry),
            ", ".join(map(code, entry.hides)) or NOTHING,
        ]
        for place, entry in enumerate(CODES, 1)
    ]
    return between(current, BEGIN, END, table(header, rows))


def _threshold(entry: Code) -> str:
    if entry.threshold is None:
        return "any"
    fall = math.log(FALL)
    if math.isclose(entry.threshold, fall):
        return f"falls to {FALL:g} of itself: slope ≤ ln({FALL:g})/(L − 1)"
    if math.isclose(entry.threshold, -fall):
        return f"grows to {1 / FALL:,.0f} times itself: slope ≥ ln({1 / FALL:g})/(L − 1)"
    return f"≤ {entry.threshold:g}" if entry.threshold < 0.01 else f"> {100 * entry.threshold:g} %"
