"""Schemes that standardise every unit on the first batch by setting its weight and bias."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.func import functional_call

from initbench.components.init_scheme import INITS, Scheme, SchemeContext, SchemeRequirement
from initbench.components.inits.variance_scaling import draw
from initbench.components.parametrized_weight import assign_weight, weight_of
from initbench.registry import Options

_V_STD = 0.05


class DataDependentOptions(Options):
    """Options of data_dependent."""

    beta: float = 0.0
    """Mean of every pre-activation on the first batch; above 0, fewer relu units are dead initially."""


def _calibrate(
    network: nn.Module, weight_modules: Sequence[nn.Module], batch: Tensor, *, beta: float = 0.0
) -> None:
    """Give each unit's (channel's) output on `batch` (B, …) the mean `beta` and the variance 1.

    Takes one forward pass, in which each layer passes on its output after the change. A unit whose output is
    constant keeps its weight; buffers are not changed.
    """

    def standardise(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Rescale and shift a layer so that each of its channels has mean `beta` and variance 1."""
        channels = output.ndim - 1 if isinstance(module, nn.Linear) else 1
        axes = [axis for axis in range(output.ndim) if axis != channels]
        std, mean = torch.std_mean(output.double(), axes, correction=0)
        # In float32, rounding gives a constant unit a small standard deviation, which is ignored.
        varies = (std > 1e-6 * mean.abs()) & std.isfinite()
        scale = torch.where(varies, 1.0 / std, 1.0)
        weight, bias = weight_of(module), module.bias
        assign_weight(module, weight * _per_unit(module, weight, scale.to(weight)))
        if isinstance(bias, Tensor):  # without a bias, a norm layer follows, which sets the mean
            bias.copy_(torch.where(varies, beta + (bias - mean) * scale, bias).to(bias))
        return module.forward(*inputs)  # type: ignore[no-any-return]

    with torch.no_grad(), ExitStack() as hooks:
        for module in weight_modules:
            hooks.callback(module.register_forward_hook(standardise).remove)
        copies = {name: buffer.clone() for name, buffer in network.named_buffers()}
        functional_call(network, copies, (batch,))


def _per_unit(module: nn.Module, weight: Tensor, scale: Tensor) -> Tensor:
    """Return the factors of the units (out,) in a shape that broadcasts over `weight`.

    Units are the rows of the weight, except in transposed convolutions.
    """
    kernel = [1] * (weight.ndim - 2)
    if not isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return scale.view(-1, 1, *kernel)
    inputs = weight.shape[0] // module.groups
    columns = scale.view(module.groups, 1, -1).expand(-1, inputs, -1)
    return columns.reshape(*weight.shape[:2], *kernel)


def _needs_bias(key: str, setting: SchemeContext) -> str | None:
    return None if setting.bias else f"{key} sets biases, and with model.bias=false there are none"


def _unit_normal(*, fan_in: float, **_: object) -> float:
    return 1.0 / fan_in


INITS.add(
    Scheme(
        name="data_weightnorm",
        summary="Sets each unit's length and bias such that it has mean 0 and variance 1 on the first batch.",
        formula="W = g·V/‖V‖, V ~ N(0, 0.05²), g = ‖V‖/σ[Vx], b = −μ[Vx]/σ[Vx]",
        source="Salimans & Kingma 2016",
        needs=SchemeRequirement.FIRST_BATCH,
        fill=draw(lambda **_: _V_STD**2, "normal"),
        calibrate=_calibrate,
        measures_bias=True,
        problem=_needs_bias,
    )
)
INITS.add(
    Scheme(
        name="data_dependent",
        summary="Within-layer step of the paper: each unit has mean β and variance 1 on the first batch.",
        formula="W ← W/σ[Wx], b = β − μ[Wx]/σ[Wx], W ~ N(0, 1/n)",
        source="Krähenbühl et al. 2016, algorithm 1",
        options=DataDependentOptions,
        needs=SchemeRequirement.FIRST_BATCH,
        fill=draw(_unit_normal, "normal"),
        calibrate=_calibrate,
        measures_bias=True,
        problem=_needs_bias,
    )
)
