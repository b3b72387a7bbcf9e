"""The number of one run that a gate asks for."""

from __future__ import annotations

import math

from initbench.compare.facts import TRAIN, RunFacts
from initbench.compare.gates.tree import LayerStatistic, Metric, OfLayers, OverLayers, Quantity, StepsTo
from initbench.compare.metrics import METRICS, steps_to


def value_of(quantity: Quantity, run: RunFacts, target: float | None) -> float | None:
    """The number of a complete run, None where it has none; infinite where a target was not reached."""
    if isinstance(quantity, StepsTo):
        found = steps_to(run, quantity.accuracy)
        return math.inf if found is None else found
    if isinstance(quantity, LayerStatistic):
        return _of_layer(quantity, run)
    if isinstance(quantity, OverLayers):
        # At TRAIN nothing moves below the first: its 0 is no measurement.
        layers = run.hidden(quantity.moment)[quantity.moment == TRAIN :]
        values = [layer.get(quantity.statistic) for layer in layers]
        return log_slope(values) if quantity.kind == "slope" else _extreme(quantity.kind, values)
    assert isinstance(quantity, Metric)
    if quantity.is_rate:
        return float(not run.is_finished)
    entry = METRICS[quantity.metric]
    if entry.censored and target is not None and steps_to(run, target) is None:
        return math.inf
    return entry.value(run, target)


def _of_layer(quantity: LayerStatistic, run: RunFacts) -> float | None:
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
