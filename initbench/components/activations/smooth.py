"""Activations with an exponential or another smooth bend, unbounded above."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from initbench.components.activation import ACTIVATIONS, Activation
from initbench.registry import Options

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946
_SOFTPLUS_LINEAR_ABOVE = 20.0  # torch's, in units of βx


class EluOptions(Options):
    """Options of elu."""

    alpha: float = Field(default=1.0, gt=0.0)
    """Negative of the limit at −∞; the slope jumps at 0 unless it is 1."""


class CeluOptions(Options):
    """Options of celu."""

    alpha: float = Field(default=1.0, gt=0.0)
    """Negative of the limit at −∞, and length scale on which the limit is approached."""


class SoftplusOptions(Options):
    """Options of softplus."""

    beta: float = Field(default=1.0, gt=0.0)
    """Sharpness of the bend: the larger, the closer to relu."""


def _exponential_below(x: Tensor, at_zero: float, length: float = 1.0) -> Tensor:
    """Return 1 for x > 0, else at_zero·exp(x/length)."""
    return torch.where(x > 0, 1.0, at_zero * torch.exp(x.clamp(max=0) / length))


def _gelu_derivative(x: Tensor) -> Tensor:
    density = torch.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    return 0.5 * torch.erfc(-x / math.sqrt(2.0)) + x * density


def _gelu_tanh_derivative(x: Tensor) -> Tensor:
    scale, cubic = math.sqrt(2.0 / math.pi), 0.044715
    t = torch.tanh(scale * (x + cubic * x**3))
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * scale * (1.0 + 3.0 * cubic * x * x)


def _silu_derivative(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1.0 + x * (1.0 - s))


def _mish_derivative(x: Tensor) -> Tensor:
    t = torch.tanh(nn.functional.softplus(x))
    return t + x * (1.0 - t * t) * torch.sigmoid(x)


def _softplus_derivative(x: Tensor) -> Tensor:
    return torch.where(x > _SOFTPLUS_LINEAR_ABOVE, 1.0, torch.sigmoid(x))


ACTIVATIONS.add(
    Activation(
        name="elu",
        aliases=("exponential_linear_unit",),
        summary="relu with an exponential tail down to −α: mean closer to zero, no dead units.",
        formula="φ(x) = x if x > 0 else α(eˣ − 1)",
        source="Clevert et al. 2016",
        options=EluOptions,
        build=lambda o, _: nn.ELU(o.alpha),
        derivative=lambda o, x: _exponential_below(x, o.alpha),
        kinks=(0.0,),
        histogram_range=(-1.0, 4.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="selu",
        aliases=("scaled_elu",),
        summary="Scaled elu whose fixed point is mean 0, variance 1; made for lecun init.",
        formula="φ(x) = λx if x > 0 else λα(eˣ − 1)",
        source="Klambauer et al. 2017",
        build=lambda _, __: nn.SELU(),
        derivative=lambda _, x: _SELU_SCALE * _exponential_below(x, _SELU_ALPHA),
        kinks=(0.0,),
        histogram_range=(-2.0, 4.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="celu",
        summary="elu stretched so that its slope is continuous for every α.",
        formula="φ(x) = x if x > 0 else α(exp(x/α) − 1)",
        source="Barron 2017",
        options=CeluOptions,
        build=lambda o, _: nn.CELU(o.alpha),
        derivative=lambda o, x: _exponential_below(x, 1.0, o.alpha),
        kinks=(0.0,),
        histogram_range=(-1.0, 4.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="gelu",
        summary="Smooth relu weighted by the normal CDF; the transformer default. It needs a gain above √2.",
        formula="φ(x) = x·Φ(x)",
        source="Hendrycks & Gimpel 2016",
        build=lambda _, __: nn.GELU(),
        derivative=lambda _, x: _gelu_derivative(x),
        histogram_range=(-0.5, 4.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="gelu_tanh",
        aliases=("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_approximate", "tanh_gelu"),
        summary="gelu by its tanh approximation, as in BERT and GPT-2: use it to reproduce them.",
        formula="φ(x) = x/2·(1 + tanh(√(2/π)(x + 0.044715x³)))",
        source="Hendrycks & Gimpel 2016",
        build=lambda _, __: nn.GELU(approximate="tanh"),
        derivative=lambda _, x: _gelu_tanh_derivative(x),
        histogram_range=(-0.5, 4.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="silu",
        aliases=("swish", "swish_1", "sigmoid_linear_unit"),
        summary="Smooth relu weighted by the sigmoid, also called swish. It needs a gain above √2.",
        formula="φ(x) = x/(1 + e^−x)",
        source="Elfwing et al. 2018",
        build=lambda _, __: nn.SiLU(),
        derivative=lambda _, x: _silu_derivative(x),
        histogram_range=(-0.5, 4.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="mish",
        summary="Smooth relu close to silu, a little steeper. It needs a gain above √2.",
        formula="φ(x) = x·tanh(ln(1 + eˣ))",
        source="Misra 2020",
        build=lambda _, __: nn.Mish(),
        derivative=lambda _, x: _mish_derivative(x),
        histogram_range=(-0.5, 4.0),
    )
)
ACTIVATIONS.add(
    Activation(
        name="softplus",
        summary="Smooth relu that is never zero: for outputs that must be positive; far from mean zero.",
        formula="φ(x) = ln(1 + exp(βx))/β",
        source="Dugas et al. 2001",
        options=SoftplusOptions,
        build=lambda o, _: nn.Softplus(o.beta, threshold=_SOFTPLUS_LINEAR_ABOVE),
        derivative=lambda o, x: _softplus_derivative(o.beta * x),
        histogram_range=(0.0, 4.0),
    )
)
