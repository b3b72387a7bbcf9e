"""Activations that are piecewise linear or quadratic, and unbounded above."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from initbench.components.activation import ACTIVATIONS, Activation
from initbench.registry import Options


class LeakyReluOptions(Options):
    """Options of leaky_relu."""

    negative_slope: float = Field(default=0.01, ge=0.0, lt=1.0)
    """Slope a for negative inputs."""


class PreluOptions(Options):
    """Options of prelu."""

    init: float = Field(default=0.25, ge=0.0, lt=1.0)
    """Slope a for negative inputs before training; kaiming and `auto` gains are computed from it."""
    per_channel: bool = False
    """Learn one slope per channel instead of one for the whole layer."""


class PReLU(nn.Module):
    """Activation x for x > 0 and slope·x otherwise, with a learned slope. (N, C, …) → (N, C, …)."""

    def __init__(self, init: float, slopes: int, channels: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((slopes,), init))
        self._channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation in the precision of x."""
        # A shared slope is expanded to one per channel. Its gradient is then summed in two stages, and the
        # order of both sums is independent of the number of stacked runs and of threads.
        slope = self.slope.to(x.dtype).expand(self._channels)
        return torch.where(x > 0, x, slope.view(-1, *[1] * (x.ndim - 2)) * x)


class SquaredReLU(nn.Module):
    """The function max(0, x)²."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation."""
        return torch.relu(x).square()


def _step(x: Tensor) -> Tensor:
    return (x > 0).to(x.dtype)


def _hard_swish_derivative(x: Tensor) -> Tensor:
    return torch.where(x < 3, (x / 3 + 0.5) * (x > -3), 1.0)


ACTIVATIONS.add(
    Activation(
        name="linear",
        aliases=("identity", "none", "id"),
        summary="The identity: a deep linear net, where theory is exact.",
        formula="φ(x) = x",
        source="Saxe et al. 2014",
        build=lambda _, __: nn.Identity(),
        rounds_alike=True,
        derivative=lambda _, x: torch.ones_like(x),
    )
)
ACTIVATIONS.add(
    Activation(
        name="relu",
        aliases=("rectifier", "rectified_linear", "rectified_linear_unit"),
        summary="0 for negative inputs, else x: the common default; needs twice the weight variance.",
        formula="φ(x) = max(0, x)",
        source="Nair & Hinton 2010",
        build=lambda _, __: nn.ReLU(),
        rounds_alike=True,
        derivative=lambda _, x: _step(x),
        kinks=(0.0,),
        histogram_range=(0.0, 4.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="leaky_relu",
        aliases=("leaky", "lrelu"),
        summary="relu with a small slope for negative inputs, so that no unit dies.",
        formula="φ(x) = x if x > 0 else a·x",
        source="Maas et al. 2013",
        options=LeakyReluOptions,
        build=lambda o, _: nn.LeakyReLU(o.negative_slope),
        rounds_alike=True,
        derivative=lambda o, x: _step(x) * (1.0 - o.negative_slope) + o.negative_slope,
        kinks=(0.0,),
        negative_slope=lambda o: float(o.negative_slope),
    )
)
ACTIVATIONS.add(
    Activation(
        name="prelu",
        aliases=("parametric_relu",),
        summary="leaky_relu with a learned slope; theory uses the initial slope.",
        formula="φ(x) = x if x > 0 else a·x, a learned",
        source="He et al. 2015",
        options=PreluOptions,
        build=lambda o, channels: PReLU(o.init, channels if o.per_channel else 1, channels),
        rounds_alike=True,
        derivative=lambda o, x: _step(x) * (1.0 - o.init) + o.init,
        kinks=(0.0,),
        negative_slope=lambda o: float(o.init),
    )
)
ACTIVATIONS.add(
    Activation(
        name="squared_relu",
        aliases=("relu2", "relu_squared", "square_relu"),
        summary="relu squared, found by architecture search; q grows as q², so no scale is stable.",
        formula="φ(x) = max(0, x)²",
        source="So et al. 2021",
        build=lambda _, __: SquaredReLU(),
        rounds_alike=True,
        derivative=lambda _, x: 2.0 * torch.relu(x),
        kinks=(0.0,),
        histogram_range=(0.0, 8.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="hard_swish",
        aliases=("h_swish", "hard_silu"),
        summary="silu approximated by a parabola: cheap, for small and quantised nets.",
        formula="φ(x) = x·clip(x/6 + 1/2, 0, 1)",
        source="Howard et al. 2019",
        build=lambda _, __: nn.Hardswish(),
        rounds_alike=True,
        derivative=lambda _, x: _hard_swish_derivative(x),
        kinks=(-3.0, 3.0),
        histogram_range=(-0.5, 4.0),
    )
)
