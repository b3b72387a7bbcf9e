"""What is known of an expression in one row: a number for each run, or a summary that was kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from initbench.compare.gates import algebra
from initbench.compare.gates.tree import Aggregate, Logarithm, Metric, Node, Quantity, RowName
from initbench.compare.gates.values import value_of
from initbench.compare.sides import RunsSide, Side, SummarySide
from initbench.compare.statistics import Summary, summarise

Sides = Mapping[RowName, Side]


class UnknownError(Exception):
    """A number that is not to be had, with the reason."""

    def __init__(self, why: str, difference: float | None = None, n: tuple[int, ...] = ()) -> None:
        super().__init__(why)
        self.difference, self.n = difference, n


def check_usable(summary: Summary, values: Sequence[float] = (), side: RunsSide | None = None) -> None:
    """Raise UnknownError where a summary tells nothing about the mean of further runs."""
    if not summary.n:
        raise UnknownError(_nothing(side))
    mean = summary.mean
    if mean is None or math.isnan(mean):
        never = sum(map(math.isinf, values))
        raise UnknownError(
            "a value is not a number" if not never else _never(never, len(values)), n=(summary.n,)
        )
    if summary.n == 1:
        raise UnknownError("one run has no interval: train more seeds", mean, (1,))
    if math.isinf(mean) and len(set(values)) > 1:
        raise UnknownError(_never(sum(map(math.isinf, values)), len(values)), n=(summary.n,))


def _never(count: int, n: int) -> str:
    return f"{count} of {n} runs never get there (or are infinite), so that there is no mean"


def _nothing(side: RunsSide | None) -> str:
    if side is None or not side.n:
        return "no run is complete"
    diverged = sum(side.events.values())
    return "no run has it" + (f": {diverged} of {side.n} diverged" if diverged else "")


def values_of(node: Node, side: RunsSide) -> dict[str, float]:
    """The expression for each run that has all it takes."""
    numbers = algebra.column(node, lambda quantity: list(numbers_of(quantity, side).values()), side.n)
    found = zip(side.runs, numbers, strict=True)
    return {unit: number for unit, number in found if number is not None}


def numbers_of(quantity: Quantity, side: RunsSide) -> dict[str, float | None]:
    """A quantity of each run of a row."""
    return side.numbers(quantity, lambda run: value_of(quantity, run, side.target))


def complete_units(node: Node, name: RowName, side: RunsSide) -> list[str]:
    """The units of a row that have all of its quantities."""
    own = [numbers_of(quantity, side) for quantity in node.bare if quantity.row == name]
    return [unit for unit in side.runs if all(numbers[unit] is not None for numbers in own)]


def kept_summary(node: Node, side: SummarySide) -> Summary:
    """The summary of a · x + b, from that of x."""
    line = algebra.affine(node)
    (quantity, *more) = node.bare
    if line is None or more or not isinstance(quantity, Metric):
        raise UnknownError(f"a mean and a spread are all that is known of {side.label} before")
    known = side.metrics.get(quantity.metric, Summary(None, None, 0))
    if known.mean is None or known.n == 0:
        raise UnknownError(f"{quantity.row}{quantity.name} has no mean", n=(known.n,))
    slope, offset = line
    is_log = any(isinstance(node, Logarithm) for node in node.walk())
    mean = math.log(known.mean) if is_log else known.mean
    return Summary(slope * mean + offset, None if known.std is None else abs(slope) * known.std, known.n)


def aggregated(node: Aggregate, sides: Sides) -> float:
    """The mean, least or greatest over the runs of a row that have a value; raises UnknownError for none."""
    (name,) = {quantity.row for quantity in node.inner.quantities}
    side = sides[name]
    if isinstance(side, SummarySide):
        return _aggregated_summary(node, side)
    values = list(values_of(node.inner, side).values())
    if not values:
        raise UnknownError(_nothing(side))
    pick: dict[str, Callable[[Sequence[float]], float]] = {"min": min, "max": max, "mean": _mean}
    return math.nan if any(map(math.isnan, values)) else pick[node.kind](values)


def _mean(values: Sequence[float]) -> float:
    mean = summarise(values).mean
    assert mean is not None
    return mean


def _aggregated_summary(node: Aggregate, side: SummarySide) -> float:
    if node.kind != "mean":
        raise UnknownError(f"no single runs are known before, of which to take the {node.kind}")
    if isinstance(node.inner, Metric) and node.inner.is_rate:
        return side.diverged / side.n if side.n else math.nan
    mean = kept_summary(node.inner, side).mean
    assert mean is not None
    return mean
