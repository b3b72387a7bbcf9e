"""Notes on runs that no mean includes: counts of unfinished runs, and damaged runs without a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from initbench.analysis.run_summary import RunSummary
from initbench.analysis.tables import Row
from initbench.render import text

_MAX_NAMED = 6
_ORDER = ("running", "interrupted", "crashed", "failed", "damaged")


def unfinished_note(rows: Iterable[Row]) -> Iterator[str]:
    """Yield a note such as `3 unfinished runs are not counted: 1 running, 2 failed.` if there are any."""
    counts = Counter(run.status for row in rows for run in row.group.runs if not run.is_complete)
    if counts:
        kinds = sorted(counts, key=lambda status: _ORDER.index(status) if status in _ORDER else len(_ORDER))
        each = ", ".join(f"{counts[status]:,} {status}" for status in kinds)
        verb = "is" if counts.total() == 1 else "are"
        yield f"{text.plural(counts.total(), 'unfinished run')} {verb} not counted: {each}."


def unattributed_runs(runs: Sequence[RunSummary]) -> list[str]:
    """Return a sentence about damaged runs that cannot be assigned to a row; empty if there are none."""
    names = [text.one_line(run.run_id) for run in runs if not run.is_placed]
    if not names:
        return []
    more = len(names) - _MAX_NAMED
    listed = ", ".join(names[:_MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")
    return [f"{text.plural(len(names), 'damaged run')} cannot be assigned to a row: {listed}."]
