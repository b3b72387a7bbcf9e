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
from initbench.analysis.stats.confidence_intervals import Interval, mean_interval
from initbench.analysis.stats.fisher import RateDifference, compare_rates
from initbench.analysis.stats.mean_difference import MeanDifference, Method, compare_means
from initbench.analysis.stats.multiple_comparisons import assign_letters, holm
from initbench.analysis.stats.power import SeedsNeeded, seeds_needed
from initbench.analysis.stats.summary import Scale
from initbench.analysis.stats.verdict import DifferenceVerdict, difference_verdict, is_significant
from initbench.analysis.tables import Row, Table
from initbench.errors import UsageError
from initbench.registry import unknown_name_message

CONFIDENCE = 0.95


@dataclass(frozen=True)
class BaselineComparison:
    """A row's metric less that of the baseline; of metrics with geometric means, the ratio."""

    difference: MeanDifference
    p_adjusted: float | None
    verdict: DifferenceVerdict
    seeds_needed: SeedsNeeded | None
    """In each row, to show the difference seen; None where that cannot be said."""


def compare_to_baseline(
    table: Table, baseline: Row, metric: str, confidence: float = CONFIDENCE
) -> dict[str, BaselineComparison]:
    """By label, every other row beside the baseline in one metric."""
    metric_entry = METRICS[metric]
    others = [row for row in table.rows if row is not baseline]
    comparisons = _compare_pairs(metric_entry, [(row, baseline) for row in others], confidence)
    adjusted = holm([comparison.p for comparison in comparisons])
    return {
        row.label: BaselineComparison(
            comparison,
            p,
            _row_verdict(metric_entry, row, baseline, comparison, p),
            _seeds_needed(metric_entry, row, baseline, confidence, comparison),
        )
        for row, comparison, p in zip(others, comparisons, adjusted, strict=True)
    }


def _row_verdict(
    metric: Metric, row: Row, baseline: Row, difference: MeanDifference, p: float | None
) -> DifferenceVerdict:
    never_reached = metric.censored and not (_metric_values(metric, row) and _metric_values(metric, baseline))
    if not metric.censored and not (row.values[metric.name] and baseline.values[metric.name]):
        lacking = row if not row.values[metric.name] else baseline
        return (
            DifferenceVerdict.DIVERGED
            if lacking.diverged == lacking.n > 0
            else DifferenceVerdict.NOT_MEASURED
        )
    return (
        DifferenceVerdict.UNDEFINED
        if never_reached or metric.has_shared_measurement
        else difference_verdict(difference, metric.better, p_adjusted=p)
    )


def compare_divergence(table: Table, baseline: Row) -> dict[str, tuple[RateDifference, float | None]]:
    """By label, how much more often runs of a row diverge than those of the baseline, with the adjusted p."""
    others = [row for row in table.rows if row is not baseline]
    comparisons = [compare_rates(row.divergences, baseline.divergences) for row in others]
    adjusted = holm([comparison.p for comparison in comparisons])
    return {
        row.label: (comparison, p) for row, comparison, p in zip(others, comparisons, adjusted, strict=True)
    }


def letter_display(table: Table, metric: str, confidence: float = CONFIDENCE) -> dict[str, str]:
    """By label, letters of which two rows share one unless they are told apart; best rows first.

    Rows without a mean have none. A pair that cannot be tested is not told apart. Rows with the same mean and
    spread have the same letters, whatever their n: a third row is told apart from all of them or from none.
    """
    entry = METRICS[metric]
    rows = [row for row in table.rows if row.metrics[metric].mean is not None and _metric_values(entry, row)]
    pairs = list(combinations(rows, 2))
    adjusted = holm([comparison.p for comparison in _compare_pairs(entry, pairs, confidence)])
    not_separated = {
        (first, second)
        for (a, b), p in zip(pairs, adjusted, strict=True)
        if not is_significant(p, confidence)
        for first, second in permutations((_mean_and_spread(a, metric), _mean_and_spread(b, metric)))
    }
    different = {
        (a.label, b.label)
        for a, b in pairs
        if (_mean_and_spread(a, metric), _mean_and_spread(b, metric)) not in not_separated
    }
    ordered = sorted(rows, key=lambda row: row.metrics[metric].mean or 0.0, reverse=entry.better != "lower")
    return assign_letters([row.label for row in ordered], different)


def _mean_and_spread(row: Row, metric: str) -> Hashable:
    """The mean and the spread; of a single run, which has no spread, the row itself."""
    summary = row.metrics[metric]
    return row.label if summary.std is None else (summary.mean, summary.std)


def mean_interval_of(row: Row, metric: str, confidence: float = CONFIDENCE) -> Interval | None:
    """Of the mean; None for one run, and where some runs have no value that stands for "never"."""
    entry = METRICS[metric]
    return mean_interval(list(_metric_values(entry, row).values()), confidence, _metric_scale(entry))


def find_row(table: Table, name: str) -> Row | None:
    """The row that is called so: by a label, its experiment, or a value of the keys that make the rows.

    None where the table has none. Raises UsageError where several rows of it are called so.
    """
    rows = [row for row in table.rows if name in (row.label, row.group.key_label)] or [
        row for row in table.rows if name in map(str, row.key.values())
    ]
    if len(rows) > 1:
        labels = ", ".join(repr(row.label) for row in rows)
        raise UsageError(f"several rows are called {name!r}: name one of {labels}")
    return rows[0] if rows else None


def find_baselines(tables: Sequence[Table], name: str) -> list[Row | None]:
    """For each table, the row of that name; raises UsageError, with the nearest name, where none has it."""
    rows = [find_row(table, name) for table in tables]
    if tables and not any(rows):
        labels = dict.fromkeys(row.label for table in tables for row in table.rows)
        raise UsageError(f"--baseline: {unknown_name_message('row', name, labels)}")
    return rows


def _compare_pairs(
    metric: Metric, pairs: Sequence[tuple[Row, Row]], confidence: float
) -> list[MeanDifference]:
    """The differences of a family, all by one test."""
    if all(share_batches([*a.group.runs, *b.group.runs]) for a, b in pairs):
        paired = [_compare_rows(metric, a, b, confidence, paired=True) for a, b in pairs]
        if all(comparison.method != Method.TOO_FEW_SHARED for comparison in paired):
            return paired
    return [_compare_rows(metric, a, b, confidence, paired=False) for a, b in pairs]


def _compare_rows(metric: Metric, a: Row, b: Row, confidence: float, *, paired: bool) -> MeanDifference:
    return compare_means(
        _metric_values(metric, a),
        _metric_values(metric, b),
        paired=paired,
        confidence=confidence,
        scale=_metric_scale(metric),
    )


def _seeds_needed(
    metric: Metric, a: Row, b: Row, confidence: float, difference: MeanDifference
) -> SeedsNeeded | None:
    arms = _metric_values(metric, a), _metric_values(metric, b)
    paired = difference.method in (Method.PAIRED, Method.SIGN)
    return seeds_needed(*arms, confidence=confidence, paired=paired, scale=_metric_scale(metric))


def _metric_values(metric: Metric, row: Row) -> Mapping[str, float]:
    """The numbers of the runs; none where a missing one stands for "never", one where they are no sample."""
    mean = row.metrics[metric.name].mean
    if metric.censored and mean is None:
        return {}
    return {"all": mean} if metric.has_shared_measurement and mean is not None else row.values[metric.name]


def _metric_scale(metric: Metric) -> Scale:
    return "log" if metric.log else "linear"
