"""Causes that no layer shows: the input, weights that are not finite, and the loss that the net starts at."""

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
"""Nats above chance from which a net starts out sure of what it cannot know."""
SCALE_FREE_NORMS = frozenset({"batch", "layer", "instance", "group", "rms"})
"""Norms that divide the scale of what they are given out."""

CONDITION_CODES = (
    *INPUT_CODES,
    DiagnosisCode(
        "head_scale",
        "The loss starts far above chance: the net is sure of what it cannot know.",
        "loss before training, less what it is where all classes are equally likely (ln C)",
        EXCESS,
        limit=f"> {EXCESS:g} nats",
        cause="A head, or an embedding that is tied to it, drawn too large for what it is given.",
        cure="Start the head at 0 (init.head=zeros), or draw it with a few times smaller weights.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What is known of an untrained net and its batch beside what its layers show."""

    samples: int
    alike: bool
    """Whether all samples of the batch are the same."""
    batch: BatchStatistics | None = None
    first_input: BatchStatistics | None = None
    """Of what the first weight layer is given; None where its scale does not matter, or is not known."""
    broken: tuple[NonFinite, ...] = ()
    overflow: Overflow | None = None
    largest_weight: float = 0.0
    """Of the layer that the overflow stands behind."""
    loss: float | None = None
    chance: float | None = None
    """The loss where all classes are equally likely; None where that is unknown."""
    head: str = "the head"
    tied: bool = False
    """Whether the head's weight is the table of an embedding as well."""

    @property
    def excess(self) -> float:
        """Nats by which the loss starts above chance; 0 where either is unknown or not finite."""
        if self.loss is None or self.chance is None or not math.isfinite(self.loss):
            return 0.0
        return self.loss - self.chance


@dataclass(frozen=True)
class NetMeasurement:
    """What a pass shows of one untrained net."""

    layers: list[dict[str, Any]]
    conditions: Conditions

    def condition_findings(self) -> list[Finding]:
        """Return what is wrong beside the layers."""
        indices = {layer["name"]: layer["index"] for layer in reversed(self.layers)}
        return list(condition_findings(self.conditions, indices))


def batch_conditions(x: Tensor, inputs: Mapping[str, Tensor] | None = None) -> Conditions:
    """Return the conditions that the batch x (B, …) alone shows; `inputs` by name, if there are several."""
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
    """Parameters and buffers that are not finite, by name."""
    return (*non_finite_tensors(parameters, "weight"), *non_finite_tensors(buffers, "buffer"))


def condition_findings(conditions: Conditions, layers: Mapping[str, int]) -> Iterator[Finding]:
    """What is wrong before any layer is looked at. layers: index of every weight layer by its name."""
    yield from broken_tensors_finding(conditions.broken, layers)
    if conditions.overflow is not None and not conditions.broken:
        yield from overflow_finding(conditions.overflow, layers, conditions.largest_weight)
    if conditions.alike:
        yield from alike_finding(conditions.samples)
    yield from scale_finding(conditions.batch, conditions.first_input)
    if conditions.excess > EXCESS:
        yield Finding("head_scale", None, conditions.excess, EXCESS, head_sentence(conditions), "init")


def head_sentence(conditions: Conditions) -> str:
    """How far the loss starts above chance."""
    return (
        f"the loss starts at {conditions.loss:.3g}, not near the {conditions.chance:.3g} of a guess among"
        " equal classes: the logits are too large, and the first updates only undo that."
    )


def largest_entry(weight: Tensor | None) -> float:
    """Largest absolute value of a weight; 0 where there is none."""
    return 0.0 if weight is None else float(torch.nan_to_num(weight.detach().abs().double()).max())
