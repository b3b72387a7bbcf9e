"""Expectations over a Gaussian pre-activation, exact to about 1e-12 for piecewise smooth functions.

Gauss–Hermite quadrature is wrong by percents where φ or φ′ has a kink or is steep. Here the
line is cut at every kink and graded towards the origin, and each piece is integrated by
Gauss–Legendre.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

_REACH = 12.0  # the Gaussian beyond 12 standard deviations weighs 4e-33
_ORDER = 20


@cache
def _legendre() -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(_ORDER)
    return nodes, weights


def _edges(std: float, kinks: Sequence[float]) -> np.ndarray:
    """Panel edges in units of the standard deviation, fine where φ(std·z) varies fast."""
    graded = [sign * 2.0**k / std for k in range(-4, 7) for sign in (-1.0, 1.0)]
    centres = [0.0, *(kink / std for kink in kinks)]
    near = [centre + offset for centre in centres for offset in (0.0, *graded)]
    edges = np.concatenate([np.linspace(-_REACH, _REACH, 49), near])
    return np.unique(edges[np.abs(edges) <= _REACH])


def gaussian_expectation(
    function: Callable[[Tensor], Tensor], *, std: float = 1.0, kinks: Sequence[float] = ()
) -> float:
    """E[f(std·z)] for z ~ N(0, 1).

    `function` maps a float64 tensor to one of the same shape; `kinks` are the arguments at which
    it or its derivative jumps. `std` = 0 gives f(0).
    """
    if std == 0.0:
        return float(function(torch.zeros(1, dtype=torch.float64)))
    edges = _edges(std, kinks)
    nodes, weights = _legendre()
    half, middle = np.diff(edges) / 2, (edges[1:] + edges[:-1]) / 2
    z = torch.from_numpy((middle[:, None] + half[:, None] * nodes).ravel())
    mass = torch.from_numpy((half[:, None] * weights).ravel())
    density = torch.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return float((mass * density * function(std * z)).sum())
