"""Expectations over a Gaussian variable, exact to about 1e-11 for piecewise smooth functions.

Gauss–Hermite quadrature is off by several per cent if φ or φ′ has a kink or is steep. This module splits the
line into panels of equal width, at every kink, and at marks that get denser towards the origin, where
activations bend; it integrates each piece by Gauss–Legendre. All expectations in the theory use these nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

_REACH = 10.0  # the Gaussian beyond 10 standard deviations weighs 2e-23
FEATURES = (0.0, *(sign * 2.0**k for k in range(-2, 7) for sign in (-1.0, 1.0)))
"""Values of h where activations bend: panels end there, to resolve a steep φ if h has a large variance."""


@dataclass(frozen=True)
class Nodes:
    """Quadrature nodes: E[f(h)] is the sum of weight·f(h). All fields are (N,) float64."""

    z: Tensor
    """The standardised Gaussian part of h."""
    h: Tensor
    weight: Tensor

    def mean(self, values: Tensor) -> float:
        """Return E[f(h)] of a function given by its values at `h`."""
        return float(self.weight @ values)

    def slope(self, values: Tensor, variance: float) -> float:
        """Return the derivative of E[f(h)] with respect to the variance.

        Computed as E[(z² − 1) f]/(2·variance) (Stein's lemma), with f given by its values at `h`.
        """
        return float((self.weight * (self.z.square() - 1.0)) @ values) / (2.0 * variance)

    def curve(self, values: Tensor, variance: float) -> float:
        """Return the second derivative of E[f(h)] with respect to the variance.

        Computed as E[(z⁴ − 6z² + 3) f]/(2·variance)², with f given by its values at `h`.
        """
        z2 = self.z.square()
        return float((self.weight * (z2.square() - 6.0 * z2 + 3.0)) @ values) / (2.0 * variance) ** 2


def gaussian_expectation(
    function: Callable[[Tensor], Tensor], *, std: float = 1.0, kinks: Sequence[float] = ()
) -> float:
    """Return E[f(std·z)] for z ~ N(0, 1).

    Args:
        function: Maps a float64 tensor to a tensor of the same shape.
        std: Standard deviation of the argument; 0 gives f(0).
        kinks: Arguments at which the function or its derivative jumps.
    """
    if std == 0.0:
        return float(function(torch.zeros(1, dtype=torch.float64)))
    nodes = normal_nodes(0.0, std, kinks)
    return nodes.mean(function(nodes.h))


def normal_nodes(
    mean: float, std: float, breaks: Sequence[float], *, panels: int = 32, order: int = 16
) -> Nodes:
    """Return nodes for N(mean, std²), std > 0, and functions that are smooth except at `breaks`."""
    return normal_mixture_nodes([mean], [1.0], std, breaks, panels=panels, order=order)


def normal_mixture_nodes(
    means: Sequence[float],
    shares: Sequence[float],
    std: float,
    breaks: Sequence[float],
    *,
    panels: int,
    order: int,
) -> Nodes:
    """Return nodes for a mixture of N(mean, std²), std > 0, and functions smooth except at `breaks`.

    Args:
        means: Means of the parts.
        shares: Weights of the parts, which add up to 1.
        std: Standard deviation of every part.
        breaks: Points at which the functions are not smooth.
        panels: Number of panels of equal width.
        order: Number of nodes in a panel.
    """
    centres = np.array(means)[:, None]
    z, weight = panel_nodes((np.array([*FEATURES, *breaks]) - centres) / std, panels=panels, order=order)
    weighted = np.array(shares)[:, None] * weight
    return Nodes(*(torch.from_numpy(part.reshape(-1)) for part in (z, centres + std * z, weighted)))


def panel_nodes(marks: np.ndarray, *, panels: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return standard normal nodes and weights, two arrays (R, N), split at the `marks` (R, M) row by row."""
    even = np.broadcast_to(np.linspace(-_REACH, _REACH, panels + 1), (len(marks), panels + 1))
    edges = np.sort(np.concatenate([even, np.clip(marks, -_REACH, _REACH)], axis=1), axis=1)
    half, middle = np.diff(edges) / 2.0, (edges[:, 1:] + edges[:, :-1]) / 2.0
    wide = (half > 0.0).any(0)  # marks that were clipped produce panels of zero width: drop them
    half, middle = half[:, wide], middle[:, wide]
    nodes, weights = legendre(order)
    z = (middle[..., None] + half[..., None] * nodes).reshape(len(marks), -1)
    mass = (half[..., None] * weights).reshape(len(marks), -1)
    return z, mass * np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


@cache
def legendre(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of Gauss–Legendre quadrature on [−1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return nodes, weights
