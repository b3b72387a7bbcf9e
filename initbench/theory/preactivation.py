"""Distribution of a pre-activation over the units of a wide layer, and expectations under it.

The weights contribute a Gaussian. A Gaussian bias adds to its variance. A uniform bias does not: it has to be
treated separately, as it dominates the pre-activation in deep nets with torch's default init. A constant bias
shifts the distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from initbench.theory.nonlinearity import Nonlinearity
from initbench.theory.quadrature import Nodes, legendre, normal_mixture_nodes

_MAX_BIASES = 24


@dataclass(frozen=True)
class PreactivationDistribution:
    """Distribution N(shift, variance) + U(±half_width); the uniform part is a bias, shared by all inputs."""

    variance: float
    shift: float = 0.0
    half_width: float = 0.0

    @property
    def second_moment(self) -> float:
        """E[h²]."""
        return self.variance + self.shift**2 + self.half_width**2 / 3.0

    def biases(self) -> list[tuple[float, float]]:
        """Return (bias, weight) pairs: a quadrature over the non-Gaussian part of the distribution.

        The Gaussian part smooths all functions, so the number of pairs increases with the ratio r of the
        half-width to its standard deviation. The coefficient of the first degree that is not exact is about
        I_n(r²/4)·exp(−r²/4) for n pairs, which is at most 1e-6 up to r = 8.
        """
        if self.half_width == 0.0:
            return [(self.shift, 1.0)]
        nodes, weights = legendre(self._bias_count)
        return [
            (self.shift + self.half_width * float(x), 0.5 * float(w))
            for x, w in zip(nodes, weights, strict=True)
        ]

    @property
    def _bias_count(self) -> int:
        std = math.sqrt(max(0.0, self.variance))
        needed = 4.0 + 2.0 * self.half_width / std if std > 0.0 else math.inf
        return math.ceil(min(needed, _MAX_BIASES))


def quadrature_nodes(
    law: PreactivationDistribution, breaks: tuple[float, ...], *, panels: int = 32, order: int = 16
) -> Nodes:
    """Return quadrature nodes for functions that are smooth except at `breaks`.

    The variance of `law` must be positive.
    """
    biases, shares = zip(*law.biases(), strict=True)
    return normal_mixture_nodes(biases, shares, math.sqrt(law.variance), breaks, panels=panels, order=order)


def evaluate_moments(activation: Nonlinearity, h: Tensor) -> dict[str, Tensor]:
    """Return, by name, the functions of a pre-activation whose moments the theory uses, evaluated at h."""
    phi, derivative = activation.phi(h), activation.derivative(h)
    return {
        "h": h,
        "h2": h.square(),
        "act": phi,
        "act2": phi.square(),
        "act3": phi * phi.square(),
        "slope": derivative,
        "slope2": derivative.square(),
        "zero": (phi == 0).double(),
        "flat": activation.is_flat(h).double(),
    }
