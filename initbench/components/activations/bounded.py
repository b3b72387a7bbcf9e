"""Activations bounded above and below."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from initbench.components.activation import ACTIVATIONS, Activation, ActivationMoments
from initbench.registry import Options

_LECUN_HEIGHT, _LECUN_SLOPE = 1.7159, 2.0 / 3.0


class SinOptions(Options):
    """Options of sin."""

    omega: float = Field(default=1.0, gt=0.0)
    """Angular frequency ω; 30 is common in coordinate networks."""


class LecunTanh(nn.Module):
    """The function 1.7159·tanh(2x/3)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation."""
        return _LECUN_HEIGHT * torch.tanh(_LECUN_SLOPE * x)


class Sin(nn.Module):
    """The function sin(ωx)."""

    def __init__(self, omega: float) -> None:
        super().__init__()
        self._omega = omega

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation."""
        return torch.sin(self._omega * x)


def _sin_moments(omega: float, q: float) -> ActivationMoments:
    """Return E[sin²(ωh)] and ω²·E[cos²(ωh)], using E[cos(2ωh)] = exp(−2ω²q)."""
    exponent = -2.0 * omega * omega * q
    return ActivationMoments(-0.5 * math.expm1(exponent), 0.5 * omega * omega * (1.0 + math.exp(exponent)))


def _tanh_derivative(x: Tensor) -> Tensor:
    return 1.0 - torch.tanh(x).square()


def _sigmoid_derivative(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1 - s)


def _between(x: Tensor, low: float, high: float) -> Tensor:
    return ((x > low) & (x < high)).to(x.dtype)


ACTIVATIONS.add(
    Activation(
        name="tanh",
        aliases=("hyperbolic_tangent",),
        summary="Bounded and odd: near-linear at small scale, saturated at large scale.",
        formula="φ(x) = tanh x",
        source="LeCun et al. 1998",
        build=lambda _, __: nn.Tanh(),
        rounds_alike=True,
        derivative=lambda _, x: _tanh_derivative(x),
        bounded=True,
        saturates=True,
        histogram_range=(-1.0, 1.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="lecun_tanh",
        aliases=("scaled_tanh",),
        summary="tanh stretched so that φ(±1) = ±1: for inputs and targets scaled to ±1.",
        formula="φ(x) = 1.7159·tanh(2x/3)",
        source="LeCun et al. 1998",
        build=lambda _, __: LecunTanh(),
        rounds_alike=True,
        derivative=lambda _, x: _LECUN_HEIGHT * _LECUN_SLOPE * _tanh_derivative(_LECUN_SLOPE * x),
        bounded=True,
        saturates=True,
        histogram_range=(-1.7159, 1.7159),
    )
)
ACTIVATIONS.add(
    Activation(
        name="sigmoid",
        aliases=("logistic", "expit", "sigm"),
        summary="Bounded, with a positive mean; its slope is at most 1/4, so gradients vanish with depth.",
        formula="φ(x) = 1/(1 + e^−x)",
        source="Rumelhart et al. 1986",
        build=lambda _, __: nn.Sigmoid(),
        derivative=lambda _, x: _sigmoid_derivative(x),
        bounded=True,
        saturates=True,
        histogram_range=(0.0, 1.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="softsign",
        summary="Like tanh, but approaches its bounds as 1/x, so that it saturates late.",
        formula="φ(x) = x/(1 + |x|)",
        source="Bergstra et al. 2009",
        build=lambda _, __: nn.Softsign(),
        rounds_alike=True,
        derivative=lambda _, x: (1.0 + x.abs()) ** -2,
        kinks=(0.0,),
        bounded=True,
        saturates=True,
        histogram_range=(-1.0, 1.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="hard_tanh",
        summary="Piecewise linear tanh: exactly linear at small scale, no gradient beyond ±1.",
        formula="φ(x) = clip(x, −1, 1)",
        source="Collobert 2004",
        build=lambda _, __: nn.Hardtanh(),
        rounds_alike=True,
        derivative=lambda _, x: _between(x, -1.0, 1.0),
        kinks=(-1.0, 1.0),
        bounded=True,
        saturates=True,
        histogram_range=(-1.0, 1.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="hard_sigmoid",
        aliases=("h_sigmoid",),
        summary="Piecewise linear sigmoid with slope 1/6: cheap gates; gradients vanish with depth.",
        formula="φ(x) = clip(x/6 + 1/2, 0, 1)",
        source="Howard et al. 2019",
        build=lambda _, __: nn.Hardsigmoid(),
        rounds_alike=True,
        derivative=lambda _, x: _between(x, -3.0, 3.0) / 6.0,
        kinks=(-3.0, 3.0),
        bounded=True,
        saturates=True,
        histogram_range=(0.0, 1.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="relu6",
        summary="relu clipped at 6, for nets that will be quantised; at q = 1 it equals relu.",
        formula="φ(x) = clip(x, 0, 6)",
        source="Krizhevsky 2010",
        build=lambda _, __: nn.ReLU6(),
        rounds_alike=True,
        derivative=lambda _, x: _between(x, 0.0, 6.0),
        kinks=(0.0, 6.0),
        bounded=True,
        histogram_range=(0.0, 6.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="sin",
        aliases=("sine", "siren"),
        summary="Periodic: for nets that map coordinates to signals; large ω gives fine detail.",
        formula="φ(x) = sin(ωx)",
        source="Sitzmann et al. 2020",
        options=SinOptions,
        build=lambda o, _: Sin(o.omega),
        rounds_alike=True,
        moments=lambda o, q: _sin_moments(o.omega, q),  # quadrature does not resolve a large ω
        derivative=lambda o, x: o.omega * torch.cos(o.omega * x),
        bounded=True,
        histogram_range=(-1.0, 1.0),
    )
)
