"""Findings about the input, non-finite weights and the initial loss, which no layer shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from initbench.probing.finding import DiagnosisCode, Finding
from initbench.probing.input_checks import (
    INPUT_CODES,
    BatchStatistics,
    alike_finding,
    batch_statistics,
    samples_differ,
    scale_finding,
)
from initbench.probing.nonfinite_causes import (
    NonFinite,
    broken_tensors_finding,
    non_finite_tensors,
    overflow_finding,
)
from initbench.trace.overflow import Overflow

EXCESS = 2.0
"""Nats above chance from which the initial loss is reported: the net is confident without reason."""
SCALE_FREE_NORMS = frozenset({"batch", "layer", "instance", "group", "rms"})
"""Norms that remove the scale of their input."""

CONDITION_CODES = (
    *INPUT_CODES,
    DiagnosisCode(
        name="head_scale",
        summary="The initial loss is far above chance: the net is confident without reason.",
        measure="loss before training minus the loss of equally likely classes (ln C)",
        threshold=EXCESS,
        limit=f"> {EXCESS:g} nats",
        cause="A head, or an embedding that is tied to it, with too large weights for its input.",
        cure="Initialise the head to 0 (init.head=zeros), or with several times smaller weights.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Conditions of an untrained net and its batch that the layers do not show."""

    samples: int
    alike: bool
    """Whether all samples of the batch are identical."""
    batch: BatchStatistics | None = None
    first_input: BatchStatistics | None = None
    """Statistics of the first weight layer's input; None if its scale does not matter or is unknown."""
    broken: tuple[NonFinite, ...] = ()
    overflow: Overflow | None = None
    largest_weight: float = 0.0
    """Largest absolute weight of the layer before the overflow."""
    loss: float | None = None
    chance: float | None = None
    """Loss if all classes are equally likely; None if unknown."""
    head: str = "the head"
    tied: bool = False
    """Whether the head shares its weight with an embedding."""

    @property
    def excess(self) -> float:
        """Initial loss minus chance in nats; 0 if either is unknown or the loss is not finite."""
        if self.loss is None or self.chance is None or not math.isfinite(self.loss):
            return 0.0
        return self.loss - self.chance


@dataclass(frozen=True)
class NetMeasurement:
    """Measurement of one untrained net."""

    layers: list[dict[str, Any]]
    conditions: Conditions

    def condition_findings(self) -> list[Finding]:
        """Return the findings about input, weights and loss."""
        indices = {layer["name"]: layer["index"] for layer in reversed(self.layers)}
        return list(condition_findings(self.conditions, indices))


def batch_conditions(x: Tensor, inputs: Mapping[str, Tensor] | None = None) -> Conditions:
    """Return the conditions of the batch x (B, …); `inputs` are all tensors by name, if there are several."""
    several = inputs if inputs is not None and len(inputs) > 1 else {}
    broken = non_finite_tensors(
        [(f"the input {name}", t) for name, t in several.items()] or [("the input", x)], "input"
    )
    of_samples = [t for t in several.values() if t.ndim and len(t) == len(x)] or [x]
    return Conditions(
        samples=len(x),
        alike=len(x) > 1 and not any(samples_differ(t) for t in of_samples),
        batch=batch_statistics(x),
        broken=tuple(broken),
    )


def broken_tensors(
    parameters: Iterable[tuple[str, Tensor]], buffers: Iterable[tuple[str, Tensor]]
) -> tuple[NonFinite, ...]:
    """Return the parameters and buffers that are not finite."""
    return (*non_finite_tensors(parameters, "weight"), *non_finite_tensors(buffers, "buffer"))


def condition_findings(conditions: Conditions, layers: Mapping[str, int]) -> Iterator[Finding]:
    """Yield the findings about input, weights and loss; `layers` has the indices of layers by name."""
    yield from broken_tensors_finding(conditions.broken, layers)
    if conditions.overflow is not None and not conditions.broken:
        yield from overflow_finding(conditions.overflow, layers, conditions.largest_weight)
    if conditions.alike:
        yield from alike_finding(conditions.samples)
    yield from scale_finding(conditions.batch, conditions.first_input)
    if conditions.excess > EXCESS:
        yield Finding("head_scale", None, conditions.excess, EXCESS, head_sentence(conditions), "init")


def head_sentence(conditions: Conditions) -> str:
    """Return the sentence about an initial loss above chance."""
    return (
        f"the initial loss is {conditions.loss:.3g}, far above the {conditions.chance:.3g} of equally likely"
        " classes: the logits are too large, and the first updates only correct that."
    )


def largest_entry(weight: Tensor | None) -> float:
    """Return the largest absolute value of a weight; 0 for None."""
    return 0.0 if weight is None else float(torch.nan_to_num(weight.detach().abs().double()).max())
