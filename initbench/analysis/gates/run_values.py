"""Values of the quantities of a gate: per run, and aggregated over the runs of a row."""

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
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.stats.summary import Summary, summarise
from initbench.store.summary_file import TRAIN


def quantity_value(quantity: Quantity, run: RunSummary, target: float | None) -> float | None:
    """Return the value of a quantity for a complete run.

    It is None if the run has no value, and infinite if it never reached the target accuracy.
    """
    if isinstance(quantity, StepsTo):
        steps = steps_to(run, quantity.accuracy)
        return math.inf if steps is None else steps
    if isinstance(quantity, LayerStatistic):
        return _layer_value(quantity, run)
    if isinstance(quantity, LayerAggregate):
        # At TRAIN the first hidden layer is skipped: no layer below it moves, so its shift is always 0.
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
    """Return the maximum or minimum; None without values or if one is missing, NaN if one is NaN."""
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return None
    if any(map(math.isnan, numbers)):
        return math.nan
    return max(numbers) if kind == "max_layer" else min(numbers)


def log_slope(values: list[float | None]) -> float | None:
    """Return the least-squares slope of ln(value) over the layers 1, 2, ….

    It is None for fewer than two values or if one is missing, minus infinity if a value is 0 (the signal has
    vanished), and NaN if a value is negative or not finite.
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
"""The operand of each row that a gate refers to."""


class NoEstimateError(Exception):
    """A value that cannot be computed or estimated, with the reason.

    `difference` and `n` are set if the difference is known although its interval is not.
    """

    def __init__(self, why: str, difference: float | None = None, n: tuple[int, ...] = ()) -> None:
        super().__init__(why)
        self.difference, self.n = difference, n


def require_estimable(
    summary: Summary, values: Sequence[float] = (), operand: RunsOperand | None = None
) -> None:
    """Raise NoEstimateError if a summary does not determine an interval of the mean.

    Args:
        summary: Summary of the values.
        values: The values, if they are known one by one.
        operand: The row, for the message.
    """
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
        raise NoEstimateError("an interval needs at least two runs: train more seeds", mean, (1,))
    if math.isinf(mean) and len(set(values)) > 1:
        raise NoEstimateError(
            _never_reached_message(sum(map(math.isinf, values)), len(values)), n=(summary.n,)
        )


def _never_reached_message(count: int, n: int) -> str:
    return f"{count} of {n} runs never reach the target (or are infinite), so there is no mean"


def _no_value_message(operand: RunsOperand | None) -> str:
    if operand is None or not operand.n:
        return "no run is complete"
    diverged = sum(operand.divergences.values())
    return "no run has a value" + (f": {diverged} of {operand.n} diverged" if diverged else "")


def evaluate_per_run(node: GateNode, operand: RunsOperand) -> dict[str, float]:
    """Return the value of the expression by unit, for each run that has all of its quantities."""
    numbers = linear_form.evaluate_column(
        node, lambda quantity: list(quantity_values(quantity, operand).values()), operand.n
    )
    pairs = zip(operand.runs, numbers, strict=True)
    return {unit: number for unit, number in pairs if number is not None}


def quantity_values(quantity: Quantity, operand: RunsOperand) -> dict[str, float | None]:
    """Return the value of a quantity for each run of a row, by unit."""
    return operand.cached_numbers(quantity, lambda run: quantity_value(quantity, run, operand.target))


def complete_units(node: GateNode, name: RowName, operand: RunsOperand) -> list[str]:
    """Return the units of a row that have a value of every quantity of that row in the expression."""
    columns = [
        quantity_values(quantity, operand) for quantity in node.per_run_quantities if quantity.row == name
    ]
    return [unit for unit in operand.runs if all(numbers[unit] is not None for numbers in columns)]


def summary_of_linear(node: GateNode, operand: SummaryOperand) -> Summary:
    """Return the summary of a · x + b, computed from the summary of x.

    Raises:
        NoEstimateError: The expression is not of this form, or x has no mean.
    """
    line = linear_form.as_affine(node)
    (quantity, *more) = node.per_run_quantities
    if line is None or more or not isinstance(quantity, MetricValue):
        raise NoEstimateError(
            f"the reference document has only means and spreads of {operand.label}, not its single runs"
        )
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
    """Return the mean, minimum or maximum over the runs of a row that have a value.

    Raises:
        NoEstimateError: No run has a value, or only a summary of the row is known and it is not enough.
    """
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
        raise NoEstimateError(
            f"the reference document has no single runs of {operand.label} to take the {node.kind} of"
        )
    if isinstance(node.inner, MetricValue) and node.inner.is_rate:
        return operand.diverged / operand.n if operand.n else math.nan
    mean = summary_of_linear(node.inner, operand).mean
    assert mean is not None
    return mean
