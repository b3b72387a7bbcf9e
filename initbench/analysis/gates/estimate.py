"""Estimates of the difference of the two sides of a comparison, with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from initbench.analysis.gates import linear_form
from initbench.analysis.gates.expression import Binary, GateNode, MetricValue, Quantity, RowName
from initbench.analysis.gates.run_values import (
    NoEstimateError,
    Operands,
    aggregate_value,
    complete_units,
    evaluate_per_run,
    quantity_values,
    require_estimable,
    summary_of_linear,
)
from initbench.analysis.grouping import share_batches
from initbench.analysis.operands import Operand, RunsOperand, SummaryOperand
from initbench.analysis.stats.confidence_intervals import (
    Interval,
    mean_interval,
    rate_interval,
    summary_interval,
)
from initbench.analysis.stats.confidence_sequences import mean_sequence, min_values, rate_sequence
from initbench.analysis.stats.fisher import compare_rates
from initbench.analysis.stats.mean_difference import ROUNDING, sum_of_means
from initbench.analysis.stats.paired_samples import shared_pairs
from initbench.analysis.stats.summary import Summary, summarise
from initbench.analysis.stats.verdict import is_significant


@dataclass(frozen=True)
class Estimate:
    """An estimate of left − right, or of ln(left / right) if means are geometric."""

    difference: float | None
    low: float | None
    high: float | None
    """Upper end of the interval, as `low` is its lower end; None if there is no interval."""
    n: tuple[int, ...]
    """Number of runs used from each row; for pairs, the number of pairs."""
    method: str
    problem: str = ""
    """Reason why there is no interval; empty if there is one."""
    missing: int = 0
    """Number of complete runs without a value."""
    is_ratio: bool = False
    is_exact: bool = False
    """Whether it is an exact number of the stored runs, such as their maximum, and not an estimate."""


def estimate_rate_difference(
    rate: MetricValue,
    other: GateNode,
    operands: Operands,
    confidence: float,
    sign: float,
    *,
    always_valid: bool = False,
) -> Estimate:
    """Estimate sign · (rate − other).

    The interval is Clopper and Pearson's interval of the rate, or follows from an exact test if `other` is a
    rate, too. With `always_valid` it is a confidence sequence.
    """
    operand = operands[rate.row]
    if isinstance(other, MetricValue) and other.is_rate:
        compare = _track_two_rates if always_valid else _compare_two_rates
        return compare(operand, operands[other.row], confidence)
    try:
        limit = linear_form.constant_value(
            linear_form.substitute_aggregates(other, lambda node: aggregate_value(node, operands))
        )
    except NoEstimateError as unknown:
        return Estimate(None, None, None, (), "", str(unknown))
    make_interval = rate_sequence if always_valid else rate_interval
    interval = make_interval(sum(operand.divergences.values()), operand.n, confidence)
    if interval is None:
        return Estimate(None, None, None, (0,), "", _NO_RUN)
    observed_rate = sum(operand.divergences.values()) / operand.n
    low, high = sorted((sign * (interval.low - limit), sign * (interval.high - limit)))
    method = _RATE_SEQUENCE if always_valid else "Clopper–Pearson"
    return Estimate(sign * (observed_rate - limit), low, high, (operand.n,), method)


def _track_two_rates(a: Operand, b: Operand, confidence: float) -> Estimate:
    """Estimate the difference of two rates from a confidence sequence of each, with half of the error."""
    events = [sum(operand.divergences.values()) for operand in (a, b)]
    of_a, of_b = (
        rate_sequence(count, operand.n, (1.0 + confidence) / 2.0)
        for count, operand in zip(events, (a, b), strict=True)
    )
    if of_a is None or of_b is None:
        return Estimate(None, None, None, (a.n, b.n), "", _NO_RUN)
    difference = events[0] / a.n - events[1] / b.n
    return Estimate(difference, of_a.low - of_b.high, of_a.high - of_b.low, (a.n, b.n), _RATE_SEQUENCE)


def _compare_two_rates(a: Operand, b: Operand, confidence: float) -> Estimate:
    """Estimate the difference of two rates; its interval says only whether the rates differ significantly.

    The exact test yields no interval. If the rates differ, the interval is the whole range of one sign,
    otherwise it is from −1 to 1.
    """
    comparison = compare_rates(a.divergences, b.divergences)
    n = (comparison.n_a, comparison.n_b)
    if comparison.p is None or comparison.difference is None:
        return Estimate(None, None, None, n, "", _NO_RUN)
    method = f"{comparison.method}, p = {comparison.p:.2g}"
    least = math.nextafter(0.0, 1.0)
    low, high = (-1.0, 1.0) if comparison.p >= 1.0 - confidence else (least, 1.0)
    if comparison.difference < 0.0:
        low, high = -high, -low
    return Estimate(comparison.difference, low, high, n, method)


_TOO_FEW_SHARED = "rows that share too few seeds can only be compared by their sum or difference"
_NO_RUN = "no run is complete"
_RATE_SEQUENCE = "always-valid, beta-binomial"


def estimate_difference(
    left: GateNode,
    right: GateNode,
    operands: Operands,
    confidence: float,
    *,
    by_ratio: bool = False,
    always_valid: bool = False,
) -> Estimate:
    """Estimate left − right from the runs of the rows in `operands`.

    Args:
        left: One side of the comparison.
        right: The other side.
        operands: The rows that the sides refer to.
        confidence: Between 0 and 1.
        by_ratio: Whether to estimate ln(left / right) if both sides are products of positive statistics
            (`linear_form.are_scales`) and no value is 0. Such statistics vary by factors, so Student's
            interval is valid for the mean of their logarithms.
        always_valid: Whether the interval is that of a confidence sequence, which holds however the number of
            runs was chosen.
    """
    for rate, other, sign in ((left, right, 1.0), (right, left, -1.0)):
        if isinstance(rate, MetricValue) and rate.is_rate:
            return estimate_rate_difference(
                rate, other, operands, confidence, sign, always_valid=always_valid
            )
    is_ratio = linear_form.has_geometric_mean(left, right)
    try:
        left, right = (
            linear_form.substitute_aggregates(side, lambda node: aggregate_value(node, operands))
            for side in (left, right)
        )
        if not is_ratio and by_ratio and linear_form.are_scales(left, right):
            with suppress(NoEstimateError):  # a value is 0 and has no logarithm: use the difference instead
                node = linear_form.log_ratio(left, right)
                return _Expression(node, operands, confidence, True, always_valid).estimate()
        node = linear_form.log_ratio(left, right) if is_ratio else Binary("-", left, right)
        return _Expression(node, operands, confidence, is_ratio, always_valid).estimate()
    except NoEstimateError as unknown:
        return Estimate(unknown.difference, None, None, unknown.n, "", str(unknown), is_ratio=is_ratio)


@dataclass(frozen=True)
class _Expression:
    """A bound expression (see `linear_form`) of which the sign is to be estimated."""

    node: GateNode
    sides: Operands
    confidence: float
    is_ratio: bool
    always_valid: bool

    def estimate(self) -> Estimate:
        """Estimate the expression by the method that fits its rows: none, one, paired or independent rows."""
        names = list(dict.fromkeys(quantity.row for quantity in self.node.per_run_quantities))
        if not names:
            number = linear_form.constant_value(self.node)
            if math.isnan(number):
                raise NoEstimateError("the expression cannot be computed (such as a division by 0)")
            return self._make_exact_estimate(number, (), "these runs", 0, is_exact=True)
        if self.always_valid:
            return self._estimate_sequence(names)
        if len(names) == 1:
            return self._estimate_one_row(names[0])
        operands = {name: self.sides[name] for name in names}
        runs = {name: operand for name, operand in operands.items() if isinstance(operand, RunsOperand)}
        units = self._shared_units(runs) if len(runs) == len(operands) else None
        return self._estimate_from_pairs(runs, units) if units else self._estimate_from_blocks(names)

    def _estimate_one_row(self, name: RowName) -> Estimate:
        operand = self.sides[name]
        if isinstance(operand, SummaryOperand):
            summary = summary_of_linear(self.node, operand)
            require_estimable(summary)
            interval = summary_interval(summary, self.confidence)
            return self._make_estimate(summary.mean, interval, (summary.n,), "t", 0)
        values = evaluate_per_run(self.node, operand)
        return self._estimate_from_values(list(values.values()), "t", operand.n - len(values), operand)

    def _estimate_sequence(self, names: Sequence[RowName]) -> Estimate:
        """Estimate the expression by a confidence sequence of its values, one per seed.

        Rows are always paired by seed. If they do not share their batches, the values are still independent
        draws of one distribution (Scheffé 1943, On solutions of the Behrens-Fisher problem).
        """
        runs = {name: operand for name in names if isinstance(operand := self.sides[name], RunsOperand)}
        assert len(runs) == len(names), "a reference document has no single runs"
        by_row = {name: complete_units(self.node, name, operand) for name, operand in runs.items()}
        scarcest = min(by_row, key=lambda name: len(by_row[name]))
        units = [unit for unit in by_row[scarcest] if all(unit in others for others in by_row.values())]
        values = self._paired_values(self.node, runs, units)
        missing = max(operand.n for operand in runs.values()) - len(units)
        summary, n = summarise(values), len(values)
        require_estimable(summary, values, runs[scarcest])
        if n < (needed := min_values(self.confidence)):
            raise NoEstimateError(f"an always-valid interval needs {needed} seeds", summary.mean, (n,))
        method = "always-valid t" if len(names) == 1 else "always-valid t, pairs"
        estimate = self._estimate_from_values(values, method, missing, None)
        p = math.ldexp(1.0, 1 - n)
        if estimate.low == estimate.high and not is_significant(p, self.confidence):
            why = f"the value is the same for all {n} seeds, p = {p:.2g} by the sign test"
            raise NoEstimateError(why, summary.mean, (n,))
        return estimate

    def _estimate_from_values(
        self, values: Sequence[float], method: str, missing: int, operand: RunsOperand | None
    ) -> Estimate:
        summary = summarise(values)
        require_estimable(summary, values, operand)
        if not math.isfinite(values[0]):
            return self._make_exact_estimate(values[0], (len(values),), method, missing)
        make_interval = mean_sequence if self.always_valid else mean_interval
        interval = make_interval(values, self.confidence)
        return self._make_estimate(summary.mean, interval, (len(values),), method, missing)

    def _shared_units(
        self, runs: Mapping[RowName, RunsOperand], part: GateNode | None = None
    ) -> list[str] | None:
        """Return the units for which every row has all values; None if too few seeds are shared."""
        node = part or self.node
        if not share_batches(run for operand in runs.values() for run in operand.runs.values()):
            return None
        first, *others = (
            {unit: unit for unit in complete_units(node, name, operand)} for name, operand in runs.items()
        )
        for other in others:
            pairs = shared_pairs(first, other)
            if pairs is None:
                return None
            first = {unit: unit for unit, _ in pairs}
        return list(first)

    @staticmethod
    def _paired_values(
        node: GateNode, runs: Mapping[RowName, RunsOperand], units: Sequence[str]
    ) -> list[float]:
        """Return the value of the expression for each unit that has all of its quantities."""

        def read(quantity: Quantity) -> linear_form.Column:
            numbers = quantity_values(quantity, runs[quantity.row])
            return [numbers[unit] for unit in units]

        values = linear_form.evaluate_column(node, read, len(units))
        return [number for number in values if number is not None]

    def _estimate_from_pairs(self, runs: Mapping[RowName, RunsOperand], units: Sequence[str]) -> Estimate:
        values = self._paired_values(self.node, runs, units)
        missing = max(operand.n for operand in runs.values()) - len(units)
        if not self._has_identical_columns(runs, units):
            self._check_spread(values)
        return self._estimate_from_values(values, "paired t", missing, None)

    def _has_identical_columns(self, runs: Mapping[RowName, RunsOperand], units: Sequence[str]) -> bool:
        """Return whether all rows have identical values, seed by seed.

        That is the case if one training is stored under two names.
        """
        columns: dict[str, linear_form.Column] = {}
        for quantity in self.node.per_run_quantities:
            numbers = quantity_values(quantity, runs[quantity.row])
            column = [numbers[unit] for unit in units]
            if columns.setdefault(quantity.name, column) != column:
                return False
        return True

    def _check_spread(self, differences: Sequence[float]) -> None:
        """Raise NoEstimateError if all differences are equal and too few for a sign test.

        A few coarse numbers (counts, accuracies) may be equal by chance.
        """
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

    def _estimate_from_blocks(self, names: Sequence[RowName]) -> Estimate:
        """Estimate the expression as a sum of one part for each block of rows; blocks are independent.

        Rows trained on the same batches are a block, in which runs of the same seed are paired.

        Raises:
            NoEstimateError: The expression is not such a sum, or a part cannot be estimated.
        """
        blocks = self._batch_blocks(names)
        parts = linear_form.split_by_row(self.node, lambda quantity: blocks[quantity.row])
        if parts is None:
            raise NoEstimateError(_TOO_FEW_SHARED)
        summaries, missing = [], 0
        for block, part in parts.items():
            try:
                summary, missing_in_block = self._summarise_block(
                    part, [name for name in names if blocks[name] == block]
                )
            except NoEstimateError as unknown:  # its `difference` is only the mean of this part
                raise NoEstimateError(str(unknown), n=unknown.n) from None
            summaries.append(summary)
            missing += missing_in_block
        n, means = tuple(part.n for part in summaries), [part.mean or 0.0 for part in summaries]
        self._check_separation(summaries, sum(means))
        if math.isinf(sum(means)):
            return self._make_exact_estimate(sum(means), n, "Welch t", missing)
        total, interval = sum_of_means(summaries, self.confidence)
        return self._make_estimate(total, interval, n, "Welch t", missing)

    def _check_separation(self, parts: Sequence[Summary], difference: float) -> None:
        """Raise NoEstimateError if no part has a spread and there are too few runs for a permutation test."""
        n = [part.n for part in parts]
        p = 2.0 / math.comb(sum(n), n[0])
        if any(part.std for part in parts) or not difference or is_significant(p, self.confidence):
            return
        why = f"all runs of a row have the same value, p = {p:.2g} by a permutation test: train more seeds"
        raise NoEstimateError(why, difference, tuple(n))

    def _batch_blocks(self, names: Sequence[RowName]) -> dict[RowName, str]:
        """Return the block of each row: its batches, or the row itself if at most two rows are compared."""
        blocks: dict[RowName, str] = {}
        for name in names:
            operand = self.sides[name]
            batches = (
                {run.batches for run in operand.runs.values()} if isinstance(operand, RunsOperand) else set()
            )
            blocks[name] = batches.pop() if len(names) > 2 and len(batches) == 1 else str(name)
        return blocks

    def _summarise_block(self, part: GateNode, names: Sequence[RowName]) -> tuple[Summary, int]:
        """Return the summary of a part of the expression over one block, and its number of missing values."""
        first_operand = self.sides[names[0]]
        if isinstance(first_operand, SummaryOperand):
            summary = summary_of_linear(part, first_operand)
            require_estimable(summary)
            return summary, 0
        if len(names) == 1:
            values = list(evaluate_per_run(part, first_operand).values())
        else:
            runs = {name: operand for name in names if isinstance(operand := self.sides[name], RunsOperand)}
            units = self._shared_units(runs, part)
            if units is None:
                raise NoEstimateError(_TOO_FEW_SHARED)
            values = self._paired_values(part, runs, units)
        require_estimable(summarise(values), values, first_operand)
        return summarise(values), first_operand.n - len(values)

    def _make_estimate(
        self,
        difference: float | None,
        interval: Interval | None,
        n: tuple[int, ...],
        method: str,
        missing: int,
    ) -> Estimate:
        if interval is None:
            problem = "the numbers are too large to compute with"
            return Estimate(difference, None, None, n, method, problem, missing, self.is_ratio)
        return Estimate(difference, interval.low, interval.high, n, method, "", missing, self.is_ratio)

    def _make_exact_estimate(
        self, number: float, n: tuple[int, ...], method: str, missing: int, *, is_exact: bool = False
    ) -> Estimate:
        return Estimate(number, number, number, n, method, "", missing, self.is_ratio, is_exact)
