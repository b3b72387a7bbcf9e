"""What changed since an earlier state, in lines and as plain data."""

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
"""What is listed of each kind."""


def change_lines(changes: Changes) -> list[str]:
    """How many rows are in both states, what has changed in them, and which rows are in one alone."""
    lines = [_first(changes), *_exactly(changes)]
    telling = [row for row in changes.rows if _tells(row)]
    for row in telling[:MOST_ROWS]:
        lines += _of_row(row)
    if len(telling) > MOST_ROWS:
        lines.append(f"  … and {plural(len(telling) - MOST_ROWS, 'row')} more")
    for labels, where in ((changes.only_now, "now"), (changes.only_before, "before")):
        reasons = {label: f": {why}" for label, why in changes.reasons.items()} if where == "now" else {}
        lines += [f"  only {where}: {label}{reasons.get(label, '')}" for label in labels[:MOST_ROWS]]
        if len(labels) > MOST_ROWS:
            lines.append(f"  only {where}: {plural(len(labels) - MOST_ROWS, 'row')} more")
    return lines


def _first(changes: Changes) -> str:
    if not changes.rows:
        why = "of the same experiment, data, precision and budget"
        return f"NOTHING COMPARED: no row now and no row before are {why}"
    changed = [row for row in changes.rows if _count(row)]
    shown = f"{plural(len(changed), 'row')} ({plural(sum(map(_count, changed)), 'metric')})"
    return (
        f"{plural(len(changes.rows), 'row')} in both states, {plural(changes.tests, 'comparison')} "
        f"(Holm, {100 * changes.confidence:.6g} %): {shown if changed else 'none'} shown to have changed"
    )


def _count(row: RowChange) -> int:
    """The metrics that are shown to have changed, how often runs diverge among them."""
    return len(row.shown) + row.is_divergence_shown


def _exactly(changes: Changes) -> Iterator[str]:
    """What holds of the very runs, for which nobody needs a test."""
    same = sum(row.is_same_runs for row in changes.rows)
    if same:
        yield (
            f"  {plural(same, 'row')} with the very same run ids: nothing they are computed from has changed"
        )
    found = [row.exact for row in changes.rows if row.exact is not None and not row.is_same_runs]
    held = [one for one in found if one.shared]
    other = sum(bool(one.other) for one in held)
    if other:
        yield f"  {other} of {plural(len(held), 'row')} {_verb(other)} other numbers for the same seeds"
    if len(held) > other:
        yield f"  {plural(len(held) - other, 'row')} identical to the last digit for the same seeds"
    if len(found) > len(held):
        yield f"  {plural(len(found) - len(held), 'row')} without a seed that both states have"
    for words in dict.fromkeys(words for one in held if one.other for words in one.elsewhere):
        yield f"  {words}: the last digits may differ for that alone"
    if changes.rows and not found and not same:
        yield "  run by run nothing can be compared: the earlier state is a summary"


def _verb(count: int) -> str:
    return "gives" if count == 1 else "give"


def _tells(row: RowChange) -> bool:
    """Whether there is anything to say of a row."""
    has_other = row.exact is not None and bool(row.exact.other)
    is_told = bool(_count(row) or has_other or row.diverged[0] != row.diverged[1] or row.lost)
    return is_told or bool(row.config_changes)


def _of_row(row: RowChange) -> Iterator[str]:
    yield f"  {one_line(row.row.label)} ({row.table.dataset}), {_seeds(row)}"
    if row.config_changes:
        yield f"    matched by name, for its config has changed: {one_line(', '.join(row.config_changes))}"
    if row.exact is not None and row.exact.other:
        yield f"    {_of_runs(row.exact)}"
    if row.diverged[0] != row.diverged[1] or row.is_divergence_shown:
        yield f"    {_of_divergences(row)}"
    lost = row.lost if row.now.n else []  # no run at all has been said above
    for metrics, words in ((lost, "without"), (row.gained if _started(row) else [], "with")):
        if metrics:
            yield f"    now {words} a value: {_named(metrics)}"
    for change in row.shown[:MOST_METRICS]:
        yield f"    {_of_metric(change)}"
    if len(row.shown) > MOST_METRICS:
        yield f"    … and {plural(len(row.shown) - MOST_METRICS, 'metric')} more"


