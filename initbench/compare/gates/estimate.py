"""How much the left side of a comparison exceeds the right one, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from initbench.compare.differences import summaries_difference
from initbench.compare.gates import algebra
from initbench.compare.gates.estimates import Estimate
from initbench.compare.gates.known import (
    Sides,
    UnknownError,
    aggregated,
    check_usable,
    complete_units,
    kept_summary,
    numbers_of,
    values_of,
)
from initbench.compare.gates.rates import rates
from initbench.compare.gates.tree import Binary, Metric, Node, Quantity, RowName
from initbench.compare.groups import saw_the_same
from initbench.compare.intervals import Interval, interval, summary_interval
from initbench.compare.pairing import shared
from initbench.compare.sides import RunsSide, SummarySide
from initbench.compare.statistics import Summary, summarise


def estimate(left: Node, right: Node, sides: Sides, confidence: float) -> Estimate:
    """The estimate of left − right over the runs of the rows in `sides`."""
    for one, other, sign in ((left, right, 1.0), (right, left, -1.0)):
        if isinstance(one, Metric) and one.is_rate:
            return rates(one, other, sides, confidence, sign)
    is_ratio = algebra.has_geometric_mean(left, right)
    try:
        left, right = (algebra.bound(side, lambda node: aggregated(node, sides)) for side in (left, right))
        if is_ratio:
            left, right = algebra.logarithm(left), algebra.logarithm(right)
        return _Expression(Binary("-", left, right), sides, confidence, is_ratio).estimate()
    except UnknownError as unknown:
        return Estimate(unknown.difference, None, None, unknown.n, "", str(unknown), is_ratio=is_ratio)


@dataclass(frozen=True)
class _Expression:
    """An expression whose sign is in question."""

    node: Node
    sides: Sides
    confidence: float
    is_ratio: bool

    def estimate(self) -> Estimate:
        names = list(dict.fromkeys(quantity.row for quantity in self.node.bare))
        if not names:
            number = algebra.constant(self.node)
            if math.isnan(number):
                raise UnknownError("it cannot be computed")
            return self._exact(number, (), "these runs", 0, is_exact=True)
        if len(names) == 1:
            return self._of_one(names[0])
        known = {name: self.sides[name] for name in names}
        runs = {name: side for name, side in known.items() if isinstance(side, RunsSide)}
        units = self._shared(runs) if len(runs) == len(known) else None
        return self._of_pairs(runs, units) if units else self._of_two(names)

    def _of_one(self, name: RowName) -> Estimate:
        side = self.sides[name]
        if isinstance(side, SummarySide):
            summary = kept_summary(self.node, side)
            check_usable(summary)
            found = summary_interval(summary, self.confidence)
            return self._found(summary.mean, found, (summary.n,), "t", 0)
        values = values_of(self.node, side)
        return self._of_values(list(values.values()), "t", side.n - len(values), side)

    def _of_values(
        self, values: Sequence[float], method: str, missing: int, side: RunsSide | None
    ) -> Estimate:
        summary = summarise(values)
        check_usable(summary, values, side)
        if not math.isfinite(values[0]):
            return self._exact(values[0], (len(values),), method, missing)
        found = interval(values, self.confidence)
        return self._found(summary.mean, found, (len(values),), method, missing)

    def _shared(self, runs: Mapping[RowName, RunsSide]) -> list[str] | None:
        """The units of which every row has all values, where seeds are shared and enough of them are."""
        if not saw_the_same(run for side in runs.values() for run in side.runs.values()):
            return None
        first, *others = (
            {unit: unit for unit in complete_units(self.node, name, side)} for name, side in runs.items()
        )
        for other in others:
            pairs = shared(first, other)
            if pairs is None:
                return None
            first = {unit: unit for unit, _ in pairs}
        return list(first)

    def _of_pairs(self, runs: Mapping[RowName, RunsSide], units: Sequence[str]) -> Estimate:
        def read(quantity: Quantity) -> algebra.Column:
            numbers = numbers_of(quantity, runs[quantity.row])
            return [numbers[unit] for unit in units]

        found = algebra.column(self.node, read, len(units))
        values = [number for number in found if number is not None]
        missing = max(side.n for side in runs.values()) - len(units)
        return self._of_values(values, "paired t", missing, None)

    def _of_two(self, names: Sequence[RowName]) -> Estimate:
        """Rows whose runs are independent: the expression has to be a sum of one part for each."""
        parts = algebra.parts(self.node, lambda quantity: str(quantity.row))
        if len(names) > 2 or parts is None:
            raise UnknownError(
                "rows without enough seeds in common are compared two at a time, by their sum or difference"
            )
        summaries, missing = [], 0
        for name in names:
            side, part = self.sides[name], parts[str(name)]
            if isinstance(side, SummarySide):
                summary = kept_summary(part, side)
                check_usable(summary)
            else:
                values = values_of(part, side)
                summary = summarise(list(values.values()))
                check_usable(summary, list(values.values()), side)
                missing += side.n - len(values)
            summaries.append(summary)
        return self._welch(summaries[0], summaries[1], missing)

    def _welch(self, a: Summary, b: Summary, missing: int) -> Estimate:
        assert a.mean is not None and b.mean is not None
        total, n = a.mean + b.mean, (a.n, b.n)
        if math.isinf(total):
            return self._exact(total, n, "Welch t", missing)
        negated = Summary(-b.mean, b.std, b.n)
        found = summaries_difference(a, negated, confidence=self.confidence)
        return self._found(found.difference, found.interval, n, "Welch t", missing)

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
