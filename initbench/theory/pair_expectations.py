"""Expectations of products over two inputs' pre-activations h_a and h_b in one unit.

The Gaussian parts have correlation c; the bias is the same for both (Poole et al. 2016).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from initbench.theory.nonlinearity import Nonlinearity
from initbench.theory.preactivation import PreactivationDistribution, evaluate_moments, quadrature_nodes
from initbench.theory.quadrature import FEATURES, panel_nodes

_SAME = 1.0 - 1e-12
_APART_PANELS = 16

Products = dict[tuple[str, str], float]
"""E[f(h_a) g(h_b)] by the names of f and g."""

PAIRS = (
    ("h2", "h2"),
    ("act", "act"),
    ("act2", "act2"),
    ("act", "act2"),
    ("act3", "act"),
    ("act2", "slope2"),
    ("slope", "slope"),
    ("slope2", "slope2"),
    ("zero", "zero"),
    ("flat", "flat"),
)


def pair_expectations(
    activation: Nonlinearity, law: PreactivationDistribution, correlation: float
) -> Products:
    """Return E[f(h_a) g(h_b)] for the PAIRS, given the correlation of the inputs' Gaussian parts."""
    c = min(1.0, max(-1.0, correlation))
    if c > _SAME:
        return _same(activation, law)
    total: Products = dict.fromkeys(PAIRS, 0.0)
    for bias, share in law.biases():
        part = _different(activation, PreactivationDistribution(law.variance, bias), c)
        for pair in PAIRS:
            total[pair] += share * part[pair]
    return total


def _same(activation: Nonlinearity, law: PreactivationDistribution) -> Products:
    nodes = quadrature_nodes(law, activation.breaks)
    values = evaluate_moments(activation, nodes.h)
    return {(f, g): nodes.mean(values[f] * values[g]) for f, g in PAIRS}


def _different(activation: Nonlinearity, law: PreactivationDistribution, c: float) -> Products:
    """Integrate over h_b for every node of h_a: in standard units, h_b given h_a is N(c·h_a, 1 − c²)."""
    std, rest = math.sqrt(law.variance), math.sqrt(max(0.0, 1.0 - c * c))
    # For nearly equal inputs, the inner integral changes within a few `rest` of the points where φ bends.
    turns = tuple(
        (mark - law.shift) / max(abs(c), 0.5) + law.shift + std * rest * width
        for mark in activation.breaks
        for width in (-5.0, -2.0, 0.0, 2.0, 5.0)
    )
    outer = quadrature_nodes(law, (*activation.breaks, *turns), panels=16, order=6)
    z = outer.z.numpy()
    marks = (np.array([*FEATURES, *activation.breaks]) - law.shift) / std
    nodes, mass = panel_nodes((marks[None] - c * z[:, None]) / max(rest, 1e-9), panels=8, order=6)
    h = torch.from_numpy(law.shift + std * (c * z[:, None] + rest * nodes))
    first, second = evaluate_moments(activation, outer.h), evaluate_moments(activation, h)
    weight = torch.from_numpy(mass)
    inner = {g: (weight * second[g]).sum(1) for g in {pair[1] for pair in PAIRS}}
    return {(f, g): outer.mean(first[f] * inner[g]) for f, g in PAIRS}


@dataclass(frozen=True)
class PairDifference:
    """Difference of two inputs' activations, computed without cancellation if they are nearly equal."""

    gap: float
    """E[(φ(h_a) − φ(h_b))²]/2, which equals E[φ²] − E[φ(h_a)φ(h_b)]."""
    slope_product: float
    """E[φ′(h_a)φ′(h_b)]; times the variance of h, the derivative of E[φ(h_a)φ(h_b)] in the correlation."""


def difference(
    activation: Nonlinearity, law: PreactivationDistribution, correlation: float
) -> PairDifference:
    """Return how the activations of two inputs differ, given the correlation of their Gaussian parts.

    With u and v independent and standard normal, h = shift + s·u ± d·v, where s² = variance·(1 + c)/2 and
    d² = variance·(1 − c)/2. The difference itself is integrated: in a deep relu net, 1 − c falls below 1e-4,
    and subtracting two rounded expectations would lose its digits.
    """
    c = min(1.0, max(-1.0, correlation))
    shared = math.sqrt(law.variance * (1.0 + c) / 2.0)
    apart = math.sqrt(law.variance * (1.0 - c) / 2.0)
    v_marks = np.array([[*FEATURES]]) / max(apart, 1e-9)
    v, v_weight = panel_nodes(v_marks, panels=_APART_PANELS, order=6)
    positive = v[0] > 0.0
    v, v_weight = v[0][positive], 2.0 * v_weight[0][positive]
    gap = slope_product = 0.0
    for bias, share in law.biases():
        bends = np.array([*FEATURES, *activation.breaks]) - bias
        marks = np.concatenate([bends + apart * v[:, None], bends - apart * v[:, None]], axis=1)
        u, u_weight = panel_nodes(marks / max(shared, 1e-9), panels=8, order=6)  # (V, U)
        middle, away = bias + shared * u, apart * v[:, None]
        first, second = torch.from_numpy(middle + away), torch.from_numpy(middle - away)
        weight = share * torch.from_numpy(v_weight[:, None] * u_weight)
        gap += 0.5 * float((weight * (activation.phi(first) - activation.phi(second)).square()).sum())
        slopes = activation.derivative(first) * activation.derivative(second)
        slope_product += float((weight * slopes).sum())
    return PairDifference(gap, slope_product)
