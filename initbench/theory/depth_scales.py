"""How deep a stack may be before signal or gradient is lost: its depth scales, and where it is critical."""

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
"""Depth scales that nets train up to (Schoenholz et al. 2017, found by training tanh nets)."""
_LEVEL = 1e-9
_STEPS = 40


@dataclass(frozen=True)
class DepthScales:
    """Of a deep stack of one layer; each scale is in layers."""

    q_star: float | None
    """The q that it settles at; None where every q stays."""
    chi_1: float
    chi_parallel: float
    depth_scale_q: float
    """Over which a change of q falls to 1/e."""
    depth_scale_c: float
    """Over which what tells two inputs apart, or makes them alike in the chaotic phase, falls to 1/e."""
    depth_scale_gradient: float
    """Over which E[δ²] falls to 1/e or grows to e: 1/|ln χ₁|."""

    @property
    def reach(self) -> float:
        """Layers through which signal and gradient come: six of the shorter of their two scales."""
        return TRAINABLE * min(self.depth_scale_c, self.depth_scale_gradient)


def depth_scales(layers: Sequence[TheoryLayer], q: float) -> DepthScales:
    """Of a stack of the last hidden layer of `layers` (head included), fed with inputs of mean square q.

    χ is taken at the fixed point or, where q* is 0, infinite or any, at the last hidden layer's own q. There
    are two hidden layers at least.
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
    """1/|ln χ₁|, infinite at χ₁ = 1 and 0 where nothing comes back."""
    if chi_1 <= 0.0:
        return 0.0
    return math.inf if abs(chi_1 - 1.0) < _LEVEL else 1.0 / abs(math.log(chi_1))


def deep_chi_1(layers: Sequence[TheoryLayer], q: float) -> float:
    """χ₁ as in `depth_scales`, without the rest."""
    return iterate_to_fixed_point(layers[-2], start=_deep_q(layers, q)).chi_1


def critical_sigma_w(chi_1: Callable[[float], float], low: float, high: float) -> float:
    """The σ_w between two where χ₁ passes 1, by bisection; one of them has χ₁ below 1, the other not."""
    below = chi_1(low) < 1.0
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        if high - low < 1e-4 * middle:
            break
        low, high = (middle, high) if (chi_1(middle) < 1.0) == below else (low, middle)
    return 0.5 * (low + high)


def _deep_q(layers: Sequence[TheoryLayer], q: float) -> float:
    """E[h²] of the last hidden layer, or of the last one before it leaves the range of float32."""
    reached = layers[0].law(q).second_moment
    for layer, following in pairwise(layers[:-1]):
        after = following.law(_square_mean(layer.activation or LINEAR, layer.law_at(reached))).second_moment
        if not Q_UNDERFLOW < after < Q_OVERFLOW or abs(after / reached - 1.0) < _LEVEL:
            break
        reached = after
    return reached


def _square_mean(activation: Nonlinearity, law: PreactivationDistribution) -> float:
    """E[φ(h)²], the one of `expectations` that a walk needs."""
    nodes = quadrature_nodes(law, activation.breaks)
    return nodes.mean(activation.phi(nodes.h).square())
