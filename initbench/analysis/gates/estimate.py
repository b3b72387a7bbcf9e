"""What is known of a difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from initbench.analysis.gates import linear_form
from initbench.analysis.gates.expression import Binary, GateNode, MetricValue, Quantity, RowName
from initbench.analysis.gates.run_values import (
    NoEstimateError,
    Sides,
    aggregate_value,
    complete_units,
    evaluate_per_run,
    numbers_of,
    require_estimable,
    summary_of_linear,
)
from initbench.analysis.grouping import share_batches
from initbench.analysis.operands import RunsOperand, Side, SummaryOperand
from initbench.analysis.stats.confidence_intervals import Interval, interval, rate_interval, summary_interval
from initbench.analysis.stats.fisher import rate_difference
from initbench.analysis.stats.mean_difference import ROUNDING
from initbench.analysis.stats.paired_samples import shared
from initbench.analysis.stats.summary import Summary, summarise
from initbench.analysis.stats.sums import sum_of_means
from initbench.analysis.stats.verdict import is_significant


@dataclass(frozen=True)
class Estimate:
    """left − right, or ln(left / right) where means are geometric."""

    difference: float | None
    low: float | None
    high: float | None
    """The interval; None where there is none."""
    n: tuple[int, ...]
    """Runs that were used, of each row; of pairs, their number."""
    method: str
    problem: str = ""
    """Why there is no interval."""
    missing: int = 0
    """Complete runs that have no value."""
    is_ratio: bool = False
    is_exact: bool = False
    """Whether it is a number of these very runs, and no estimate."""


def rates(rate: MetricValue, other: GateNode, sides: Sides, confidence: float, sign: float) -> Estimate:
    """sign · (rate − other), by Clopper and Pearson's interval of the rate, or an exact test of two rates."""
    side = sides[rate.row]
    if isinstance(other, MetricValue) and other.is_rate:
        return _two_rates(side, sides[other.row], confidence)
    try:
        limit = linear_form.constant(
            linear_form.substitute_aggregates(other, lambda node: aggregate_value(node, sides))
        )
    except NoEstimateError as unknown:
        return Estimate(None, None, None, (), "", str(unknown))
    found = rate_interval(sum(side.events.values()), side.n, confidence)
    if found is None:
        return Estimate(None, None, None, (0,), "", "no run is complete")
    seen = sum(side.events.values()) / side.n
    low, high = sorted((sign * (found.low - limit), sign * (found.high - limit)))
    return Estimate(sign * (seen - limit), low, high, (side.n,), "Clopper–Pearson")


def _two_rates(a: Side, b: Side, confidence: float) -> Estimate:
    """The interval is all of one sign where an exact test tells the rates apart, and of both where not."""
    found = rate_difference(a.events, b.events)
    n = (found.n_a, found.n_b)
    if found.p is None or found.difference is None:
        return Estimate(None, None, None, n, "", "no run is complete")
    method = f"{found.method}, p = {found.p:.2g}"
    least = math.nextafter(0.0, 1.0)
    low, high = (-1.0, 1.0) if found.p >= 1.0 - confidence else (least, 1.0)
    if found.difference < 0.0:
        low, high = -high, -low
    return Estimate(found.difference, low, high, n, method)


_TOO_FEW_SHARED = "rows without enough seeds in common are compared by their sum or difference alone"


def estimate(
    left: GateNode, right: GateNode, sides: Sides, confidence: float, *, by_ratio: bool = False
) -> Estimate:
    """The estimate of left − right over the runs of the rows in `sides`.

    `by_ratio`: of ln(left / right), where both are products of what is positive by nature
    (`algebra.are_scales`) and no value is 0. Such statistics scatter by factors, and it is the mean of their
    logarithms that Student's interval covers.
    """
    for one, other, sign in ((left, right, 1.0), (right, left, -1.0)):
        if isinstance(one, MetricValue) and one.is_rate:
            return rates(one, other, sides, confidence, sign)
    is_ratio = linear_form.has_geometric_mean(left, right)
    try:
        left, right = (
            linear_form.substitute_aggregates(side, lambda node: aggregate_value(node, sides))
            for side in (left, right)
        )
        if not is_ratio and by_ratio and linear_form.are_scales(left, right):
            with suppress(NoEstimateError):  # a zero has no logarithm: then as any other number
                return _Expression(linear_form.log_ratio(left, right), sides, confidence, True).estimate()
        node = linear_form.log_ratio(left, right) if is_ratio else Binary("-", left, right)
        return _Expression(node, sides, confidence, is_ratio).estimate()
    except NoEstimateError as unknown:
        return Estimate(unknown.difference, None, None, unknown.n, "", str(unknown), is_ratio=is_ratio)