def _started(row: RowChange) -> bool:
    """Whether runs that used to diverge no longer do; else a new value is only newly measured."""
    return row.diverged[0] > row.diverged[1]


def _seeds(row: RowChange) -> str:
    return f"{plural(row.before.n, 'run')} before, {row.now.n} now"


def _of_runs(found: BitwiseDiff) -> str:
    words = f"other numbers in {len(found.other)} of {plural(found.shared, 'run')} of the same seeds"
    largest = ", ".join(map(_moved, found.largest[:MOST_MOVED]))
    return f"{words}; most in {largest}" if largest else words


def _moved(one: ChangedValue) -> str:
    return f"{one.metric.name} ({one.unit}) {_digits(one.before, one.now)}"


def _digits(before: float, now: float) -> str:
    """Both numbers with as many digits as it takes to tell them apart."""
    for digits in (3, 6, 9):
        if f"{before:.{digits}g}" != f"{now:.{digits}g}":
            return f"{before:.{digits}g} → {now:.{digits}g}"
    return f"{before!r} → {now!r}"


def _of_divergences(row: RowChange) -> str:
    (before, now), found = row.diverged, row.divergence
    words = f"{before} of {row.before.n} diverged before, {now} of {row.now.n} now"
    if found.p is None:
        return words
    by_holm = "" if row.divergence_p_adjusted is None else f", {row.divergence_p_adjusted:.2g} by Holm"
    shown = ": shown" if row.is_divergence_shown else ""
    return f"{words} (p = {found.p:.2g}{by_holm}, {found.method}){shown}"


def _named(metrics: Sequence[Metric]) -> str:
    more = len(metrics) - MOST_NAMED
    named = ", ".join(metric.name for metric in metrics[:MOST_NAMED])
    return f"{named} and {more} more" if more > 0 else named


def _of_metric(change: Change) -> str:
    found = change.found
    assert found.difference is not None and found.interval is not None and change.p_adjusted is not None
    sign = "×" if found.scale == "log" else "+" if found.difference > 0 else ""
    ends = f"{found.interval.low:.3g} to {found.interval.high:.3g}"
    means = f"{text.format_number(change.before)} → {text.format_number(change.now)}"
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
        "reasons": changes.reasons,
    }


def _row(row: RowChange) -> dict[str, Any]:
    return {
        "key": row.row.key,
        "label": row.row.label,
        "dataset": row.table.dataset,
        "n_before": row.before.n,
        "n_now": row.now.n,
        "same_runs": row.is_same_runs,
        "config_changes": row.config_changes,
        "seeds_known": isinstance(row.before, RunsOperand),
        "exact": None if row.exact is None else _exact(row.exact),
        "diverged": {"before": row.diverged[0], "now": row.diverged[1]},
        "lost": [metric.name for metric in row.lost],
        "gained": [metric.name for metric in row.gained],
        "changed": [change.metric.name for change in row.shown],
        "metrics": {change.metric.name: _metric(change) for change in row.changes},
        "divergence_rate": {
            "difference": row.divergence.difference,
            "p_adjusted": row.divergence_p_adjusted,
            "method": str(row.divergence.method),
        },
    }


def _exact(found: BitwiseDiff) -> dict[str, Any]:
    return {
        "runs": found.shared,
        "identical": found.identical,
        "other": found.other,
        "largest": [
            {"metric": one.metric.name, "run": one.unit, "before": one.before, "now": one.now}
            for one in found.largest
        ],
        "elsewhere": found.elsewhere,
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
