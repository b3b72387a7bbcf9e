"""Comparison of the rows of a table with a baseline, and of all pairs of rows, metric by metric.

Holm's correction is applied to a family: all comparisons of one metric in one table, either of the rows with
the baseline or of all pairs of rows. A family uses a single test: the paired test if the rows of every pair
share seeds and data, otherwise Welch's. With different tests, only one of two rows with the same numbers
might differ significantly from a third row.
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
    """A metric of a row compared with the baseline: row − baseline, or their ratio if means are geometric."""

    difference: MeanDifference
    p_adjusted: float | None
    verdict: DifferenceVerdict
    seeds_needed: SeedsNeeded | None
    """Seeds per row needed to show the observed difference; None if that cannot be estimated."""


def compare_to_baseline(
    table: Table, baseline: Row, metric: str, confidence: float = CONFIDENCE
) -> dict[str, BaselineComparison]:
    """Compare a metric of every other row with the baseline; the result is by row label."""
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
    """Compare the divergence rate of every other row with the baseline.

    Returns:
        By row label, the difference of the rates and its adjusted p-value.
    """
    others = [row for row in table.rows if row is not baseline]
    comparisons = [compare_rates(row.divergences, baseline.divergences) for row in others]
    adjusted = holm([comparison.p for comparison in comparisons])
    return {
        row.label: (comparison, p) for row, comparison, p in zip(others, comparisons, adjusted, strict=True)
    }


def letter_display(table: Table, metric: str, confidence: float = CONFIDENCE) -> dict[str, str]:
    """Return the letters of each row, by label: two rows share a letter unless they differ significantly.

    The best row has "a". Rows without a mean have no entry. A pair that cannot be tested shares a letter.
    Rows with equal mean and spread have the same letters, whatever their n: a third row differs from all of
    them or from none.
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
    """Return the mean and the spread; for a single run, which has no spread, the label of the row."""
    summary = row.metrics[metric]
    return row.label if summary.std is None else (summary.mean, summary.std)


def mean_interval_of(row: Row, metric: str, confidence: float = CONFIDENCE) -> Interval | None:
    """Return the interval of the mean of a metric.

    It is None for fewer than two runs, or if the metric is censored and a run has no value.
    """
    entry = METRICS[metric]
    return mean_interval(list(_metric_values(entry, row).values()), confidence, _metric_scale(entry))


def find_row(table: Table, name: str) -> Row | None:
    """Return the row with this label, experiment, or value of a key that makes the rows, or None.

    Raises:
        UsageError: Several rows match.
    """
    rows = [row for row in table.rows if name in (row.label, row.group.key_label)] or [
        row for row in table.rows if name in map(str, row.key.values())
    ]
    if len(rows) > 1:
        labels = ", ".join(repr(row.label) for row in rows)
        raise UsageError(f"several rows match {name!r}; use one of {labels}")
    return rows[0] if rows else None


def find_baselines(tables: Sequence[Table], name: str) -> list[Row | None]:
    """Return the row of that name in each table, or None for a table without it.

    Raises:
        UsageError: No table has such a row; the message suggests the nearest name.
    """
    rows = [find_row(table, name) for table in tables]
    if tables and not any(rows):
        labels = dict.fromkeys(row.label for table in tables for row in table.rows)
        raise UsageError(f"--baseline: {unknown_name_message('row', name, labels)}")
    return rows


def _compare_pairs(
    metric: Metric, pairs: Sequence[tuple[Row, Row]], confidence: float
) -> list[MeanDifference]:
    """Compare the pairs of a family, all with the same test."""
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
    """Return the values of a metric by unit.

    The result is empty if the metric is censored and a value is missing. If the runs share one measurement,
    they are not a sample, and the result is their mean as a single value.
    """
    mean = row.metrics[metric.name].mean
    if metric.censored and mean is None:
        return {}
    return {"all": mean} if metric.has_shared_measurement and mean is not None else row.values[metric.name]


def _metric_scale(metric: Metric) -> Scale:
    return "log" if metric.log else "linear"
