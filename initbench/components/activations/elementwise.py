"""The elementwise activations."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from initbench.components.activation import ACTIVATIONS, Activation
from initbench.registry import Options

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


class LeakyReluOptions(Options):
    """Options of leaky_relu."""

    negative_slope: float = Field(default=0.01, ge=0.0, lt=1.0)
    """Slope a below zero."""


def _step(x: Tensor) -> Tensor:
    return (x > 0).to(x.dtype)


def _normal_density(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-x / math.sqrt(2.0))


def _selu_derivative(x: Tensor) -> Tensor:
    return _SELU_SCALE * torch.where(x > 0, torch.ones_like(x), _SELU_ALPHA * torch.exp(x.clamp(max=0)))


def _sigmoid_derivative(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1 - s)


ACTIVATIONS.add(
    Activation(
        name="linear",
        summary="The identity: a deep linear net, where theory is exact.",
        formula="φ(x) = x",
        source="Saxe et al. 2014",
        build=lambda _: nn.Identity(),
        rounds_alike=True,
        derivative=lambda _, x: torch.ones_like(x),
    )
)
ACTIVATIONS.add(
    Activation(
        name="relu",
        summary="Zero below zero, the identity above: the common default, needs twice the weight variance.",
        formula="φ(x) = max(0, x)",
        source="Nair & Hinton 2010",
        build=lambda _: nn.ReLU(),
        rounds_alike=True,
        derivative=lambda _, x: _step(x),
        kinks=(0.0,),
        histogram_range=(0.0, 4.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="leaky_relu",
        summary="relu that lets a small slope through below zero, so that no unit dies.",
        formula="φ(x) = x if x > 0 else a·x",
        source="Maas et al. 2013",
        options=LeakyReluOptions,
        build=lambda o: nn.LeakyReLU(o.negative_slope),
        rounds_alike=True,
        derivative=lambda o, x: _step(x) * (1.0 - o.negative_slope) + o.negative_slope,
        kinks=(0.0,),
        negative_slope=lambda o: float(o.negative_slope),
    )
)
ACTIVATIONS.add(
    Activation(
        name="tanh",
        summary="Bounded and odd: near-linear at small scale, saturated at large scale.",
        formula="φ(x) = tanh x",
        source="LeCun et al. 1998",
        build=lambda _: nn.Tanh(),
        rounds_alike=True,
        derivative=lambda _, x: 1.0 - torch.tanh(x).square(),
        bounded=True,
        histogram_range=(-1.0, 1.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="sigmoid",
        summary="Bounded, never centred; its slope is at most 1/4, so gradients vanish with depth.",
        formula="φ(x) = 1/(1 + e^−x)",
        source="Rumelhart et al. 1986",
        build=lambda _: nn.Sigmoid(),
        derivative=lambda _, x: _sigmoid_derivative(x),
        bounded=True,
        histogram_range=(0.0, 1.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="gelu",
        summary="Smooth relu weighted by the normal CDF; the transformer default.",
        formula="φ(x) = x·Φ(x)",
        source="Hendrycks & Gimpel 2016",
        build=lambda _: nn.GELU(),
        derivative=lambda _, x: _normal_cdf(x) + x * _normal_density(x),
        histogram_range=(-0.5, 4.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="selu",
        summary="Scaled elu whose fixed point is mean 0, variance 1; made for lecun init.",
        formula="φ(x) = λx if x > 0 else λα(eˣ − 1)",
        source="Klambauer et al. 2017",
        build=lambda _: nn.SELU(),
        derivative=lambda _, x: _selu_derivative(x),
        kinks=(0.0,),
        histogram_range=(-2.0, 4.0),
    )
)
