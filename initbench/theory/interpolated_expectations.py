"""Expectations for many variances at once, one for every position of a feature map.

Expectations are computed by quadrature on a grid of t = ln(variance), and interpolated by the polynomial of
degree five through the six nearest grid points. An expectation under N(·, e^t) is smooth in t even if φ has
kinks. With steps of `GRID_STEP` in t, the relative error of E[φ²] and E[φ′²] is at most 2e-6; the error of
other means is at most 2e-6 of √E[φ²] and that of fractions at most 2e-6.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from initbench.theory.nonlinearity import Nonlinearity
from initbench.theory.preactivation import PreactivationDistribution, evaluate_moments, quadrature_nodes

GRID_STEP = 0.125
"""Step of the grid in ln(variance)."""
NAMES = ("act", "act2", "slope2", "zero", "flat")
_OFFSETS = (-2, -1, 0, 1, 2, 3)
_FAINTEST = 1e-10
"""Share of the largest variance below which all variances that are not 0 count as the same."""
_CHUNK = 1 << 17


class InterpolatedExpectations:
    """E[f(h)] for h ~ N(shift, variance) + U(±half_width) and the functions NAMES of `evaluate_moments`."""

    def __init__(self, activation: Nonlinearity, *, shift: float = 0.0, half_width: float = 0.0) -> None:
        self._activation = activation
        self._shift, self._half_width = shift, half_width
        self._known: dict[int, Tensor] = {}

    def at(self, variance: Tensor) -> dict[str, Tensor]:
        """Return the expectations for every entry of `variance`, by name, in tensors of its shape.

        `variance` is a float64 tensor of any shape with entries ≥ 0.
        """
        faintest = max(_FAINTEST * float(variance.max()), 1e-300)
        parts = [self._interpolated(part, faintest) for part in torch.split(variance.flatten(), _CHUNK)]
        values = torch.cat(parts)
        silent = variance.flatten() == 0
        if bool(silent.any()):
            values[silent] = self._without_weights()
        return {name: values[:, i].view(variance.shape) for i, name in enumerate(NAMES)}

    def _interpolated(self, variance: Tensor, faintest: float) -> Tensor:
        """Interpolate the expectations at `variance` (N,). Returns (N, names)."""
        position = variance.clamp(min=faintest).log() / GRID_STEP
        below = position.floor()
        first, last = int(below.min()) + _OFFSETS[0], int(below.max()) + _OFFSETS[-1]
        table = torch.stack([self._on_grid(i) for i in range(first, last + 1)])
        index, share = below.long() - first, position - below
        total = torch.zeros(len(variance), len(NAMES), dtype=torch.float64)
        for offset in _OFFSETS:
            weight = torch.ones_like(share)
            for other in _OFFSETS:
                if other != offset:
                    weight *= (share - other) / (offset - other)
            total += weight[:, None] * table[index + offset]
        return total

    def _on_grid(self, index: int) -> Tensor:
        if index not in self._known:
            law = PreactivationDistribution(math.exp(GRID_STEP * index), self._shift, self._half_width)
            nodes = quadrature_nodes(law, self._activation.breaks)
            self._known[index] = nodes.weight @ self._values(nodes.h)
        return self._known[index]

    def _without_weights(self) -> Tensor:
        """Return the expectations (names,) for variance 0, where the pre-activation is the bias alone."""
        biases, shares = zip(
            *PreactivationDistribution(0.0, self._shift, self._half_width).biases(), strict=True
        )
        values = self._values(torch.tensor(biases, dtype=torch.float64))
        return torch.tensor(shares, dtype=torch.float64) @ values

    def _values(self, h: Tensor) -> Tensor:
        """Evaluate the functions in NAMES at `h` (N,). Returns (N, names)."""
        values = evaluate_moments(self._activation, h)
        return torch.stack([values[name] for name in NAMES], dim=1)
