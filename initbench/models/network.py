"""What a net is to the rest of initbench: an nn.Module that can list its weight layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field
from torch import nn

from initbench.components.activation import ACTIVATIONS, BoundActivation
from initbench.components.init_scheme import ResidualBranch
from initbench.components.norm import NORMS
from initbench.registry import Options, Registry, RegistryEntry, Section
from initbench.registry_choice import Choice, default_choice

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
    output: nn.Module
    """The module whose output is this layer's pre-activation: its norm layer, where one stands right
    behind it, or the weight module. Where a residual branch ends, that is what the branch adds."""
    activation: nn.Module | None
    """The activation that the pre-activation goes into next, after the addition where a residual branch
    ends; None for the head, and for layers that no activation follows (shortcuts, linear bottlenecks)."""
    is_head: bool = False
    """Whether its pre-activations are the logits."""


def has_maps(layers: Sequence[WeightLayer]) -> bool:
    """Whether any of them is a convolution."""
    return any(isinstance(layer.module, nn.Conv2d) for layer in layers)


class LayerSite(NamedTuple):
    """Where a weight layer stands in its net, by the modules themselves."""

    module: nn.Module
    output: nn.Module
    activation: nn.Module | None


class HiddenStage(NamedTuple):
    """A hidden layer of a net whose layers stand in one line, by the modules themselves."""

    preceding: nn.Module
    """What the layer's input goes through on its way from the layer below: a pooling, or nothing."""
    layer: nn.Module
    """Weights, norm and activation."""


class Network(nn.Module, ABC):
    """A classifier whose forward maps (B, …) to logits (B, classes)."""

    activation: BoundActivation
    """The activation of the hidden layers."""
    plain: bool = True
    """Whether every hidden layer sees the activations of the one before and nothing else, in between or
    beside them, so that the recursion of mean-field theory describes it."""
    held: tuple[str, ...] = ()
    """Names of modules that stay in evaluation mode while the net trains."""

    def train(self, mode: bool = True) -> Self:
        """Set the mode of every module that is not held."""
        super().train(mode)
        for name in self.held:
            self.get_submodule(name).eval()
        return self

    @abstractmethod
    def weight_layers(self) -> list[WeightLayer]:
        """The weight layers in the order they are computed, head included, which is the last."""

    def _numbered(self, sites: Sequence[LayerSite]) -> list[WeightLayer]:
        """The sites as weight layers, the last of which is the head."""
        names = {module: name for name, module in self.named_modules()}
        return [
            WeightLayer(index, names[site.module], *site, is_head=index == len(sites))
            for index, site in enumerate(sites, 1)
        ]

    def stages(self) -> Sequence[HiddenStage]:
        """The hidden layers, in the order of `weight_layers`, where each sees what the one before it puts
        out and nothing else; none in other nets."""
        return []

    def branches(self) -> Sequence[ResidualBranch]:
        """The residual branches in the order the signal meets them; none in a net without shortcuts."""
        return []


def check_line(network: Network, *, dense: bool) -> None:
    """Raise ValueError, with a reason, unless hidden layers stand in one line and there is one at least.

    `dense`: none of them may be a convolution.
    """
    if not network.stages():
        whole = len(network.weight_layers())
        reason = "has shortcuts or parts that are no layers: choose mlp or cnn"
        if whole < 2:
            reason = "has no hidden layer at model.depth=1"
        raise ValueError(f"trains one hidden layer after the other, and this model.family {reason}")
    if dense and has_maps(network.weight_layers()):
        raise ValueError(
            "has a penalty for dense layers alone with kind=contractive: choose mlp, or kind=denoising"
        )


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
class Family(RegistryEntry):
    """`build(options, input_shape, classes)` gives a Network with torch's default weights.

    `mode(options, batch_size, inputs, classes)` says how its runs train on a CPU: stacked, or one by one
    where stacking does not pay or would change the last digits; `check(options, input_shape)` raises
    ConfigError, naming the keys, where no such net can be built on samples of that shape.
    """

    build: Callable[[Any, tuple[int, ...], int], Network]
    mode: Callable[[Any, int, int, int], Mode]
    check: Callable[[Any, tuple[int, ...]], None] = lambda _options, _input_shape: None


_ABSENT = (
    "transformer",
    "vit",
    "gpt",
    "bert",
    "lstm",
    "gru",
    "rnn",
    "densenet",
    "unet",
    "efficientnet",
    "convnext",
    "autoencoder",
    "gan",
)
"""Well-known names that nothing here stands for, so that no near name is suggested."""
FAMILIES: Registry[Family] = Registry("model family", "initbench.models.families", absent=_ABSENT)
