"""Mean-field theory of signal propagation: the effect of one layer on the second moment, in the wide limit.

If a pre-activation is h ~ N(0, q), the next layer's is N(0, σ_w² E[φ(h)²] + σ_b²), where σ_w² is the
variance of a weight times fan_in (Poole et al. 2016, Schoenholz et al. 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from initbench.theory.quadrature import gaussian_expectation

Function = Callable[[Tensor], Tensor]


def second_moment(phi: Function, q: float, kinks: Sequence[float] = ()) -> float:
    """Return E[φ(h)²] for h ~ N(0, q): the second moment after the activation."""
    return gaussian_expectation(lambda h: phi(h).square(), std=math.sqrt(q), kinks=kinks)


def length_map(
    phi: Function, q: float, *, sigma_w2: float, sigma_b2: float = 0.0, kinks: Sequence[float] = ()
) -> float:
    """Return the next layer's q: σ_w² E[φ(h)²] + σ_b² (Poole et al. 2016)."""
    return sigma_w2 * second_moment(phi, q, kinks) + sigma_b2


def chi(derivative: Function, q: float, *, sigma_w2: float, kinks: Sequence[float] = ()) -> float:
    """Return χ₁ = σ_w² E[φ′(h)²], the factor of E[δ²] in the backward pass (Schoenholz et al. 2017)."""
    return sigma_w2 * second_moment(derivative, q, kinks)


def preserving_gain(phi: Function, kinks: Sequence[float] = ()) -> float:
    """Return 1/√E[φ(z)²], the gain at which a layer with weight variance gain²/fan_in keeps q = 1.

    Raises:
        ValueError: If φ is zero everywhere.
    """
    moment = second_moment(phi, 1.0, kinks)
    if moment <= 0.0:
        raise ValueError("no gain preserves the signal of an activation that is zero everywhere")
    return 1.0 / math.sqrt(moment)
