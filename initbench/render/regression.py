"""Changes since an earlier state, as lines of text and as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from initbench.analysis.metrics import Metric
from initbench.analysis.operands import RunsOperand
from initbench.analysis.regression.bitwise import BitwiseDiff, ChangedValue
from initbench.analysis.regression.changes import Change, Changes, RowChange
from initbench.render import text
from initbench.render.text import one_line, plural

MOST_ROWS, MOST_METRICS, MOST_NAMED, MOST_MOVED = 20, 12, 6, 3
"""Limits of the output: rows, metrics per row, named metrics, and moved metrics."""


def change_lines(changes: Changes) -> list[str]:
    """Return lines on the rows in both states, their changes, and the rows in one state only."""
    lines = [_headline(changes), *_bitwise_lines(changes)]
    telling = [row for row in changes.rows if _has_changes(row)]
    for row in telling[:MOST_ROWS]:
        lines += _row_lines(row)
    if len(telling) > MOST_ROWS:
        lines.append(f"  … and {plural(len(telling) - MOST_ROWS, 'more row')}")
    for labels, where in ((changes.only_now, "now"), (changes.only_before, "before")):
        reasons = {label: f": {why}" for label, why in changes.reasons.items()} if where == "now" else {}
        lines += [f"  only {where}: {label}{reasons.get(label, '')}" for label in labels[:MOST_ROWS]]
        if len(labels) > MOST_ROWS:
            lines.append(f"  only {where}: {plural(len(labels) - MOST_ROWS, 'more row')}")
    return lines


def _headline(changes: Changes) -> str:
    if not changes.rows:
        same = "same experiment, config, data, precision, budget"
        return f"nothing to compare: no row matches the earlier state ({same})"
    changed = [row for row in changes.rows if _count(row)]
    rows = f"{plural(len(changed), 'row')} ({plural(sum(map(_count, changed)), 'metric')})"
    summary = f"significant changes in {rows}" if changed else "no significant changes"
    return (
        f"{plural(len(changes.rows), 'row')} in both states, {plural(changes.tests, 'comparison')} "
        f"(Holm, {100 * changes.confidence:.6g} %): {summary}"
    )


def _count(row: RowChange) -> int:
    """Return the number of metrics with a significant change, including the rate of divergence."""
    return len(row.detected_changes) + row.is_divergence_change_detected


def _bitwise_lines(changes: Changes) -> Iterator[str]:
    """Yield lines on the exact comparison of the runs themselves, which needs no test."""
    same = sum(row.is_same_runs for row in changes.rows)
    if same:
        yield f"  {plural(same, 'row')} with identical run ids: config, data, torch and code are unchanged"
    diffs = [row.bitwise for row in changes.rows if row.bitwise is not None and not row.is_same_runs]
    comparable = [diff for diff in diffs if diff.shared]
    other = sum(bool(diff.changed_units) for diff in comparable)
    if other:
        rows = f"{other} of {plural(len(comparable), 'row')}"
        yield f"  {rows} {_verb(other)} different results for the same seeds"
    if len(comparable) > other:
        yield f"  {plural(len(comparable) - other, 'row')} identical to the last digit for the same seeds"
    if len(diffs) > len(comparable):
        yield f"  {plural(len(diffs) - len(comparable), 'row')} without a seed that is in both states"
    for words in dict.fromkeys(
        words for diff in comparable if diff.changed_units for words in diff.environment_changes
    ):
        yield f"  {words}: this alone may change the last digits"
    if changes.rows and not diffs and not same:
        yield "  runs cannot be compared one by one: the earlier state is a summary"


def _verb(count: int) -> str:
    return "gives" if count == 1 else "give"


def _has_changes(row: RowChange) -> bool:
    """Return whether there is anything to report about a row."""
    has_other = row.bitwise is not None and bool(row.bitwise.changed_units)
    is_told = bool(
        _count(row) or has_other or row.diverged_counts[0] != row.diverged_counts[1] or row.lost_metrics
    )
    return is_told or bool(row.config_changes)


def _row_lines(row: RowChange) -> Iterator[str]:
    yield f"  {one_line(row.row.label)} ({row.table.dataset}), {_seeds(row)}"
    if row.config_changes:
        yield f"    matched by name, because its config changed: {one_line(', '.join(row.config_changes))}"
    if row.bitwise is not None and row.bitwise.changed_units:
        yield f"    {_differing_runs(row.bitwise)}"
    if row.diverged_counts[0] != row.diverged_counts[1] or row.is_divergence_change_detected:
        yield f"    {_divergence_line(row)}"
    lost = row.lost_metrics if row.now.n else []  # missing runs are reported in the line above
    for metrics, words in ((lost, "without"), (row.gained_metrics if _started(row) else [], "with")):
        if metrics:
            yield f"    now {words} a value: {_join_metrics(metrics)}"
    for change in row.detected_changes[:MOST_METRICS]:
        yield f"    {_metric_line(change)}"
    if len(row.detected_changes) > MOST_METRICS:
        yield f"    … and {plural(len(row.detected_changes) - MOST_METRICS, 'metric')} more"


def _started(row: RowChange) -> bool:
    """Return whether fewer runs diverge than before; otherwise a new value is only a new measurement."""
    return row.diverged_counts[0] > row.diverged_counts[1]


def _seeds(row: RowChange) -> str:
    return f"{plural(row.earlier.n, 'run')} before, {row.now.n} now"


def _differing_runs(diff: BitwiseDiff) -> str:
    words = (
        f"different results in {len(diff.changed_units)} of {plural(diff.shared, 'run')} with the same seeds"
    )
    largest = ", ".join(map(_changed_value, diff.largest_changes[:MOST_MOVED]))
    return f"{words}; largest changes: {largest}" if largest else words


def _changed_value(changed: ChangedValue) -> str:
    return f"{changed.metric.name} ({changed.unit}) {_digits(changed.earlier, changed.now)}"


def _digits(previous: float, now: float) -> str:
    """Format both numbers with enough digits to distinguish them."""
    for digits in (3, 6, 9):
        if f"{previous:.{digits}g}" != f"{now:.{digits}g}":
            return f"{previous:.{digits}g} → {now:.{digits}g}"
    return f"{previous!r} → {now!r}"


def _divergence_line(row: RowChange) -> str:
    (previous, now), rates = row.diverged_counts, row.divergence
    words = f"{previous} of {row.earlier.n} diverged before, {now} of {row.now.n} now"
    if rates.p is None:
        return words
    by_holm = "" if row.divergence_p_adjusted is None else f", Holm-adjusted {row.divergence_p_adjusted:.2g}"
    suffix = ": significant" if row.is_divergence_change_detected else ""
    return f"{words} (p = {rates.p:.2g}{by_holm}, {rates.method}){suffix}"


def _join_metrics(metrics: Sequence[Metric]) -> str:
    more = len(metrics) - MOST_NAMED
    names = ", ".join(metric.name for metric in metrics[:MOST_NAMED])
    return f"{names} and {more} more" if more > 0 else names


def _metric_line(change: Change) -> str:
    difference = change.difference
    assert (
        difference.difference is not None
        and difference.interval is not None
        and change.p_adjusted is not None
    )
    sign = "×" if difference.scale == "log" else "+" if difference.difference > 0 else ""
    ends = f"{difference.interval.low:.3g} to {difference.interval.high:.3g}"
    means = f"{text.format_number(change.earlier)} → {text.format_number(change.now)}"
    size = f"{sign}{difference.difference:.3g} ({ends}), p = {change.p_adjusted:.2g}, {difference.method}"
    return f"{change.metric.name}: {means}, {size}: {change.verdict}"


def against_document(changes: Changes, source: str) -> dict[str, Any]:
    """Return the value of the key "against" in the JSON document of `compare`."""
    return {
        "source": source,
        "confidence": changes.confidence,
        "tests": changes.tests,
        "rows": [_row(row) for row in changes.rows],
        "only_now": changes.only_now,
        "only_before": changes.only_before,
        "reasons": changes.reasons,
    }


def _row(row: RowChange) -> dict[str, Any]:
    return {
        "key": row.row.key,
        "label": row.row.label,
        "dataset": row.table.dataset,
        "n_before": row.earlier.n,
        "n_now": row.now.n,
        "same_runs": row.is_same_runs,
        "config_changes": row.config_changes,
        "seeds_known": isinstance(row.earlier, RunsOperand),
        "exact": None if row.bitwise is None else _exact(row.bitwise),
        "diverged": {"before": row.diverged_counts[0], "now": row.diverged_counts[1]},
        "lost": [metric.name for metric in row.lost_metrics],
        "gained": [metric.name for metric in row.gained_metrics],
        "changed": [change.metric.name for change in row.detected_changes],
        "metrics": {change.metric.name: _metric(change) for change in row.changes},
        "divergence_rate": {
            "difference": row.divergence.difference,
            "p_adjusted": row.divergence_p_adjusted,
            "method": str(row.divergence.method),
        },
    }


def _exact(diff: BitwiseDiff) -> dict[str, Any]:
    return {
        "runs": diff.shared,
        "identical": diff.identical,
        "other": diff.changed_units,
        "largest": [
            {
                "metric": changed.metric.name,
                "run": changed.unit,
                "before": changed.earlier,
                "now": changed.now,
            }
            for changed in diff.largest_changes
        ],
        "elsewhere": diff.environment_changes,
    }


def _metric(change: Change) -> dict[str, Any]:
    difference = change.difference
    return {
        "before": change.earlier,
        "now": change.now,
        "difference": difference.difference,
        "scale": difference.scale,
        "ci": None if difference.interval is None else [difference.interval.low, difference.interval.high],
        "p_adjusted": change.p_adjusted,
        "effect_size": difference.effect_size,
        "verdict": str(change.verdict),
        "method": str(difference.method),
        "n": [difference.n_a, difference.n_b],
    }
