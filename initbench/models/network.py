"""What a net is to the rest of initbench: an nn.Module that can list its weight layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from initbench.choice import Choice, default_choice
from initbench.components.activation import ACTIVATIONS, BoundActivation
from initbench.components.norm import NORMS
from initbench.components.scheme import Branch
from initbench.registry import Entry, Options, Registry, Section

Mode = Literal["vmap", "single"]
"""`vmap`: the runs of a cohort are stacked into one step; `single`: every run is a cohort of its own."""


@dataclass(frozen=True)
class WeightLayer:
    """One weight layer and the activation that follows it, if one does."""

    index: int
    """From 1 at the input; the head is the last."""
    name: str
    """Qualified name of the weight module."""
    module: nn.Module
    activation: nn.Module | None
    """The module whose input is this layer's pre-activation; None for the head, whose output it is."""


class Network(nn.Module, ABC):
    """A classifier whose forward maps (B, …) to logits (B, classes)."""

    activation: BoundActivation
    """The activation of the hidden layers."""

    @abstractmethod
    def weight_layers(self) -> list[WeightLayer]:
        """The weight layers in the order the signal meets them, head included."""

    def branches(self) -> Sequence[Branch]:
        """The residual branches in the order the signal meets them; none in a net without shortcuts."""
        return []


class FamilyOptions(Section):
    """Options that every family shares."""

    family: str = ""
    """Name of the family."""
    activation: Annotated[Options, Choice(ACTIVATIONS)] = Field(
        default_factory=lambda: default_choice(ACTIVATIONS, "relu")
    )
    """Activation of the hidden layers: a name, or a mapping of name and options."""
    norm: Annotated[Options, Choice(NORMS)] = Field(default_factory=lambda: default_choice(NORMS, "none"))
    """Norm layer of the hidden layers: a name, or a mapping of name and options."""
    norm_placement: Literal["before_activation", "after_activation"] = "before_activation"
    """Where the norm layer stands in a hidden layer."""
    bias: bool = True
    """Whether weight layers have a bias."""


@dataclass(frozen=True, kw_only=True)
class Family(Entry):
    """`build(options, input_shape, classes)` gives a Network with torch's default weights.

    `mode(options, batch_size)` says how its runs train on a CPU: stacked, or one by one where stacking
    does not pay or would change the last digits.
    """

    build: Callable[[Any, tuple[int, ...], int], Network]
    mode: Callable[[Any, int], Mode]


FAMILIES: Registry[Family] = Registry("model family", "initbench.models.families")
