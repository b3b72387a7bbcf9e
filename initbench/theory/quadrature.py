"""Expectations over a Gaussian variable, exact to about 1e-11 for piecewise smooth functions.

Gauss–Hermite quadrature is wrong by percents where φ or φ′ has a kink or is steep. Here the line is cut into
even panels, at every kink, and at marks graded towards the origin, where activations bend; each piece is
integrated by Gauss–Legendre. Everything in theory that is an expectation is computed with these nodes.
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
"""Where activations bend, in units of h: panels end there, so that a steep φ under a wide law is resolved."""


@dataclass(frozen=True)
class Nodes:
    """Quadrature nodes: E[f(h)] is the sum of weight·f(h). All (N,) float64."""

    z: Tensor
    """h in its Gaussian part, standardised."""
    h: Tensor
    weight: Tensor

    def mean(self, values: Tensor) -> float:
        """E of a function given by its values at `h`."""
        return float(self.weight @ values)

    def slope(self, values: Tensor, variance: float) -> float:
        """d/dvariance of E of a function given by its values at `h`: E[(z² − 1) f]/(2·variance) (Stein)."""
        return float((self.weight * (self.z.square() - 1.0)) @ values) / (2.0 * variance)

    def curve(self, values: Tensor, variance: float) -> float:
        """d²/dvariance² of E of a function given by its values at `h`: E[(z⁴ − 6z² + 3) f]/(2·variance)²."""
        z2 = self.z.square()
        return float((self.weight * (z2.square() - 6.0 * z2 + 3.0)) @ values) / (2.0 * variance) ** 2


def gaussian_expectation(
    function: Callable[[Tensor], Tensor], *, std: float = 1.0, kinks: Sequence[float] = ()
) -> float:
    """E[f(std·z)] for z ~ N(0, 1).

    `function` maps a float64 tensor to one of the same shape; `kinks` are the arguments at which
    it or its derivative jumps. `std` = 0 gives f(0).
    """
    if std == 0.0:
        return float(function(torch.zeros(1, dtype=torch.float64)))
    nodes = normal_nodes(0.0, std, kinks)
    return nodes.mean(function(nodes.h))


def normal_nodes(
    mean: float, std: float, breaks: Sequence[float], *, panels: int = 32, order: int = 16
) -> Nodes:
    """Nodes under N(mean, std²), std > 0, for functions that are smooth but at `breaks`."""
    marks = np.array([[(mark - mean) / std for mark in (*FEATURES, *breaks)]])
    z, weight = panel_nodes(marks, panels=panels, order=order)
    return Nodes(*(torch.from_numpy(part) for part in (z[0], mean + std * z[0], weight[0])))


def panel_nodes(marks: np.ndarray, *, panels: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal nodes and weights, split at `marks` (R, M) row by row: two arrays (R, N)."""
    even = np.broadcast_to(np.linspace(-_REACH, _REACH, panels + 1), (len(marks), panels + 1))
    edges = np.sort(np.concatenate([even, np.clip(marks, -_REACH, _REACH)], axis=1), axis=1)
    half, middle = np.diff(edges) / 2.0, (edges[:, 1:] + edges[:, :-1]) / 2.0
    wide = (half > 0.0).any(0)  # marks out of reach end panels without width: nothing is evaluated there
    half, middle = half[:, wide], middle[:, wide]
    nodes, weights = legendre(order)
    z = (middle[..., None] + half[..., None] * nodes).reshape(len(marks), -1)
    mass = (half[..., None] * weights).reshape(len(marks), -1)
    return z, mass * np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


@cache
def legendre(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss–Legendre quadrature on [−1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return nodes, weights
