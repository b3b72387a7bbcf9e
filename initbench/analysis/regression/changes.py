"""What changed since an earlier state, metric by metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from initbench.analysis.grouping import share_batches
from initbench.analysis.metrics import METRICS, Metric
from initbench.analysis.operands import RunsOperand, Side, side_of, varying
from initbench.analysis.regression.bitwise import BitwiseDiff, bitwise_diff
from initbench.analysis.regression.matching import Matching
from initbench.analysis.regression.reference import Reference
from initbench.analysis.stats.fisher import RateDifference, rate_difference
from initbench.analysis.stats.mean_difference import MeanDifference, difference, summaries_difference
from initbench.analysis.stats.multiple_comparisons import holm
from initbench.analysis.stats.summary import Scale, Summary
from initbench.analysis.stats.verdict import DifferenceVerdict, is_significant, verdict
from initbench.analysis.tables import Row, Table, summary_of

COMPARED = tuple(metric.name for metric in METRICS.values() if metric.form != "seconds")
"""Seconds differ with the machine, whatever the code."""


@dataclass(frozen=True)
class Change:
    """A metric now, less that before; of metrics with geometric means, the ratio."""

    metric: Metric
    before: float | None
    now: float | None
    found: MeanDifference
    p_adjusted: float | None
    verdict: DifferenceVerdict

    @property
    def is_shown(self) -> bool:
        """Whether it is shown to have changed."""
        return self.verdict in (
            DifferenceVerdict.BETTER,
            DifferenceVerdict.WORSE,
            DifferenceVerdict.HIGHER,
            DifferenceVerdict.LOWER,
        )


@dataclass(frozen=True)
class RowChange:
    """A row that is in both states."""

    table: Table
    row: Row
    before: Side
    now: RunsOperand
    is_same_runs: bool
    """Whether run ids are the same: config, data, torch and numerical code are."""
    changes: list[Change]
    divergence: RateDifference
    divergence_p_adjusted: float | None
    confidence: float
    exact: BitwiseDiff | None
    """The runs of the same seeds, number by number; None where the earlier runs are not known one by one."""
    config_changes: list[str] = field(default_factory=list)
    """What has changed in the config of a row that was matched by name; none where the config is the same."""

    @property
    def shown(self) -> list[Change]:
        """The metrics that are shown to have changed."""
        return [change for change in self.changes if change.is_shown]

    @property
    def is_divergence_shown(self) -> bool:
        """Whether runs are shown to diverge more or less often."""
        return is_significant(self.divergence_p_adjusted, self.confidence)

    @property
    def diverged(self) -> tuple[int, int]:
        """Runs that diverged, before and now."""
        return sum(self.before.events.values()), sum(self.now.events.values())

    @property
    def lost(self) -> list[Metric]:
        """The metrics that had a mean before and have none now."""
        return [one.metric for one in self.changes if one.before is not None and one.now is None]

    @property
    def gained(self) -> list[Metric]:
        """The metrics that have a mean now and had none before."""
        return [one.metric for one in self.changes if one.before is None and one.now is not None]


@dataclass(frozen=True)
class Changes:
    """Two states side by side."""

    rows: list[RowChange]
    only_now: list[str]
    only_before: list[str]
    tests: int
    """How many comparisons Holm's correction is made for: all of them, of all rows."""
    confidence: float
    reasons: dict[str, str] = field(default_factory=dict)
    """Why rows of `only_now` have no earlier state."""

    @property
    def is_whole(self) -> bool:
        """Whether there are rows, and each is in both states."""
        return bool(self.rows) and not self.only_now and not self.only_before


def compare_states(
    tables: Sequence[Table], earlier: Reference, metrics: Sequence[str] = COMPARED, confidence: float = 0.95
) -> Changes:
    """Each metric of each row now, less what it was; seeds are pairs where both states have the runs."""
    matching = Matching(tables, earlier)
    matched = [(table, row, matching.side(table, row)) for table in tables for row in table.rows]
    keys = {id(table): varying(table) for table in tables}
    both = [
        (table, row, before, side_of(row, table.target, keys[id(table)]))
        for table, row, before in matched
        if before is not None
    ]
    compared = [METRICS[name] for name in metrics]
    paired = [_paired(now, old) for *_, old, now in both]
    found = [
        [_difference(metric, now, old, confidence, pairs) for metric in compared]
        for (*_, old, now), pairs in zip(both, paired, strict=True)
    ]
    rates = [
        rate_difference(now.events, old.events) for (*_, old, now), pairs in zip(both, paired, strict=True)
    ]
    p_values = [one.p for row in found for one in row] + [one.p for one in rates]
    adjusted = iter(holm(p_values))
    judged = [
        [_change(m, now, old, one, next(adjusted)) for m, one in zip(compared, row, strict=True)]
        for row, (*_, old, now) in zip(found, both, strict=True)
    ]
    rows = [
        RowChange(
            table,
            row,
            old,
            now,
            _same_runs(now, old),
            changed,
            rate,
            next(adjusted),
            confidence,
            bitwise_diff(now, old, compared) if isinstance(old, RunsOperand) else None,
            matching.config_changes(table, row),
        )
        for (table, row, old, now), changed, rate in zip(both, judged, rates, strict=True)
    ]
    tests = sum(p is not None for p in p_values)
    alone = matching.only_now
    return Changes(rows, list(alone), matching.only_before, tests, confidence, alone)


def _paired(now: RunsOperand, before: Side) -> bool:
    if not isinstance(before, RunsOperand):
        return False
    return share_batches([*now.runs.values(), *before.runs.values()])


def _same_runs(now: RunsOperand, before: Side) -> bool:
    if not isinstance(before, RunsOperand):
        return False
    return {run.run_id for run in now.runs.values()} == {run.run_id for run in before.runs.values()}


def _difference(
    metric: Metric, now: RunsOperand, before: Side, confidence: float, paired: bool
) -> MeanDifference:
    scale: Scale = "log" if metric.log else "linear"
    if isinstance(before, RunsOperand):
        arms = now.arm(metric.name), before.arm(metric.name)
        return difference(*arms, paired=paired, confidence=confidence, scale=scale)
    known = summary(metric, now), summary(metric, before)
    return summaries_difference(*known, confidence=confidence, scale=scale)


def summary(metric: Metric, side: Side) -> Summary:
    """Mean, standard deviation and count of a metric on one side."""
    if isinstance(side, RunsOperand):
        return summary_of(metric, list(side.arm(metric.name).values()))
    return side.metrics.get(metric.name, Summary(None, None, 0))


def _change(metric: Metric, now: RunsOperand, before: Side, found: MeanDifference, p: float | None) -> Change:
    means = summary(metric, before).mean, summary(metric, now).mean
    return Change(metric, *means, found, p, verdict(found, metric.better, p_adjusted=p))
