"""What is not finite before training, by name: weights, buffers, the input, or an operation of the pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from initbench.probing.finding import Finding
from initbench.trace.overflow import Overflow

HUGE = 1e18
"""A number whose square float32 can hardly hold."""
_MAX_NAMED = 3

Kind = Literal["weight", "buffer", "input"]


@dataclass(frozen=True)
class NonFinite:
    """A tensor with entries that are not finite."""

    name: str
    kind: Kind
    nan: int
    infinite: int
    huge: int
    """Finite entries of a weight beyond 1e18, whose products overflow by themselves."""
    entries: int

    @property
    def sentence(self) -> str:
        """`2.weight: 1 of 1,024 entries is NaN`."""
        counts = [(self.nan, "NaN"), (self.infinite, "infinite"), (self.huge, f"beyond {HUGE:.0e}")]
        parts = [f"{count:,} {'is' if count == 1 else 'are'} {word}" for count, word in counts if count]
        return f"{self.name}: of {self.entries:,} entries {' and '.join(parts)}"


def non_finite_tensors(tensors: Iterable[tuple[str, Tensor]], kind: Kind) -> list[NonFinite]:
    """Those among named tensors that hold a NaN or an infinity.

    A buffer whose only such entries are −∞ is the mask of an attention, and left out.
    """
    broken = []
    for name, tensor in tensors:
        if not tensor.is_floating_point():
            continue
        values = tensor.detach()
        nan, infinite = int(values.isnan().sum()), int(values.isinf().sum())
        huge = int((values.abs() > HUGE).sum()) - infinite if kind == "weight" else 0
        is_mask = kind == "buffer" and not nan and infinite == int((values == -torch.inf).sum())
        if (nan or infinite or huge) and not is_mask:
            broken.append(NonFinite(name, kind, nan, infinite, huge, values.numel()))
    return broken


def broken_tensors_finding(broken: Sequence[NonFinite], layers: Mapping[str, int]) -> Iterator[Finding]:
    """One finding for all tensors that are not finite. layers: index of a weight layer by its name."""
    if not broken:
        return
    sentences = [tensor.sentence for tensor in broken[:_MAX_NAMED]]
    more = f" and {len(broken) - _MAX_NAMED} more tensors" if len(broken) > _MAX_NAMED else ""
    index = next((layers[name] for tensor in broken if (name := _layer_of(tensor.name)) in layers), None)
    where = "" if index is None else f" (layer {index})"
    message = f"{'; '.join(sentences)}{more}{where}. {cure_text(broken)}"
    count = sum(tensor.nan + tensor.infinite + tensor.huge for tensor in broken)
    yield Finding("not_finite", index, float(count), 0.0, message, "init")


def cure_text(broken: Sequence[NonFinite]) -> str:
    """What to do about tensors that are not finite."""
    if broken[0].kind == "input":
        return "Clean the data: what is missing has to be filled in or left out"
    return "Draw it again, or look for what wrote it: a division by 0 in an init, or a damaged checkpoint"


def _layer_of(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def overflow_finding(
    overflow: Overflow, layers: Mapping[str, int], largest_weight: float
) -> Iterator[Finding]:
    """A finding that names the operation; none for a product that overflows since the signal explodes.

    largest_weight: of the layer that the operation stands behind, its largest absolute entry.
    """
    if overflow.is_product and largest_weight < HUGE:
        return
    index = None if overflow.layer is None else layers.get(overflow.layer)
    message = f"{overflow_text(overflow, largest_weight)}. {_overflow_remedy(overflow)}"
    yield Finding("not_finite", index, float(overflow.bad), 0.0, message, "init")


def overflow_text(overflow: Overflow, largest_weight: float) -> str:
    """`exp after layer lv overflows: of 64 entries 40 are not finite, from values of −3e+03 to 2e+03`."""
    if overflow.is_product:
        return f"the product of layer {overflow.layer} overflows: its largest weight is {largest_weight:.2g}"
    where = " in the loss" if overflow.in_loss else ""
    where += " before the first layer" if overflow.layer is None else f" after layer {overflow.layer}"
    does = "gives NaN" if overflow.not_a_number else "overflows"
    if overflow.operation == "division":
        does = "divides by 0 or next to 0"
    span = f"from values of {overflow.low:.2g} to {overflow.high:.2g}"
    return (
        f"{overflow.operation}{where} {does}: of {overflow.entries:,} entries {overflow.bad:,} are not"
        f" finite, {span}"
    )


def _overflow_remedy(overflow: Overflow) -> str:
    ways = {
        "exp": "Scale down or clamp what goes into it",
        "log": "Add a small constant to what goes into it, or use log_softmax, logsigmoid or log1p",
        "sqrt": "Add a small constant below the root, and see why what goes into it can be negative",
        "rsqrt": "Add a small constant below the root",
        "division": "Add a small constant to the divisor",
    }
    if overflow.is_product:
        return "Draw the weight again, or look for what wrote it"
    return ways.get(overflow.operation, "Scale down what goes into it, or keep it where it is defined")
