"""From the arguments of a torch function to the weight it multiplies by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from initbench.models.fans import fans_of
from initbench.trace.ledger import Ledger
from initbench.trace.operations import PRODUCTS, WEIGHTED, Arguments


@dataclass(frozen=True)
class Multiplication:
    """A function's input, weight and bias, as the fields of `Use` have them."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    fan_in: float
    fan_out: float
    axis: int
    parts: tuple[str, ...]
    """Parameters that the weight is made of."""
    groups: int = 1
    transposed: bool = False


def multiplication(name: str, given: Arguments, ledger: Ledger) -> Multiplication | None:
    """What the function `name` multiplies what comes from the input by; None where that is no weight."""
    found = None
    if name in WEIGHTED:
        found = _layer(name, given, ledger)
    elif name in PRODUCTS:
        found = _product(name, given, ledger)
    return found if found is not None and ledger.origin(found.x) is not None else None


def _layer(name: str, given: Arguments, ledger: Ledger) -> Multiplication | None:
    x, weight, bias = (given.get(i, given.get(word)) for i, word in enumerate(("input", "weight", "bias")))
    if not isinstance(x, Tensor) or not isinstance(weight, Tensor) or weight.ndim < 2:
        return None
    transposed = "transpose" in name
    stride, groups = 1, 1
    if name != "linear":
        stride = _product_of(given.get(3, given.get("stride", 1)), weight.ndim - 2)
        groups = int(given.get(6, given.get("groups")) or 1)
    fans = fans_of(tuple(weight.shape), stride=stride, groups=groups, transposed=transposed)
    bias = bias if isinstance(bias, Tensor) else None
    parts = ledger.parts(weight)
    return Multiplication(x, weight, bias, *fans, WEIGHTED[name], parts, groups, transposed)


def _product_of(stride: Any, directions: int) -> int:
    if isinstance(stride, int):
        return int(stride**directions)
    return math.prod(stride) if len(stride) == directions else int(stride[0] ** directions)


def _product(name: str, given: Arguments, ledger: Ledger) -> Multiplication | None:
    """Of a matrix product of which one factor is made of parameters alone: x·W or W·xᵀ."""
    left, right = (given.get(place) for place in PRODUCTS[name])
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return None
    bias = given.get(0) if name == "addmm" else None
    bias = bias if isinstance(bias, Tensor) else None
    if right.ndim == 2 and ledger.parts(right):
        weight, x, axis, parts = right.mT, left, -1, ledger.parts(right)
    elif left.ndim == 2 and right.ndim == 2 and ledger.parts(left):
        weight, x, axis, parts = left, right, 0, ledger.parts(left)
    else:
        return None
    outputs, inputs = weight.shape
    return Multiplication(x, weight, bias, float(inputs), float(outputs), axis, parts)