@dataclass(frozen=True)
class _Expression:
    """An expression whose sign is in question."""

    node: GateNode
    sides: Sides
    confidence: float
    is_ratio: bool

    def estimate(self) -> Estimate:
        """By the rows that the node names: none, one, two that share seeds, or others."""
        names = list(dict.fromkeys(quantity.row for quantity in self.node.bare))
        if not names:
            number = linear_form.constant(self.node)
            if math.isnan(number):
                raise NoEstimateError("it cannot be computed")
            return self._exact(number, (), "these runs", 0, is_exact=True)
        if len(names) == 1:
            return self._of_one(names[0])
        known = {name: self.sides[name] for name in names}
        runs = {name: side for name, side in known.items() if isinstance(side, RunsOperand)}
        units = self._shared(runs) if len(runs) == len(known) else None
        return self._of_pairs(runs, units) if units else self._of_blocks(names)

    def _of_one(self, name: RowName) -> Estimate:
        side = self.sides[name]
        if isinstance(side, SummaryOperand):
            summary = summary_of_linear(self.node, side)
            require_estimable(summary)
            found = summary_interval(summary, self.confidence)
            return self._found(summary.mean, found, (summary.n,), "t", 0)
        values = evaluate_per_run(self.node, side)
        return self._of_values(list(values.values()), "t", side.n - len(values), side)

    def _of_values(
        self, values: Sequence[float], method: str, missing: int, side: RunsOperand | None
    ) -> Estimate:
        summary = summarise(values)
        require_estimable(summary, values, side)
        if not math.isfinite(values[0]):
            return self._exact(values[0], (len(values),), method, missing)
        found = interval(values, self.confidence)
        return self._found(summary.mean, found, (len(values),), method, missing)

    def _shared(self, runs: Mapping[RowName, RunsOperand], part: GateNode | None = None) -> list[str] | None:
        """The units of which every row has all values, where seeds are shared and enough of them are."""
        node = part or self.node
        if not share_batches(run for side in runs.values() for run in side.runs.values()):
            return None
        first, *others = (
            {unit: unit for unit in complete_units(node, name, side)} for name, side in runs.items()
        )
        for other in others:
            pairs = shared(first, other)
            if pairs is None:
                return None
            first = {unit: unit for unit, _ in pairs}
        return list(first)

    @staticmethod
    def _paired_values(
        node: GateNode, runs: Mapping[RowName, RunsOperand], units: Sequence[str]
    ) -> list[float]:
        """The expression for each unit that has all it takes."""

        def read(quantity: Quantity) -> linear_form.Column:
            numbers = numbers_of(quantity, runs[quantity.row])
            return [numbers[unit] for unit in units]

        found = linear_form.evaluate_column(node, read, len(units))
        return [number for number in found if number is not None]

    def _of_pairs(self, runs: Mapping[RowName, RunsOperand], units: Sequence[str]) -> Estimate:
        values = self._paired_values(self.node, runs, units)
        missing = max(side.n for side in runs.values()) - len(units)
        if not self._are_the_same(runs, units):
            self._check_spread(values)
        return self._of_values(values, "paired t", missing, None)

    def _are_the_same(self, runs: Mapping[RowName, RunsOperand], units: Sequence[str]) -> bool:
        """Whether the rows hold the very same numbers, seed by seed, as one training under two names does."""
        columns: dict[str, linear_form.Column] = {}
        for quantity in self.node.bare:
            numbers = numbers_of(quantity, runs[quantity.row])
            column = [numbers[unit] for unit in units]
            if columns.setdefault(quantity.name, column) != column:
                return False
        return True

    def _check_spread(self, differences: Sequence[float]) -> None:
        """Raise UnknownError where all are the same and too few: a few coarse numbers are so by chance."""
        n = len(differences)
        summary = summarise(differences)
        p = math.ldexp(1.0, 1 - n)
        if summary.std is None or not summary.mean or is_significant(p, self.confidence):
            return
        if summary.std <= ROUNDING * abs(summary.mean):
            why = (
                f"the difference is the same in all {n} pairs, p = {p:.2g} by the sign test: train more seeds"
            )
            raise NoEstimateError(why, summary.mean, (n,))

    def _of_blocks(self, names: Sequence[RowName]) -> Estimate:
        """Rows in blocks that are independent: the expression has to be a sum of one part for each block.

        Rows on the same batches are a block, in which runs of one seed are partners.
        """
        blocks = self._blocks(names)
        parts = linear_form.split_by_row(self.node, lambda quantity: blocks[quantity.row])
        if parts is None:
            raise NoEstimateError(_TOO_FEW_SHARED)
        summaries, missing = [], 0
        for block, part in parts.items():
            try:
                summary, lacking = self._summary(part, [name for name in names if blocks[name] == block])
            except NoEstimateError as unknown:  # which knows the mean of this part alone
                raise NoEstimateError(str(unknown), n=unknown.n) from None
            summaries.append(summary)
            missing += lacking
        n, means = tuple(part.n for part in summaries), [part.mean or 0.0 for part in summaries]
        self._check_apart(summaries, sum(means))
        if math.isinf(sum(means)):
            return self._exact(sum(means), n, "Welch t", missing)
        total, found = sum_of_means(summaries, self.confidence)
        return self._found(total, found, n, "Welch t", missing)

    def _check_apart(self, parts: Sequence[Summary], difference: float) -> None:
        """Raise UnknownError where no part has a spread and runs are too few for a permutation test."""
        n = [part.n for part in parts]
        p = 2.0 / math.comb(sum(n), n[0])
        if any(part.std for part in parts) or not difference or is_significant(p, self.confidence):
            return
        why = f"each row gave the same in all runs, p = {p:.2g} by a permutation test: train more seeds"
        raise NoEstimateError(why, difference, tuple(n))

    def _blocks(self, names: Sequence[RowName]) -> dict[RowName, str]:
        """A label of the block of each row."""
        blocks: dict[RowName, str] = {}
        for name in names:
            side = self.sides[name]
            seen = {run.batches for run in side.runs.values()} if isinstance(side, RunsOperand) else set()
            blocks[name] = seen.pop() if len(names) > 2 and len(seen) == 1 else str(name)
        return blocks

    def _summary(self, part: GateNode, names: Sequence[RowName]) -> tuple[Summary, int]:
        """Of a part of the expression over one block, and how many of its runs have no value."""
        side = self.sides[names[0]]
        if isinstance(side, SummaryOperand):
            summary = summary_of_linear(part, side)
            require_estimable(summary)
            return summary, 0
        if len(names) == 1:
            values = list(evaluate_per_run(part, side).values())
        else:
            runs = {name: one for name in names if isinstance(one := self.sides[name], RunsOperand)}
            units = self._shared(runs, part)
            if units is None:
                raise NoEstimateError(_TOO_FEW_SHARED)
            values = self._paired_values(part, runs, units)
        require_estimable(summarise(values), values, side)
        return summarise(values), side.n - len(values)

    def _found(
        self, difference: float | None, found: Interval | None, n: tuple[int, ...], method: str, missing: int
    ) -> Estimate:
        if found is None:
            problem = "the numbers are too large to compute with"
            return Estimate(difference, None, None, n, method, problem, missing, self.is_ratio)
        return Estimate(difference, found.low, found.high, n, method, "", missing, self.is_ratio)

    def _exact(
        self, number: float, n: tuple[int, ...], method: str, missing: int, *, is_exact: bool = False
    ) -> Estimate:
        return Estimate(number, number, number, n, method, "", missing, self.is_ratio, is_exact)
