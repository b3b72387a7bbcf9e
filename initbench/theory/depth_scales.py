"""Depth scales: the number of layers over which signal and gradient survive, and the critical σ_w."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from initbench.theory.expectations import LINEAR
from initbench.theory.fixed_points import fixed_point, iterate_to_fixed_point
from initbench.theory.nonlinearity import Nonlinearity
from initbench.theory.preactivation import PreactivationDistribution, quadrature_nodes
from initbench.theory.propagation import Q_OVERFLOW, Q_UNDERFLOW
from initbench.theory.types import TheoryLayer

TRAINABLE = 6.0
"""Largest trainable depth, in depth scales (Schoenholz et al. 2017, found by training tanh nets)."""
_LEVEL = 1e-9
_STEPS = 40


@dataclass(frozen=True)
class DepthScales:
    """Depth scales of a deep stack of equal layers; each scale is a number of layers."""

    q_star: float | None
    """The q that the stack converges to; None if every q is a fixed point."""
    chi_1: float
    chi_parallel: float
    depth_scale_q: float
    """Layers over which a change of q falls to 1/e."""
    depth_scale_c: float
    """Layers over which the distance of two inputs' correlation from its fixed point falls to 1/e."""
    depth_scale_gradient: float
    """Layers over which E[δ²] changes by a factor e: 1/|ln χ₁|."""

    @property
    def reach(self) -> float:
        """Largest trainable depth in layers: six times the smaller of the correlation and gradient scales."""
        return TRAINABLE * min(self.depth_scale_c, self.depth_scale_gradient)


def depth_scales(layers: Sequence[TheoryLayer], q: float) -> DepthScales:
    """Return the depth scales of a stack that repeats the last hidden layer of `layers`.

    χ is evaluated at the fixed point or, if q* is 0, infinite or arbitrary, at the last hidden layer's q.

    Args:
        layers: All weight layers, head included; at least two of them are hidden.
        q: Mean square of the inputs of the first layer.
    """
    state = fixed_point(layers[-2], start=_deep_q(layers, q))
    return DepthScales(
        q_star=state.q_star,
        chi_1=state.chi_1,
        chi_parallel=state.chi_parallel,
        depth_scale_q=state.depth_scale_q,
        depth_scale_c=state.depth_scale_c,
        depth_scale_gradient=gradient_scale(state.chi_1),
    )


def gradient_scale(chi_1: float) -> float:
    """Return 1/|ln χ₁|: infinite at χ₁ = 1, and 0 at χ₁ = 0, where no gradient is propagated."""
    if chi_1 <= 0.0:
        return 0.0
    return math.inf if abs(chi_1 - 1.0) < _LEVEL else 1.0 / abs(math.log(chi_1))


def deep_chi_1(layers: Sequence[TheoryLayer], q: float) -> float:
    """Return the χ₁ of `depth_scales`, without computing the other scales."""
    return iterate_to_fixed_point(layers[-2], start=_deep_q(layers, q)).chi_1


def critical_sigma_w(chi_1: Callable[[float], float], low: float, high: float) -> float:
    """Return the σ_w between `low` and `high` at which χ₁ crosses 1, found by bisection.

    χ₁ must be below 1 at exactly one of the two ends.
    """
    below = chi_1(low) < 1.0
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        if high - low < 1e-4 * middle:
            break
        low, high = (middle, high) if (chi_1(middle) < 1.0) == below else (low, middle)
    return 0.5 * (low + high)


def _deep_q(layers: Sequence[TheoryLayer], q: float) -> float:
    """Return E[h²] of the last hidden layer, or of the last layer before q converges or leaves float32."""
    reached = layers[0].law(q).second_moment
    for layer, following in pairwise(layers[:-1]):
        after = following.law(_square_mean(layer.activation or LINEAR, layer.law_at(reached))).second_moment
        if not Q_UNDERFLOW < after < Q_OVERFLOW or abs(after / reached - 1.0) < _LEVEL:
            break
        reached = after
    return reached


def _square_mean(activation: Nonlinearity, law: PreactivationDistribution) -> float:
    """Return E[φ(h)²], the only expectation that `_deep_q` needs."""
    nodes = quadrature_nodes(law, activation.breaks)
    return nodes.mean(activation.phi(nodes.h).square())
