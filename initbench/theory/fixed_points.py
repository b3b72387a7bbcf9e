"""Fixed points of a deep stack of equal layers, and their depth scales (Schoenholz et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from initbench.theory.expectations import LINEAR, expectations
from initbench.theory.pair_expectations import pair_expectations
from initbench.theory.types import TheoryLayer

_FACTORS = [10.0 ** (i / 4) for i in range(-32, 33)]
_LEVEL = 1e-9
"""Relative changes of q below this count as none."""
_BISECTIONS, _MOST_ITERATIONS = 60, 300


@dataclass(frozen=True)
class FixedPoint:
    """Fixed point and depth scales of a deep stack of equal layers; χ is evaluated at `chi_q`."""

    q_star: float | None
    """The q that the stack converges to: 0, a number or infinity; None if every q is a fixed point.

    A number with χ∥ > 1 is an unstable fixed point at which the stack starts."""
    chi_q: float
    chi_1: float
    chi_parallel: float
    depth_scale_q: float
    """Layers over which a change of q falls to 1/e: −1/ln χ∥, or infinity if it does not fall."""
    depth_scale_c: float
    """Layers over which the distance of two inputs' correlation from its fixed point falls to 1/e."""


@dataclass(frozen=True)
class FixedPointState:
    """Fixed point of a deep stack, and the factors of small changes there (see `FixedPoint`)."""

    q_star: float | None
    chi_q: float
    chi_1: float
    chi_parallel: float


def iterate_to_fixed_point(layer: TheoryLayer, *, start: float) -> FixedPointState:
    """Return the fixed point of a stack of layers equal to `layer`, starting at q = `start`.

    χ is evaluated at q* or, if q* is 0, infinite or arbitrary, at `start`.
    """

    def after(q: float) -> float:
        return layer.law(expectations(activation, layer.law_at(q)).mean["act2"]).second_moment

    activation = layer.activation or LINEAR
    q_star = _settled(after, start)
    chi_q = q_star if q_star is not None and 0.0 < q_star < math.inf else start
    at = expectations(activation, layer.law_at(chi_q))
    return FixedPointState(
        q_star, chi_q, layer.sigma_w2 * at.mean["slope2"], layer.sigma_w2 * at.slope["act2"]
    )


def fixed_point(layer: TheoryLayer, *, start: float) -> FixedPoint:
    """Return the result of `iterate_to_fixed_point` with its depth scales."""
    state = iterate_to_fixed_point(layer, start=start)
    chaotic = state.chi_1 > 1.0 + _LEVEL
    return FixedPoint(
        **vars(state),
        depth_scale_q=_scale(state.chi_parallel),
        depth_scale_c=_scale(_slope_at_c_star(layer, state.chi_q) if chaotic else state.chi_1),
    )


def _scale(factor: float) -> float:
    if abs(factor) >= 1.0 - _LEVEL:
        return math.inf
    return -1.0 / math.log(abs(factor)) if factor else 0.0


def _settled(after: Callable[[float], float], start: float) -> float | None:
    grid = [start * factor for factor in _FACTORS]
    growth = [after(q) / q - 1.0 for q in grid]
    middle = len(grid) // 2
    if all(abs(change) < _LEVEL for change in growth):
        return None
    if abs(growth[middle]) < _LEVEL:
        return start
    up = growth[middle] > 0.0
    for i in range(middle, len(grid)) if up else range(middle, -1, -1):
        if (growth[i] > 0.0) != up:
            low, high = (grid[i - 1], grid[i]) if up else (grid[i], grid[i + 1])
            return _crossing(after, low, high)
    return math.inf if up else 0.0


def _crossing(after: Callable[[float], float], low: float, high: float) -> float:
    """Return the fixed point between `low`, where q grows, and `high`, where it falls, by bisection."""
    for _ in range(_BISECTIONS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if after(middle) > middle else (low, middle)
    return math.sqrt(low * high)


def _slope_at_c_star(layer: TheoryLayer, q: float) -> float:
    """Return the slope of the correlation map at its stable fixed point below 1, in the chaotic phase."""
    activation, law = layer.activation or LINEAR, layer.law_at(q)
    c, slope = 0.5, 1.0
    for _ in range(_MOST_ITERATIONS):
        pair_values = pair_expectations(activation, law, c)
        slope = layer.sigma_w2 * pair_values["slope", "slope"]
        following = min(
            1.0, (layer.sigma_w2 * pair_values["act", "act"] + layer.bias_variance) / law.variance
        )
        if abs(following - c) < 1e-7:
            break
        c = following
    return slope
