"""Rows of a table held against one of them, and against each other, metric by metric.

A family, over which Holm's correction is made, is one metric's comparisons in one table: of all rows with the
baseline, or of all pairs of rows. All of a family are made by one test: paired where every two rows share
seeds and data, else Welch's. Otherwise two rows with the same numbers could be put to different tests, and
only one of them be told apart from a third.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

from initbench.analysis.grouping import share_batches
from initbench.analysis.metrics import METRICS, Metric
from initbench.analysis.stats.confidence_intervals import Interval, interval
from initbench.analysis.stats.fisher import RateDifference, rate_difference
from initbench.analysis.stats.mean_difference import MeanDifference, Method, difference
from initbench.analysis.stats.multiple_comparisons import holm, letters
from initbench.analysis.stats.power import SeedsNeeded, seeds_needed
from initbench.analysis.stats.summary import Scale
from initbench.analysis.stats.verdict import DifferenceVerdict, is_significant, verdict
from initbench.analysis.tables import Row, Table
from initbench.errors import UsageError
from initbench.registry import unknown_name_message

CONFIDENCE = 0.95


@dataclass(frozen=True)
class BaselineComparison:
    """A row's metric less that of the baseline; of metrics with geometric means, the ratio."""

    found: MeanDifference
    p_adjusted: float | None
    verdict: DifferenceVerdict
    seeds_needed: SeedsNeeded | None
    """In each row, to show the difference seen; None where that cannot be said."""


def compare_to_baseline(
    table: Table, baseline: Row, metric: str, confidence: float = CONFIDENCE
) -> dict[str, BaselineComparison]:
    """By label, every other row beside the baseline in one metric."""
    entry = METRICS[metric]
    others = [row for row in table.rows if row is not baseline]
    seen = _differences(entry, [(row, baseline) for row in others], confidence)
    adjusted = holm([one.p for one in seen])
    return {
        row.label: BaselineComparison(
            one, p, _verdict(entry, row, baseline, one, p), _needed(entry, row, baseline, confidence, one)
        )
        for row, one, p in zip(others, seen, adjusted, strict=True)
    }


def _verdict(
    metric: Metric, row: Row, baseline: Row, found: MeanDifference, p: float | None
) -> DifferenceVerdict:
    never = metric.censored and not (_values(metric, row) and _values(metric, baseline))
    if not metric.censored and not (row.values[metric.name] and baseline.values[metric.name]):
        lacking = row if not row.values[metric.name] else baseline
        return (
            DifferenceVerdict.DIVERGED
            if lacking.diverged == lacking.n > 0
            else DifferenceVerdict.NOT_MEASURED
        )
    return (
        DifferenceVerdict.UNDEFINED
        if never or metric.one_clock
        else verdict(found, metric.better, p_adjusted=p)
    )


def divergence_versus(table: Table, baseline: Row) -> dict[str, tuple[RateDifference, float | None]]:
    """By label, how much more often runs of a row diverge than those of the baseline, with the adjusted p."""
    others = [row for row in table.rows if row is not baseline]
    seen = [rate_difference(row.divergences, baseline.divergences) for row in others]
    adjusted = holm([one.p for one in seen])
    return {row.label: (one, p) for row, one, p in zip(others, seen, adjusted, strict=True)}


def letter_display(table: Table, metric: str, confidence: float = CONFIDENCE) -> dict[str, str]:
    """By label, letters of which two rows share one unless they are told apart; best rows first.

    Rows without a mean have none. A pair that cannot be tested is not told apart. Rows with the same mean and
    spread have the same letters, whatever their n: a third row is told apart from all of them or from none.
    """
    entry = METRICS[metric]
    rows = [row for row in table.rows if row.metrics[metric].mean is not None and _values(entry, row)]
    pairs = list(combinations(rows, 2))
    adjusted = holm([one.p for one in _differences(entry, pairs, confidence)])
    together = {
        (kind, other)
        for (a, b), p in zip(pairs, adjusted, strict=True)
        if not is_significant(p, confidence)
        for kind, other in permutations((_numbers(a, metric), _numbers(b, metric)))
    }
    apart = {
        (a.label, b.label) for a, b in pairs if (_numbers(a, metric), _numbers(b, metric)) not in together
    }
    ordered = sorted(rows, key=lambda row: row.metrics[metric].mean or 0.0, reverse=entry.better != "lower")
    return letters([row.label for row in ordered], apart)


def _numbers(row: Row, metric: str) -> Hashable:
    """The mean and the spread; of a single run, which has no spread, the row itself."""
    summary = row.metrics[metric]
    return row.label if summary.std is None else (summary.mean, summary.std)


def interval_of(row: Row, metric: str, confidence: float = CONFIDENCE) -> Interval | None:
    """Of the mean; None for one run, and where some runs have no value that stands for "never"."""
    entry = METRICS[metric]
    return interval(list(_values(entry, row).values()), confidence, _scale(entry))


def find_row(table: Table, name: str) -> Row | None:
    """The row that is called so: by a label, its experiment, or a value of the keys that make the rows.

    None where the table has none. Raises UsageError where several rows of it are called so.
    """
    found = [row for row in table.rows if name in (row.label, row.group.key_label)] or [
        row for row in table.rows if name in map(str, row.key.values())
    ]
    if len(found) > 1:
        labels = ", ".join(repr(row.label) for row in found)
        raise UsageError(f"several rows are called {name!r}: name one of {labels}")
    return found[0] if found else None


def find_baselines(tables: Sequence[Table], name: str) -> list[Row | None]:
    """For each table, the row of that name; raises UsageError, with the nearest name, where none has it."""
    found = [find_row(table, name) for table in tables]
    if tables and not any(found):
        labels = dict.fromkeys(row.label for table in tables for row in table.rows)
        raise UsageError(f"--baseline: {unknown_name_message('row', name, labels)}")
    return found


def _differences(metric: Metric, pairs: Sequence[tuple[Row, Row]], confidence: float) -> list[MeanDifference]:
    """The differences of a family, all by one test."""
    if all(share_batches([*a.group.runs, *b.group.runs]) for a, b in pairs):
        found = [_difference(metric, a, b, confidence, paired=True) for a, b in pairs]
        if all(one.method != Method.TOO_FEW_SHARED for one in found):
            return found
    return [_difference(metric, a, b, confidence, paired=False) for a, b in pairs]


def _difference(metric: Metric, a: Row, b: Row, confidence: float, *, paired: bool) -> MeanDifference:
    return difference(
        _values(metric, a), _values(metric, b), paired=paired, confidence=confidence, scale=_scale(metric)
    )


def _needed(metric: Metric, a: Row, b: Row, confidence: float, found: MeanDifference) -> SeedsNeeded | None:
    arms = _values(metric, a), _values(metric, b)
    paired = found.method in (Method.PAIRED, Method.SIGN)
    return seeds_needed(*arms, confidence=confidence, paired=paired, scale=_scale(metric))


def _values(metric: Metric, row: Row) -> Mapping[str, float]:
    """The numbers of the runs; none where a missing one stands for "never", one where they are no sample."""
    mean = row.metrics[metric.name].mean
    if metric.censored and mean is None:
        return {}
    return {"all": mean} if metric.one_clock and mean is not None else row.values[metric.name]


def _scale(metric: Metric) -> Scale:
    return "log" if metric.log else "linear"
