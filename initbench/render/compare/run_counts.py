"""Runs that are in no mean: how many there are of each status, and damaged ones that have no row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from initbench.analysis.run_summary import RunSummary
from initbench.analysis.tables import Row
from initbench.render import text

_MAX_NAMED = 6
_ORDER = ("running", "interrupted", "crashed", "failed", "damaged")


def unfinished_note(rows: Iterable[Row]) -> Iterator[str]:
    """`3 runs not finished and not counted: 1 running, 2 failed.`"""
    counts = Counter(run.status for row in rows for run in row.group.runs if not run.is_complete)
    if counts:
        kinds = sorted(counts, key=lambda status: _ORDER.index(status) if status in _ORDER else len(_ORDER))
        each = ", ".join(f"{counts[status]:,} {status}" for status in kinds)
        yield f"{text.plural(counts.total(), 'run')} not finished and not counted: {each}."


def unattributed_runs(runs: Sequence[RunSummary]) -> list[str]:
    """A sentence about damaged runs that no longer say what they computed, and so are in no row."""
    names = [text.one_line(run.run_id) for run in runs if not run.is_placed]
    if not names:
        return []
    more = len(names) - _MAX_NAMED
    listed = ", ".join(names[:_MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")
    verb = "is" if len(names) == 1 else "are"
    return [f"{text.plural(len(names), 'damaged run')} {verb} in no row: {listed}."]
