"""Schemes whose scale is computed from the activation by mean-field theory."""

from __future__ import annotations

import math
from functools import lru_cache

from initbench.components.activation import BoundActivation
from initbench.components.init_scheme import INITS, Scheme, SchemeContext
from initbench.components.inits.variance_scaling import draw, fan_in_variance
from initbench.theory.criticality import CriticalPoint, critical_point


@lru_cache(maxsize=64)
def critical_of(activation: BoundActivation) -> CriticalPoint:
    """Return the variances at which χ₁ = 1; raise ValueError if there are none."""
    return critical_point(
        lambda q: activation.length_map(q, sigma_w2=1.0),
        lambda q: activation.chi(q, sigma_w2=1.0) / activation.widening,
    )


def _sigma_w(activation: BoundActivation, _layer: int) -> float:
    return math.sqrt(critical_of(activation).sigma_w2)


def _sigma_b(activation: BoundActivation, _fan_in: float) -> float:
    return math.sqrt(critical_of(activation).sigma_b2)


def _has_none(key: str, setting: SchemeContext) -> str | None:
    name = setting.activation.entry.name
    try:
        sigma_b2 = critical_of(setting.activation).sigma_b2
    except ValueError as reason:
        return f"{key} has no solution for model.activation={name}: {reason}"
    if sigma_b2 > 0.0 and not setting.bias:
        return f"{key} needs model.bias=true with model.activation={name}: its σ_b² is {sigma_b2:.3g}"
    return None


def _preserving(activation: BoundActivation, layer: int) -> float:
    """Return 1 for the first layer, whose inputs are standardised, else the gain that keeps q = 1."""
    return 1.0 if layer == 1 else activation.preserving_gain


INITS.add(
    Scheme(
        name="critical",
        aliases=("edge_of_chaos", "eoc"),
        summary="The edge of chaos: gradients neither vanish nor explode, and the signal's scale is stable.",
        formula="W ~ N(0, σ_w²/n), b ~ N(0, σ_b²), χ₁ = 1 at the q* of the smallest σ_b²",
        source="Poole et al. 2016, Schoenholz et al. 2017",
        fill=draw(fan_in_variance, "normal"),
        variance=fan_in_variance,
        layer_gain=_sigma_w,
        bias_std=_sigma_b,
        problem=_has_none,
    )
)
INITS.add(
    Scheme(
        name="analytic",
        summary="Keeps q = 1 in all layers for standardised inputs and any activation, without a batch.",
        formula="W ~ N(0, 1/n) in the first layer, then N(0, 1/(n·E[φ(√q·z)²])) with the predicted q = 1",
        source="after Bingham & Miikkulainen 2021",
        fill=draw(fan_in_variance, "normal"),
        variance=fan_in_variance,
        layer_gain=_preserving,
    )
)
