"""Fans of weight layers: fan_in, the inputs summed by a unit, and fan_out, the units reached by an input."""

from __future__ import annotations

import math
from typing import Any, cast

from torch import Tensor, nn

from initbench.components.parametrized_weight import parametrization_of, weight_of

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


def fans(module: nn.Module) -> tuple[float, float]:
    """Return (fan_in, fan_out) of a layer: terms in the sum of one output, and outputs that one input enters.

    With kernel size k², stride s² and g groups, ignoring borders:

        dense            in                  out
        convolution      C_in·k²/g           C_out·k²/(g·s²)
        transposed       C_in·k²/(g·s²)      C_out·k²/g

    With a stride, not every window contains a given input (in transposed convolutions, not every output
    depends on a given input), so the mean may not be a whole number. torch's helper ignores groups and
    strides, and swaps the fans of a transposed convolution.
    """
    shape = shape_of(module)
    if not isinstance(module, Convolution | Transposed):
        return fans_of(shape)
    stride, transposed = math.prod(cast("Any", module).stride), isinstance(module, Transposed)
    return fans_of(shape, stride=stride, groups=module.groups, transposed=transposed)


def fans_of(
    shape: tuple[int, ...], *, stride: int = 1, groups: int = 1, transposed: bool = False
) -> tuple[float, float]:
    """Return (fan_in, fan_out) for a weight of the given shape; see `fans`.

    Args:
        shape: (out, in/groups, …), or (in, out/groups, …) if transposed.
        stride: Product of the strides in all directions.
        groups: Number of groups.
        transposed: Whether the layer is a transposed convolution.
    """
    rows, columns, *kernel = shape
    fan_in, fan_out = float(columns * math.prod(kernel)), rows * math.prod(kernel) / (groups * stride)
    return (fan_out, fan_in) if transposed else (fan_in, fan_out)


def torch_fans(module: nn.Module) -> tuple[float, float]:
    """Return (fan_in, fan_out) as torch.nn.init counts them, from weight.shape[1] and [0] for every layer."""
    return fans_of(shape_of(module))


def shape_of(module: nn.Module) -> tuple[int, ...]:
    """Return the shape of the weight, which may be computed by a parametrization."""
    plain = parametrization_of(module) is None
    return tuple(cast("Tensor", module.weight).shape if plain else weight_of(module).shape)


def kernels(module: nn.Module, weight: Tensor) -> list[Tensor]:
    """Return views (out, in, …) of `weight`, one for each group; each of them is a separate linear map."""
    groups = cast("Any", module).groups if isinstance(module, Convolution | Transposed) else 1
    blocks = list(weight.chunk(groups)) if groups > 1 else [weight]
    return [block.transpose(0, 1) for block in blocks] if isinstance(module, Transposed) else blocks
