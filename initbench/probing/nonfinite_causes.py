"""Sources of non-finite numbers before training: weights, buffers, the input, or operations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from initbench.probing.finding import Finding
from initbench.trace.overflow import Overflow

HUGE = 1e18
"""Number whose square is at the limit of float32."""
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
    """Number of finite entries of a weight beyond 1e18, whose products overflow."""
    entries: int

    @property
    def sentence(self) -> str:
        """Description such as `2.weight: of 1,024 entries 1 is NaN`."""
        counts = [(self.nan, "NaN"), (self.infinite, "infinite"), (self.huge, f"beyond {HUGE:.0e}")]
        parts = [f"{count:,} {'is' if count == 1 else 'are'} {word}" for count, word in counts if count]
        return f"{self.name}: of {self.entries:,} entries {' and '.join(parts)}"


def non_finite_tensors(tensors: Iterable[tuple[str, Tensor]], kind: Kind) -> list[NonFinite]:
    """Return the named tensors that contain NaN or an infinity.

    Buffers in which all such entries are −∞ are attention masks and are skipped.
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
    """Yield one finding for all non-finite tensors; `layers` has the indices of weight layers by name."""
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
    """Return the advice for non-finite tensors."""
    if broken[0].kind == "input":
        return "Clean the data: fill in or remove missing values"
    return "Initialise it again, or look for the cause: a division by 0 in an init, or a damaged checkpoint"


def _layer_of(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def overflow_finding(
    overflow: Overflow, layers: Mapping[str, int], largest_weight: float
) -> Iterator[Finding]:
    """Yield a finding that names the operation, unless it is a product that overflows by an exploding signal.

    Args:
        overflow: The operation.
        layers: The indices of the weight layers by name.
        largest_weight: The largest absolute weight of the layer before the operation.
    """
    if overflow.is_product and largest_weight < HUGE:
        return
    index = None if overflow.layer is None else layers.get(overflow.layer)
    message = f"{overflow_text(overflow, largest_weight)}. {_overflow_remedy(overflow)}"
    yield Finding("not_finite", index, float(overflow.bad), 0.0, message, "init")


def overflow_text(overflow: Overflow, largest_weight: float) -> str:
    """Return text such as `exp after layer lv overflows: of 64 entries 40 are not finite, from values …`."""
    if overflow.is_product:
        return f"the product of layer {overflow.layer} overflows: its largest weight is {largest_weight:.2g}"
    where = " in the loss" if overflow.in_loss else ""
    where += " before the first layer" if overflow.layer is None else f" after layer {overflow.layer}"
    does = "gives NaN" if overflow.not_a_number else "overflows"
    if overflow.operation == "division":
        does = "divides by 0 or nearly 0"
    span = f"from values of {overflow.low:.2g} to {overflow.high:.2g}"
    return (
        f"{overflow.operation}{where} {does}: of {overflow.entries:,} entries {overflow.bad:,} are not"
        f" finite, {span}"
    )


def _overflow_remedy(overflow: Overflow) -> str:
    ways = {
        "exp": "Scale down or clamp its input",
        "log": "Add a small constant to its input, or use log_softmax, logsigmoid or log1p",
        "sqrt": "Add a small constant under the root, and check why its input can be negative",
        "rsqrt": "Add a small constant under the root",
        "division": "Add a small constant to the divisor",
    }
    if overflow.is_product:
        return "Initialise the weight again, or look for the code that set it"
    return ways.get(overflow.operation, "Scale down its input, or keep it in the domain of the operation")
