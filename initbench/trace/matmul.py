"""Find the weight that a call of a torch function multiplies its input by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from initbench.components.fans import fans_of
from initbench.trace.contraction import (
    PRODUCTS,
    Contraction,
    ContractionAxes,
    contraction_of,
    product_factors,
)
from initbench.trace.provenance import Pending, Provenance
from initbench.trace.torch_ops import WEIGHTED, Arguments


@dataclass(frozen=True)
class WeightMatmul:
    """Input, weight and bias of a call, with the same meaning as the fields of `WeightUse`."""

    x: Tensor
    factor: Tensor
    bias: Tensor | None
    fan_in: float
    fan_out: float
    axis: int
    parts: tuple[str, ...]
    """Names of the parameters that the weight is computed from."""
    groups: int = 1
    transposed: bool = False
    contraction: Contraction | None = None


def find_weight_matmul(name: str, arguments: Arguments, provenance: Provenance) -> WeightMatmul | None:
    """Return the product with a weight that a call computes.

    Args:
        name: The plain name of the function.
        arguments: The arguments of the call.
        provenance: The known origins of tensors.

    Returns:
        The product, or None if no tensor that depends on the net's input is multiplied by a weight.
    """
    result = None
    if name in WEIGHTED:
        result = _layer(name, arguments, provenance)
    elif name == "bilinear":
        result = _bilinear(arguments, provenance)
    elif name in PRODUCTS:
        result = _product(name, arguments, provenance)
    elif name == "sum":
        result = _summed(arguments, provenance)
    return result if result is not None and provenance.origin(result.x) is not None else None


def _layer(name: str, arguments: Arguments, provenance: Provenance) -> WeightMatmul | None:
    x, weight, bias = (
        arguments.get(i, arguments.get(word)) for i, word in enumerate(("input", "weight", "bias"))
    )
    if not isinstance(x, Tensor) or not isinstance(weight, Tensor) or weight.ndim < 2:
        return None
    if provenance.origin(weight) is not None:  # a kernel that comes from the input, not a weight
        return None
    transposed = "transpose" in name
    stride, groups = 1, 1
    if name != "linear":
        stride = _product_of(arguments.get(3, arguments.get("stride", 1)), weight.ndim - 2)
        groups = int(arguments.get(6, arguments.get("groups")) or 1)
    fans = fans_of(tuple(weight.shape), stride=stride, groups=groups, transposed=transposed)
    bias = bias if isinstance(bias, Tensor) else None
    parts = provenance.parameters_of(weight)
    return WeightMatmul(x, weight, bias, *fans, WEIGHTED[name], parts, groups, transposed)


def _product_of(stride: Any, directions: int) -> int:
    if isinstance(stride, int):
        return int(stride**directions)
    return math.prod(stride) if len(stride) == directions else int(stride[0] ** directions)


def _bilinear(arguments: Arguments, provenance: Provenance) -> WeightMatmul | None:
    words = ("input1", "input2", "weight", "bias")
    first, second, weight, bias = (arguments.get(i, arguments.get(word)) for i, word in enumerate(words))
    if not isinstance(weight, Tensor) or not provenance.parameters_of(weight):
        return None
    x = next((x for x in (first, second) if provenance.origin(x) is not None), None)
    if not isinstance(x, Tensor):
        return None
    bias = bias if isinstance(bias, Tensor) else None
    fan_in, fan_out = float(weight[0].numel()), float(weight.shape[0])
    return WeightMatmul(x, weight, bias, fan_in, fan_out, -1, provenance.parameters_of(weight))


def _product(name: str, arguments: Arguments, provenance: Provenance) -> WeightMatmul | None:
    """Return the product of a call if one of its factors is computed from parameters alone."""
    factors = product_factors(name, arguments)
    if factors is None:
        return None
    first, second, axes = factors
    bias = arguments.get(0, arguments.get("input")) if name.startswith(("add", "badd")) else None
    bias = bias if isinstance(bias, Tensor) and provenance.parameters_of(bias) else None
    if provenance.parameters_of(second) and provenance.origin(first) is not None:
        return _contracted(first, second, axes, bias, provenance)
    if provenance.parameters_of(first) and provenance.origin(second) is not None:
        return _contracted(second, first, axes.swapped(), bias, provenance)
    return None


def _summed(arguments: Arguments, provenance: Provenance) -> WeightMatmul | None:
    """Return the product that an elementwise product and a sum form, such as (x[:, None] * w).sum(-1)."""
    pending = provenance.pending(arguments.get(0, arguments.get("input")))
    dims = arguments.get(1, arguments.get("dim"))
    if pending is None or dims is None or isinstance(dims, Tensor):
        return None
    letters = pending.output
    summed = {letters[dim % len(letters)] for dim in ([dims] if isinstance(dims, int) else dims)}
    is_kept = bool(arguments.get(2, arguments.get("keepdim", False)))
    output = "".join("-" if letter in summed and is_kept else letter for letter in letters)
    if not is_kept:
        output = "".join(letter for letter in letters if letter not in summed)
    axes = ContractionAxes(pending.x_axes, pending.weight_axes, output)
    return _contracted(pending.x, pending.weight, axes, None, provenance)


def _contracted(
    x: Tensor, weight: Tensor, axes: ContractionAxes, bias: Tensor | None, provenance: Provenance
) -> WeightMatmul | None:
    contraction = contraction_of(x, weight, axes.first, axes.second, axes.output)
    if contraction is None:
        return None
    row = contraction.rows[-1:]
    axis = contraction.output.index(row) if row else -1
    axis = axis if axis < len(contraction.output) - 1 else -1
    fans = float(contraction.fan_in), float(contraction.fan_out)
    return WeightMatmul(
        x, weight, bias, *fans, axis, provenance.parameters_of(weight), contraction=contraction
    )


def elementwise_product(x: Tensor, weight: Tensor) -> Pending:
    """Return an elementwise product of x and a weight that a later sum may turn into a contraction."""
    dimensions = max(x.ndim, weight.ndim)
    letters = "abcdefghijklmnopqrstuvwxyz"[:dimensions]
    x_axes, weight_axes = letters[dimensions - x.ndim :], letters[dimensions - weight.ndim :]
    spread = {
        letter
        for letter in x_axes
        if letter in weight_axes
        and x.shape[x_axes.index(letter)] == 1
        and weight.shape[weight_axes.index(letter)] > 1
    }
    x_axes = "".join(letter.upper() if letter in spread else letter for letter in x_axes)
    return Pending(x, weight, x_axes, weight_axes, letters)
