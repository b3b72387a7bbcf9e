"""The edge of chaos: weight and bias variances at which neither signal nor gradient vanishes or explodes.

With V(q) = E[φ(h)²] and D(q) = E[φ′(h)²], h ~ N(0, q), every q is a fixed point with χ₁ = 1 for one pair of
variances: σ_w² = 1/D(q), σ_b² = q − σ_w²V(q) (Poole et al. 2016, Schoenholz et al. 2017).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_LEAST, _MOST, _STEPS = 1e-4, 1e4, 161
_TO_ZERO = 1e-16
_ROUNDING = 1e-9


@dataclass(frozen=True)
class CriticalPoint:
    """Critical variances σ_w² and σ_b², and their fixed point q; q is 0 if only q → 0 is critical (tanh)."""

    sigma_w2: float
    sigma_b2: float
    q: float


def critical_point(moment: Callable[[float], float], slope: Callable[[float], float]) -> CriticalPoint:
    """Return the point with χ₁ = 1 and a stable q* that has the smallest σ_b² ≥ 0.

    Args:
        moment: Function q ↦ E[φ(h)²].
        slope: Function q ↦ E[φ′(h)²].

    Returns:
        The critical point; with q = 1 if every q is a fixed point, as for relu.

    Raises:
        ValueError: If no such point exists.
    """

    def point(q: float) -> CriticalPoint:
        return CriticalPoint(1.0 / slope(q), q - moment(q) / slope(q), q)

    def feasible(q: float) -> bool:
        if slope(q) <= 0.0:
            return False
        candidate, step = point(q), 1e-3 * q
        growth = candidate.sigma_w2 * (moment(q + step) - moment(q - step)) / (2.0 * step)
        return candidate.sigma_b2 >= -_ROUNDING * q and growth <= 1.0 + _ROUNDING

    if feasible(1.0) and abs(point(1.0).sigma_b2) < _ROUNDING:
        return CriticalPoint(1.0 / slope(1.0), 0.0, 1.0)
    ratio = (_MOST / _LEAST) ** (1.0 / (_STEPS - 1))
    grid = [_LEAST * ratio**i for i in range(_STEPS)]
    # σ_b² rises with q wherever the point is feasible, so the first one is the smallest.
    first = next((i for i, q in enumerate(grid) if feasible(q)), None)
    if first is None:
        raise ValueError("it has no stable q at which χ₁ = 1")
    if first == 0:
        return CriticalPoint(1.0 / slope(_TO_ZERO), 0.0, 0.0)
    solution = point(_edge(feasible, grid[first - 1], grid[first]))
    return CriticalPoint(solution.sigma_w2, max(0.0, solution.sigma_b2), solution.q)


def _edge(feasible: Callable[[float], bool], outside: float, inside: float) -> float:
    """Return the end of the feasible interval between two values of q, found by bisection."""
    for _ in range(60):
        middle = 0.5 * (outside + inside)
        outside, inside = (outside, middle) if feasible(middle) else (middle, inside)
    return inside
