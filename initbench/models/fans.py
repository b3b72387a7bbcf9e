"""How many inputs a unit sums, and how many units an input reaches."""

from __future__ import annotations

import math
from typing import Any, cast

from torch import Tensor, nn

from initbench.components.weight import parametrization_of, weight_of

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


def fans(module: nn.Module) -> tuple[float, float]:
    """(fan_in, fan_out) of a layer: terms in the sum of one output, and outputs that one input enters.

    With kernel size k², stride s² and g groups, borders left aside:

        dense            in                  out
        convolution      C_in·k²/g           C_out·k²/(g·s²)
        transposed       C_in·k²/(g·s²)      C_out·k²/g

    A stride lets an input miss some windows, and a transposed one lets an output miss some inputs, so
    that the mean is no whole number. torch's helper leaves out groups and strides, and swaps the fans
    of a transposed convolution.
    """
    rows, columns, *kernel = shape_of(module)
    here, there = columns * math.prod(kernel), rows * math.prod(kernel)
    if not isinstance(module, Convolution | Transposed):
        return float(here), float(there)
    stride, groups = math.prod(cast("Any", module).stride), module.groups
    if isinstance(module, Transposed):  # the weight is (in, out/groups, …)
        return there / (groups * stride), float(here)
    return float(here), there / (groups * stride)


def shape_of(module: nn.Module) -> tuple[int, ...]:
    """Shape of the weight, however it is computed."""
    plain = parametrization_of(module) is None
    return tuple(cast("Tensor", module.weight).shape if plain else weight_of(module).shape)


def kernels(module: nn.Module, weight: Tensor) -> list[Tensor]:
    """Views (out, in, …) of `weight`, one for each group, each a linear map of its own."""
    groups = cast("Any", module).groups if isinstance(module, Convolution | Transposed) else 1
    blocks = list(weight.chunk(groups)) if groups > 1 else [weight]
    return [block.transpose(0, 1) for block in blocks] if isinstance(module, Transposed) else blocks
