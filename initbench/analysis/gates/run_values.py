"""The number of one run that a gate asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from initbench.analysis.gates import linear_form
from initbench.analysis.gates.expression import (
    Aggregate,
    GateNode,
    LayerAggregate,
    LayerAggregation,
    LayerStatistic,
    Logarithm,
    MetricValue,
    Quantity,
    RowName,
    StepsTo,
)
from initbench.analysis.metrics import METRICS, steps_to
from initbench.analysis.operands import Operand, RunsOperand, SummaryOperand
from initbench.analysis.run_summary import TRAIN, RunSummary
from initbench.analysis.stats.summary import Summary, summarise


def quantity_value(quantity: Quantity, run: RunSummary, target: float | None) -> float | None:
    """The number of a complete run, None where it has none; infinite where a target was not reached."""
    if isinstance(quantity, StepsTo):
        steps = steps_to(run, quantity.accuracy)
        return math.inf if steps is None else steps
    if isinstance(quantity, LayerStatistic):
        return _layer_value(quantity, run)
    if isinstance(quantity, LayerAggregate):
        # At TRAIN nothing moves below the first: its 0 is no measurement.
        layers = run.hidden(quantity.moment)[quantity.moment == TRAIN :]
        values = [layer.get(quantity.statistic) for layer in layers]
        return log_slope(values) if quantity.kind == "slope" else _extreme_value(quantity.kind, values)
    assert isinstance(quantity, MetricValue)
    if quantity.is_rate:
        return float(not run.is_finished)
    entry = METRICS[quantity.metric]
    if entry.censored and target is not None and steps_to(run, target) is None:
        return math.inf
    return entry.value(run, target)


def _layer_value(quantity: LayerStatistic, run: RunSummary) -> float | None:
    hidden = run.hidden(quantity.moment)
    index = quantity.layer if quantity.layer < 0 else quantity.layer - 1
    return hidden[index].get(quantity.statistic) if -len(hidden) <= index < len(hidden) else None


def _extreme_value(kind: LayerAggregation, values: list[float | None]) -> float | None:
    """None for no values, or one that is missing; NaN where one is NaN."""
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return None
    if any(map(math.isnan, numbers)):
        return math.nan
    return max(numbers) if kind == "max_layer" else min(numbers)


def log_slope(values: list[float | None]) -> float | None:
    """Least-squares slope of ln(value) over 1, 2, …; None for fewer than two values, or one that is missing.

    Minus infinity where a value is 0: from some layer on, nothing is left. NaN for negative values.
    """
    numbers = [value for value in values if value is not None]
    if len(numbers) < 2 or len(numbers) < len(values):
        return None
    if min(numbers) < 0.0 or not all(map(math.isfinite, numbers)):
        return math.nan
    if min(numbers) == 0.0:
        return -math.inf
    centre = (len(numbers) - 1) / 2.0
    weights = [i - centre for i in range(len(numbers))]
    products = math.fsum(w * math.log(v) for w, v in zip(weights, numbers, strict=True))
    return products / math.fsum(w * w for w in weights)


Operands = Mapping[RowName, Operand]


class NoEstimateError(Exception):
    """A number that is not to be had, with the reason."""

    def __init__(self, why: str, difference: float | None = None, n: tuple[int, ...] = ()) -> None:
        super().__init__(why)
        self.difference, self.n = difference, n


def require_estimable(
    summary: Summary, values: Sequence[float] = (), operand: RunsOperand | None = None
) -> None:
    """Raise UnknownError where a summary tells nothing about the mean of further runs."""
    if not summary.n:
        raise NoEstimateError(_no_value_message(operand))
    mean = summary.mean
    if mean is None or math.isnan(mean):
        never = sum(map(math.isinf, values))
        raise NoEstimateError(
            "a value is not a number" if not never else _never_reached_message(never, len(values)),
            n=(summary.n,),
        )
    if summary.n == 1:
        raise NoEstimateError("one run has no interval: train more seeds", mean, (1,))
    if math.isinf(mean) and len(set(values)) > 1:
        raise NoEstimateError(
            _never_reached_message(sum(map(math.isinf, values)), len(values)), n=(summary.n,)
        )


def _never_reached_message(count: int, n: int) -> str:
    return f"{count} of {n} runs never get there (or are infinite), so that there is no mean"


def _no_value_message(operand: RunsOperand | None) -> str:
    if operand is None or not operand.n:
        return "no run is complete"
    diverged = sum(operand.divergences.values())
    return "no run has it" + (f": {diverged} of {operand.n} diverged" if diverged else "")


def evaluate_per_run(node: GateNode, operand: RunsOperand) -> dict[str, float]:
    """The expression for each run that has all it takes."""
    numbers = linear_form.evaluate_column(
        node, lambda quantity: list(quantity_values(quantity, operand).values()), operand.n
    )
    pairs = zip(operand.runs, numbers, strict=True)
    return {unit: number for unit, number in pairs if number is not None}


def quantity_values(quantity: Quantity, operand: RunsOperand) -> dict[str, float | None]:
    """A quantity of each run of a row."""
    return operand.cached_numbers(quantity, lambda run: quantity_value(quantity, run, operand.target))


def complete_units(node: GateNode, name: RowName, operand: RunsOperand) -> list[str]:
    """The units of a row that have all of its quantities."""
    columns = [
        quantity_values(quantity, operand) for quantity in node.per_run_quantities if quantity.row == name
    ]
    return [unit for unit in operand.runs if all(numbers[unit] is not None for numbers in columns)]


def summary_of_linear(node: GateNode, operand: SummaryOperand) -> Summary:
    """The summary of a · x + b, from that of x."""
    line = linear_form.as_affine(node)
    (quantity, *more) = node.per_run_quantities
    if line is None or more or not isinstance(quantity, MetricValue):
        raise NoEstimateError(f"a mean and a spread are all that is known of {operand.label} before")
    summary = operand.metrics.get(quantity.metric, Summary(None, None, 0))
    if summary.mean is None or summary.n == 0:
        raise NoEstimateError(f"{quantity.row}{quantity.name} has no mean", n=(summary.n,))
    slope, offset = line
    is_log = any(isinstance(node, Logarithm) for node in node.walk())
    mean = math.log(summary.mean) if is_log else summary.mean
    return Summary(
        slope * mean + offset, None if summary.std is None else abs(slope) * summary.std, summary.n
    )


def aggregate_value(node: Aggregate, operands: Operands) -> float:
    """The mean, least or greatest over the runs of a row that have a value; raises UnknownError for none."""
    (name,) = {quantity.row for quantity in node.inner.quantities}
    operand = operands[name]
    if isinstance(operand, SummaryOperand):
        return _aggregate_of_summary(node, operand)
    values = list(evaluate_per_run(node.inner, operand).values())
    if not values:
        raise NoEstimateError(_no_value_message(operand))
    pick: dict[str, Callable[[Sequence[float]], float]] = {"min": min, "max": max, "mean": _mean_of}
    return math.nan if any(map(math.isnan, values)) else pick[node.kind](values)


def _mean_of(values: Sequence[float]) -> float:
    mean = summarise(values).mean
    assert mean is not None
    return mean


def _aggregate_of_summary(node: Aggregate, operand: SummaryOperand) -> float:
    if node.kind != "mean":
        raise NoEstimateError(f"no single runs are known before, of which to take the {node.kind}")
    if isinstance(node.inner, MetricValue) and node.inner.is_rate:
        return operand.diverged / operand.n if operand.n else math.nan
    mean = summary_of_linear(node.inner, operand).mean
    assert mean is not None
    return mean
