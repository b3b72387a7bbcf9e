"""What changed since an earlier state, in lines and as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initbench.compare.against.changes import Change, Changes, RowChange
from initbench.compare.sides import RunsSide
from initbench.report import text
from initbench.report.text import plural

MOST_ROWS, MOST_METRICS = 20, 12
"""What is listed of each kind."""


def change_lines(changes: Changes) -> list[str]:
    """How many rows are in both states, what is shown to have changed, and which rows are in one alone."""
    same = sum(row.is_same_runs for row in changes.rows)
    changed = [row for row in changes.rows if row.shown or row.is_divergence_shown]
    lines = [
        f"{plural(len(changes.rows), 'row')} in both states, {plural(changes.tests, 'comparison')} "
        f"(Holm, {100 * changes.confidence:.6g} %): {len(changed)} shown to have changed"
    ]
    if same:
        why = "nothing they are computed from has changed"
        lines.append(f"  {plural(same, 'row')} with the very same run ids: {why}")
    for row in changed[:MOST_ROWS]:
        lines += _of_row(row)
    if len(changed) > MOST_ROWS:
        lines.append(f"  … and {plural(len(changed) - MOST_ROWS, 'row')} more")
    for labels, where in ((changes.only_now, "now"), (changes.only_before, "before")):
        rest = "" if len(labels) <= MOST_ROWS else f" and {len(labels) - MOST_ROWS} more"
        if labels:
            lines.append(f"  only {where}: {', '.join(labels[:MOST_ROWS])}{rest}")
    return lines


def _of_row(row: RowChange) -> Iterator[str]:
    yield f"  {row.row.label} ({row.table.dataset}), {_seeds(row)}"
    for change in row.shown[:MOST_METRICS]:
        yield f"    {_of_metric(change)}"
    if len(row.shown) > MOST_METRICS:
        yield f"    … and {plural(len(row.shown) - MOST_METRICS, 'metric')} more"
    if row.is_divergence_shown and row.divergence.difference is not None:
        more = "more" if row.divergence.difference > 0 else "less"
        yield f"    diverges {more} often (p = {row.divergence_p_adjusted:.2g}, {row.divergence.method})"


def _seeds(row: RowChange) -> str:
    return f"{plural(row.before.n, 'run')} before, {row.now.n} now"


def _of_metric(change: Change) -> str:
    found = change.found
    assert found.difference is not None and found.interval is not None and change.p_adjusted is not None
    sign = "×" if found.scale == "log" else "+" if found.difference > 0 else ""
    ends = f"{found.interval.low:.3g} to {found.interval.high:.3g}"
    means = f"{text.number(change.before)} → {text.number(change.now)}"
    size = f"{sign}{found.difference:.3g} ({ends}), p = {change.p_adjusted:.2g}, {found.method}"
    return f"{change.metric.name}: {means}, {size}: {change.verdict}"


def against_document(changes: Changes, source: str) -> dict[str, Any]:
    """The key "against" of the document of `compare`."""
    return {
        "source": source,
        "confidence": changes.confidence,
        "tests": changes.tests,
        "rows": [_row(row) for row in changes.rows],
        "only_now": changes.only_now,
        "only_before": changes.only_before,
    }


def _row(row: RowChange) -> dict[str, Any]:
    return {
        "key": row.row.key,
        "label": row.row.label,
        "dataset": row.table.dataset,
        "n_before": row.before.n,
        "n_now": row.now.n,
        "same_runs": row.is_same_runs,
        "seeds_known": isinstance(row.before, RunsSide),
        "changed": [change.metric.name for change in row.shown],
        "metrics": {change.metric.name: _metric(change) for change in row.changes},
        "divergence_rate": {
            "difference": row.divergence.difference,
            "p_adjusted": row.divergence_p_adjusted,
            "method": str(row.divergence.method),
        },
    }


def _metric(change: Change) -> dict[str, Any]:
    found = change.found
    return {
        "before": change.before,
        "now": change.now,
        "difference": found.difference,
        "scale": found.scale,
        "ci": None if found.interval is None else [found.interval.low, found.interval.high],
        "p_adjusted": change.p_adjusted,
        "effect_size": found.effect_size,
        "verdict": str(change.verdict),
        "method": str(found.method),
        "n": [found.n_a, found.n_b],
    }
