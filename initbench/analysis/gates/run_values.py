"""The number of one run that a gate asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from initbench.analysis.gates import linear_form
from initbench.analysis.gates.expression import (
    Aggregate,
    GateNode,
    LayerAggregate,
    LayerStatistic,
    Logarithm,
    MetricValue,
    OfLayers,
    Quantity,
    RowName,
    StepsTo,
)
from initbench.analysis.metrics import METRICS, steps_to
from initbench.analysis.operands import RunsOperand, Side, SummaryOperand
from initbench.analysis.run_summary import TRAIN, RunSummary
from initbench.analysis.stats.summary import Summary, summarise


def value_of(quantity: Quantity, run: RunSummary, target: float | None) -> float | None:
    """The number of a complete run, None where it has none; infinite where a target was not reached."""
    if isinstance(quantity, StepsTo):
        found = steps_to(run, quantity.accuracy)
        return math.inf if found is None else found
    if isinstance(quantity, LayerStatistic):
        return _of_layer(quantity, run)
    if isinstance(quantity, LayerAggregate):
        # At TRAIN nothing moves below the first: its 0 is no measurement.
        layers = run.hidden(quantity.moment)[quantity.moment == TRAIN :]
        values = [layer.get(quantity.statistic) for layer in layers]
        return log_slope(values) if quantity.kind == "slope" else _extreme(quantity.kind, values)
    assert isinstance(quantity, MetricValue)
    if quantity.is_rate:
        return float(not run.is_finished)
    entry = METRICS[quantity.metric]
    if entry.censored and target is not None and steps_to(run, target) is None:
        return math.inf
    return entry.value(run, target)


def _of_layer(quantity: LayerStatistic, run: RunSummary) -> float | None:
    hidden = run.hidden(quantity.moment)
    place = quantity.layer if quantity.layer < 0 else quantity.layer - 1
    return hidden[place].get(quantity.statistic) if -len(hidden) <= place < len(hidden) else None


def _extreme(kind: OfLayers, values: list[float | None]) -> float | None:
    """None for no values, or one that is missing; NaN where one is NaN."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    if any(map(math.isnan, known)):
        return math.nan
    return max(known) if kind == "max_layer" else min(known)


def log_slope(values: list[float | None]) -> float | None:
    """Least-squares slope of ln(value) over 1, 2, …; None for fewer than two values, or one that is missing.

    Minus infinity where a value is 0: from some layer on, nothing is left. NaN for negative values.
    """
    known = [value for value in values if value is not None]
    if len(known) < 2 or len(known) < len(values):
        return None
    if min(known) < 0.0 or not all(map(math.isfinite, known)):
        return math.nan
    if min(known) == 0.0:
        return -math.inf
    centre = (len(known) - 1) / 2.0
    weights = [i - centre for i in range(len(known))]
    products = math.fsum(w * math.log(v) for w, v in zip(weights, known, strict=True))
    return products / math.fsum(w * w for w in weights)


Sides = Mapping[RowName, Side]


class NoEstimateError(Exception):
    """A number that is not to be had, with the reason."""

    def __init__(self, why: str, difference: float | None = None, n: tuple[int, ...] = ()) -> None:
        super().__init__(why)
        self.difference, self.n = difference, n


def require_estimable(
    summary: Summary, values: Sequence[float] = (), side: RunsOperand | None = None
) -> None:
    """Raise UnknownError where a summary tells nothing about the mean of further runs."""
    if not summary.n:
        raise NoEstimateError(_nothing(side))
    mean = summary.mean
    if mean is None or math.isnan(mean):
        never = sum(map(math.isinf, values))
        raise NoEstimateError(
            "a value is not a number" if not never else _never(never, len(values)), n=(summary.n,)
        )
    if summary.n == 1:
        raise NoEstimateError("one run has no interval: train more seeds", mean, (1,))
    if math.isinf(mean) and len(set(values)) > 1:
        raise NoEstimateError(_never(sum(map(math.isinf, values)), len(values)), n=(summary.n,))


def _never(count: int, n: int) -> str:
    return f"{count} of {n} runs never get there (or are infinite), so that there is no mean"


def _nothing(side: RunsOperand | None) -> str:
    if side is None or not side.n:
        return "no run is complete"
    diverged = sum(side.events.values())
    return "no run has it" + (f": {diverged} of {side.n} diverged" if diverged else "")


def evaluate_per_run(node: GateNode, side: RunsOperand) -> dict[str, float]:
    """The expression for each run that has all it takes."""
    numbers = linear_form.evaluate_column(
        node, lambda quantity: list(numbers_of(quantity, side).values()), side.n
    )
    found = zip(side.runs, numbers, strict=True)
    return {unit: number for unit, number in found if number is not None}


def numbers_of(quantity: Quantity, side: RunsOperand) -> dict[str, float | None]:
    """A quantity of each run of a row."""
    return side.numbers(quantity, lambda run: value_of(quantity, run, side.target))


def complete_units(node: GateNode, name: RowName, side: RunsOperand) -> list[str]:
    """The units of a row that have all of its quantities."""
    own = [numbers_of(quantity, side) for quantity in node.bare if quantity.row == name]
    return [unit for unit in side.runs if all(numbers[unit] is not None for numbers in own)]


def summary_of_linear(node: GateNode, side: SummaryOperand) -> Summary:
    """The summary of a · x + b, from that of x."""
    line = linear_form.as_affine(node)
    (quantity, *more) = node.bare
    if line is None or more or not isinstance(quantity, MetricValue):
        raise NoEstimateError(f"a mean and a spread are all that is known of {side.label} before")
    known = side.metrics.get(quantity.metric, Summary(None, None, 0))
    if known.mean is None or known.n == 0:
        raise NoEstimateError(f"{quantity.row}{quantity.name} has no mean", n=(known.n,))
    slope, offset = line
    is_log = any(isinstance(node, Logarithm) for node in node.walk())
    mean = math.log(known.mean) if is_log else known.mean
    return Summary(slope * mean + offset, None if known.std is None else abs(slope) * known.std, known.n)


def aggregate_value(node: Aggregate, sides: Sides) -> float:
    """The mean, least or greatest over the runs of a row that have a value; raises UnknownError for none."""
    (name,) = {quantity.row for quantity in node.inner.quantities}
    side = sides[name]
    if isinstance(side, SummaryOperand):
        return _aggregated_summary(node, side)
    values = list(evaluate_per_run(node.inner, side).values())
    if not values:
        raise NoEstimateError(_nothing(side))
    pick: dict[str, Callable[[Sequence[float]], float]] = {"min": min, "max": max, "mean": _mean}
    return math.nan if any(map(math.isnan, values)) else pick[node.kind](values)


def _mean(values: Sequence[float]) -> float:
    mean = summarise(values).mean
    assert mean is not None
    return mean


def _aggregated_summary(node: Aggregate, side: SummaryOperand) -> float:
    if node.kind != "mean":
        raise NoEstimateError(f"no single runs are known before, of which to take the {node.kind}")
    if isinstance(node.inner, MetricValue) and node.inner.is_rate:
        return side.diverged / side.n if side.n else math.nan
    mean = summary_of_linear(node.inner, side).mean
    assert mean is not None
    return mean
