"""From the arguments of a torch function to the weight it multiplies by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from initbench.models.fans import fans_of
from initbench.trace.contraction import PRODUCTS, Contraction, ContractionAxes, contraction_of, factors_of
from initbench.trace.provenance import Pending, Provenance
from initbench.trace.torch_ops import WEIGHTED, Arguments


@dataclass(frozen=True)
class WeightMatmul:
    """A function's input, weight and bias, as the fields of `Use` have them."""

    x: Tensor
    factor: Tensor
    bias: Tensor | None
    fan_in: float
    fan_out: float
    axis: int
    parts: tuple[str, ...]
    """Parameters that the weight is made of."""
    groups: int = 1
    transposed: bool = False
    contraction: Contraction | None = None


def multiplication(name: str, given: Arguments, ledger: Provenance) -> WeightMatmul | None:
    """What the function `name` multiplies what comes from the input by; None where that is no weight."""
    result = None
    if name in WEIGHTED:
        result = _layer(name, given, ledger)
    elif name == "bilinear":
        result = _bilinear(given, ledger)
    elif name in PRODUCTS:
        result = _product(name, given, ledger)
    elif name == "sum":
        result = _summed(given, ledger)
    return result if result is not None and ledger.origin(result.x) is not None else None


def _layer(name: str, given: Arguments, ledger: Provenance) -> WeightMatmul | None:
    x, weight, bias = (given.get(i, given.get(word)) for i, word in enumerate(("input", "weight", "bias")))
    if not isinstance(x, Tensor) or not isinstance(weight, Tensor) or weight.ndim < 2:
        return None
    if ledger.origin(weight) is not None:  # a kernel that comes from the input, not a weight
        return None
    transposed = "transpose" in name
    stride, groups = 1, 1
    if name != "linear":
        stride = _product_of(given.get(3, given.get("stride", 1)), weight.ndim - 2)
        groups = int(given.get(6, given.get("groups")) or 1)
    fans = fans_of(tuple(weight.shape), stride=stride, groups=groups, transposed=transposed)
    bias = bias if isinstance(bias, Tensor) else None
    parts = ledger.parameters_of(weight)
    return WeightMatmul(x, weight, bias, *fans, WEIGHTED[name], parts, groups, transposed)


def _product_of(stride: Any, directions: int) -> int:
    if isinstance(stride, int):
        return int(stride**directions)
    return math.prod(stride) if len(stride) == directions else int(stride[0] ** directions)


def _bilinear(given: Arguments, ledger: Provenance) -> WeightMatmul | None:
    words = ("input1", "input2", "weight", "bias")
    one, other, weight, bias = (given.get(i, given.get(word)) for i, word in enumerate(words))
    if not isinstance(weight, Tensor) or not ledger.parameters_of(weight):
        return None
    x = next((x for x in (one, other) if ledger.origin(x) is not None), None)
    if not isinstance(x, Tensor):
        return None
    bias = bias if isinstance(bias, Tensor) else None
    fan_in, fan_out = float(weight[0].numel()), float(weight.shape[0])
    return WeightMatmul(x, weight, bias, fan_in, fan_out, -1, ledger.parameters_of(weight))


def _product(name: str, given: Arguments, ledger: Provenance) -> WeightMatmul | None:
    """Of a product of which one factor is made of parameters alone."""
    factors = factors_of(name, given)
    if factors is None:
        return None
    left, right, axes = factors
    bias = given.get(0, given.get("input")) if name.startswith(("add", "badd")) else None
    bias = bias if isinstance(bias, Tensor) and ledger.parameters_of(bias) else None
    if ledger.parameters_of(right) and ledger.origin(left) is not None:
        return _contracted(left, right, axes, bias, ledger)
    if ledger.parameters_of(left) and ledger.origin(right) is not None:
        return _contracted(right, left, axes.turned(), bias, ledger)
    return None


def _summed(given: Arguments, ledger: Provenance) -> WeightMatmul | None:
    """Of a product entry by entry that is summed over an axis of both, such as (x[:, None] * w).sum(-1)."""
    pending = ledger.pending(given.get(0, given.get("input")))
    dims = given.get(1, given.get("dim"))
    if pending is None or dims is None or isinstance(dims, Tensor):
        return None
    letters = pending.output
    summed = {letters[dim % len(letters)] for dim in ([dims] if isinstance(dims, int) else dims)}
    is_kept = bool(given.get(2, given.get("keepdim", False)))
    output = "".join("-" if letter in summed and is_kept else letter for letter in letters)
    if not is_kept:
        output = "".join(letter for letter in letters if letter not in summed)
    axes = ContractionAxes(pending.x_axes, pending.weight_axes, output)
    return _contracted(pending.x, pending.weight, axes, None, ledger)


def _contracted(
    x: Tensor, weight: Tensor, axes: ContractionAxes, bias: Tensor | None, ledger: Provenance
) -> WeightMatmul | None:
    contraction = contraction_of(x, weight, axes.left, axes.right, axes.output)
    if contraction is None:
        return None
    row = contraction.rows[-1:]
    axis = contraction.output.index(row) if row else -1
    axis = axis if axis < len(contraction.output) - 1 else -1
    fans = float(contraction.fan_in), float(contraction.fan_out)
    return WeightMatmul(x, weight, bias, *fans, axis, ledger.parameters_of(weight), contraction=contraction)


def entrywise(x: Tensor, weight: Tensor) -> Pending:
    """A product of x and a weight entry by entry, which a sum may follow."""
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
