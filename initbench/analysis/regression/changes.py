"""Changes between an earlier and the current state, metric by metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from initbench.analysis.grouping import share_batches
from initbench.analysis.metrics import METRICS, Metric
from initbench.analysis.operands import Operand, RunsOperand, keys_varying_in_rows, runs_operand
from initbench.analysis.regression.bitwise import BitwiseDiff, bitwise_diff
from initbench.analysis.regression.matching import Matching
from initbench.analysis.regression.reference import Reference
from initbench.analysis.stats.fisher import RateDifference, compare_rates
from initbench.analysis.stats.mean_difference import MeanDifference, compare_means, compare_summaries
from initbench.analysis.stats.multiple_comparisons import holm
from initbench.analysis.stats.summary import Scale, Summary
from initbench.analysis.stats.verdict import DifferenceVerdict, difference_verdict, is_significant
from initbench.analysis.tables import Row, Table, summarise_metric

COMPARED = tuple(metric.name for metric in METRICS.values() if metric.form != "seconds")
"""Names of the metrics that are compared; seconds are not, as they depend on the machine."""


@dataclass(frozen=True)
class Change:
    """The change of a metric: now − before, or now / before for a metric with a geometric mean."""

    metric: Metric
    earlier: float | None
    now: float | None
    difference: MeanDifference
    p_adjusted: float | None
    verdict: DifferenceVerdict

    @property
    def is_detected(self) -> bool:
        """Whether the change is significant."""
        return self.verdict in (
            DifferenceVerdict.BETTER,
            DifferenceVerdict.WORSE,
            DifferenceVerdict.HIGHER,
            DifferenceVerdict.LOWER,
        )


@dataclass(frozen=True)
class RowChange:
    """The changes of a row that is in both states."""

    table: Table
    row: Row
    earlier: Operand
    now: RunsOperand
    is_same_runs: bool
    """Whether the run ids are equal, i.e. config, data, torch and numerical code are."""
    changes: list[Change]
    divergence: RateDifference
    divergence_p_adjusted: float | None
    confidence: float
    bitwise: BitwiseDiff | None
    """Bitwise comparison of the runs of the same seeds; None if the reference has no single runs."""
    config_changes: list[str] = field(default_factory=list)
    """Changed config keys of a row that was matched by name; empty if the config is the same."""

    @property
    def detected_changes(self) -> list[Change]:
        """Metrics that have changed significantly."""
        return [change for change in self.changes if change.is_detected]

    @property
    def is_divergence_change_detected(self) -> bool:
        """Whether the divergence rate has changed significantly."""
        return is_significant(self.divergence_p_adjusted, self.confidence)

    @property
    def diverged_counts(self) -> tuple[int, int]:
        """Number of runs that diverged, before and now."""
        return sum(self.earlier.divergences.values()), sum(self.now.divergences.values())

    @property
    def lost_metrics(self) -> list[Metric]:
        """Metrics that had a mean before and have none now."""
        return [change.metric for change in self.changes if change.earlier is not None and change.now is None]

    @property
    def gained_metrics(self) -> list[Metric]:
        """Metrics that have a mean now and had none before."""
        return [change.metric for change in self.changes if change.earlier is None and change.now is not None]


@dataclass(frozen=True)
class Changes:
    """The changes of all rows between two states."""

    rows: list[RowChange]
    only_now: list[str]
    only_before: list[str]
    tests: int
    """Number of tests that Holm's correction is applied to: those of all metrics and rows together."""
    confidence: float
    reasons: dict[str, str] = field(default_factory=dict)
    """By row of `only_now`, the reason why it has no earlier state."""

    @property
    def is_whole(self) -> bool:
        """Whether there is at least one row and every row is in both states."""
        return bool(self.rows) and not self.only_now and not self.only_before


def compare_states(
    tables: Sequence[Table], reference: Reference, metrics: Sequence[str] = COMPARED, confidence: float = 0.95
) -> Changes:
    """Compare each metric of each row with its earlier state.

    Seeds are paired if the reference has single runs and they saw the same batches.
    """
    matching = Matching(tables, reference)
    matched = [(table, row, matching.earlier_operand(table, row)) for table in tables for row in table.rows]
    keys = {id(table): keys_varying_in_rows(table) for table in tables}
    matched_rows = [
        (table, row, operand, runs_operand(row, table.target, keys[id(table)]))
        for table, row, operand in matched
        if operand is not None
    ]
    compared = [METRICS[name] for name in metrics]
    pairings = [_share_batches(now, old) for *_, old, now in matched_rows]
    differences = [
        [_compare_metric(metric, now, old, confidence, pairs) for metric in compared]
        for (*_, old, now), pairs in zip(matched_rows, pairings, strict=True)
    ]
    rates = [
        compare_rates(now.divergences, old.divergences)
        for (*_, old, now), pairs in zip(matched_rows, pairings, strict=True)
    ]
    p_values = [comparison.p for row in differences for comparison in row] + [
        comparison.p for comparison in rates
    ]
    adjusted = iter(holm(p_values))
    changes_by_row = [
        [
            _build_change(m, now, old, comparison, next(adjusted))
            for m, comparison in zip(compared, row, strict=True)
        ]
        for row, (*_, old, now) in zip(differences, matched_rows, strict=True)
    ]
    rows = [
        RowChange(
            table,
            row,
            old,
            now,
            _has_same_run_ids(now, old),
            changed,
            rate,
            next(adjusted),
            confidence,
            bitwise_diff(now, old, compared) if isinstance(old, RunsOperand) else None,
            matching.config_changes(table, row),
        )
        for (table, row, old, now), changed, rate in zip(matched_rows, changes_by_row, rates, strict=True)
    ]
    tests = sum(p is not None for p in p_values)
    unmatched = matching.only_now
    return Changes(rows, list(unmatched), matching.only_before, tests, confidence, unmatched)


def _share_batches(now: RunsOperand, earlier: Operand) -> bool:
    if not isinstance(earlier, RunsOperand):
        return False
    return share_batches([*now.runs.values(), *earlier.runs.values()])


def _has_same_run_ids(now: RunsOperand, earlier: Operand) -> bool:
    if not isinstance(earlier, RunsOperand):
        return False
    return {run.run_id for run in now.runs.values()} == {run.run_id for run in earlier.runs.values()}


def _compare_metric(
    metric: Metric, now: RunsOperand, earlier: Operand, confidence: float, paired: bool
) -> MeanDifference:
    scale: Scale = "log" if metric.log else "linear"
    if isinstance(earlier, RunsOperand):
        arms = now.metric_values(metric.name), earlier.metric_values(metric.name)
        return compare_means(*arms, paired=paired, confidence=confidence, scale=scale)
    summaries = metric_summary(metric, now), metric_summary(metric, earlier)
    return compare_summaries(*summaries, confidence=confidence, scale=scale)


def metric_summary(metric: Metric, operand: Operand) -> Summary:
    """Return the mean, the standard deviation and the count of a metric of an operand."""
    if isinstance(operand, RunsOperand):
        return summarise_metric(metric, list(operand.metric_values(metric.name).values()))
    return operand.metrics.get(metric.name, Summary(None, None, 0))


def _build_change(
    metric: Metric, now: RunsOperand, earlier: Operand, difference: MeanDifference, p: float | None
) -> Change:
    means = metric_summary(metric, earlier).mean, metric_summary(metric, now).mean
    return Change(metric, *means, difference, p, difference_verdict(difference, metric.better, p_adjusted=p))
