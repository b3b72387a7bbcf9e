"""The law of a pre-activation over the units of a wide layer, and expectations under it.

Weights make it Gaussian. A bias drawn from a Gaussian joins that variance; one drawn uniformly does not:
at the floor that torch's default init falls to it is most of the pre-activation. One value for every bias
shifts the law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from initbench.theory.nonlinearity import Nonlinearity

_REACH = 10.0  # the Gaussian beyond 10 standard deviations weighs 2e-23
_BIASES = 24
FEATURES = (0.0, *(sign * size for size in (0.25, 1.0, 2.0, 4.0, 8.0) for sign in (-1.0, 1.0)))
"""Where activations bend, in units of h: panels end there, so that a steep φ under a wide law is resolved."""


@dataclass(frozen=True)
class Law:
    """N(shift, variance) + U(±half_width), the uniform part being a bias, which all inputs share."""

    variance: float
    shift: float = 0.0
    half_width: float = 0.0

    @property
    def second_moment(self) -> float:
        """E[h²]."""
        return self.variance + self.shift**2 + self.half_width**2 / 3.0

    def biases(self) -> list[tuple[float, float]]:
        """(bias, weight) pairs that stand for the part of the law that is no Gaussian."""
        if self.half_width == 0.0:
            return [(self.shift, 1.0)]
        nodes, weights = legendre(_BIASES)
        return [
            (self.shift + self.half_width * float(x), 0.5 * float(w))
            for x, w in zip(nodes, weights, strict=True)
        ]


@dataclass(frozen=True)
class Nodes:
    """Quadrature nodes: E[f(h)] is the sum of weight·f(h). All (N,) float64."""

    z: Tensor
    """(h − bias)/√variance: its Gaussian part, standardised."""
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


@cache
def legendre(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss–Legendre quadrature on [−1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return nodes, weights


def nodes_of(law: Law, breaks: tuple[float, ...], *, panels: int = 32, order: int = 12) -> Nodes:
    """Nodes for functions that are smooth but at `breaks`. The variance is positive."""
    std = math.sqrt(law.variance)
    z, h, weight = [], [], []
    for bias, share in law.biases():
        marks = [(mark - bias) / std for mark in (*FEATURES, *breaks)]
        own_z, mass = panel_nodes(np.array([marks]), panels=panels, order=order)
        z.append(own_z[0])
        h.append(bias + std * own_z[0])
        weight.append(share * mass[0])
    return Nodes(*(torch.from_numpy(np.concatenate(parts)) for parts in (z, h, weight)))


def panel_nodes(marks: np.ndarray, *, panels: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal nodes and weights, split at `marks` (R, M) row by row: two arrays (R, N)."""
    even = np.broadcast_to(np.linspace(-_REACH, _REACH, panels + 1), (len(marks), panels + 1))
    edges = np.sort(np.concatenate([even, np.clip(marks, -_REACH, _REACH)], axis=1), axis=1)
    half, middle = np.diff(edges) / 2.0, (edges[:, 1:] + edges[:, :-1]) / 2.0
    nodes, weights = legendre(order)
    z = (middle[..., None] + half[..., None] * nodes).reshape(len(marks), -1)
    mass = (half[..., None] * weights).reshape(len(marks), -1)
    return z, mass * np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def values_at(activation: Nonlinearity, h: Tensor) -> dict[str, Tensor]:
    """The functions of a pre-activation whose moments theory follows, at the entries of h."""
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
