"""The law of a pre-activation over the units of a wide layer, and expectations under it.

Weights make it Gaussian. A bias drawn from a Gaussian joins that variance; one drawn uniformly does not:
at the floor that torch's default init falls to it is most of the pre-activation. One value for every bias
shifts the law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from initbench.theory.nonlinearity import Nonlinearity
from initbench.theory.quadrature import Nodes, legendre, normal_nodes

_BIASES = 24


@dataclass(frozen=True)
class PreactivationDistribution:
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


def quadrature_nodes(
    law: PreactivationDistribution, breaks: tuple[float, ...], *, panels: int = 32, order: int = 16
) -> Nodes:
    """Nodes for functions that are smooth but at `breaks`. The variance is positive."""
    std = math.sqrt(law.variance)
    parts = [
        (normal_nodes(bias, std, breaks, panels=panels, order=order), share) for bias, share in law.biases()
    ]
    return Nodes(
        z=torch.cat([nodes.z for nodes, _ in parts]),
        h=torch.cat([nodes.h for nodes, _ in parts]),
        weight=torch.cat([share * nodes.weight for nodes, share in parts]),
    )


def evaluate_moments(activation: Nonlinearity, h: Tensor) -> dict[str, Tensor]:
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
