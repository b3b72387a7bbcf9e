"""Interface of all nets: an nn.Module that can list its weight layers; and the registry of model families."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from initbench.components.activation import ACTIVATIONS, BoundActivation, bind
from initbench.components.init_scheme import ResidualBranch
from initbench.components.norm import NORMS
from initbench.components.target import SampleShape
from initbench.registry import Options, Registry, RegistryEntry, Section
from initbench.registry_choice import Choice, default_choice

Mode = Literal["vmap", "single"]
"""`vmap`: the runs of a cohort are stacked into one step; `single`: every run trains alone."""


@dataclass(frozen=True)
class WeightLayer:
    """A weight layer and the activation that follows it, if there is one."""

    index: int
    """Position, starting at 1 after the input; the head is last."""
    name: str
    """Qualified name of the weight module."""
    module: nn.Module
    output: nn.Module
    """The module whose output is this layer's pre-activation: the norm layer that directly follows the weight
    module, if there is one, else the weight module. At the end of a residual branch, it is the branch's
    output before the addition."""
    activation: nn.Module | None
    """The activation that follows the pre-activation (at the end of a residual branch, after the addition);
    None for the head, and for layers without an activation (shortcuts, linear bottlenecks)."""
    is_head: bool = False
    """Whether the layer's pre-activations are the logits."""


def has_maps(layers: Sequence[WeightLayer]) -> bool:
    """Return whether any of the layers is a convolution."""
    return any(isinstance(layer.module, nn.Conv2d) for layer in layers)


class LayerSite(NamedTuple):
    """The modules around a weight layer; for the fields see `WeightLayer`."""

    module: nn.Module
    output: nn.Module
    activation: nn.Module | None


class HiddenStage(NamedTuple):
    """A hidden layer of a net without shortcuts."""

    preceding: nn.Module
    """Module between the layer below and this one: a pooling, or an identity."""
    layer: nn.Module
    """Weights, norm and activation."""


class Network(nn.Module, ABC):
    """A classifier whose forward maps (B, …) to logits (B, classes)."""

    activation: BoundActivation
    """The activation of the hidden layers."""
    plain: bool = True
    """Whether the input of every layer is exactly the activations of the layer before, as the recursion of
    mean-field theory assumes."""
    held: tuple[str, ...] = ()
    """Names of modules that stay in evaluation mode during training."""

    def train(self, mode: bool = True) -> Self:
        """Set the mode of every module that is not in `held`."""
        super().train(mode)
        for name in self.held:
            self.get_submodule(name).eval()
        return self

    @property
    def module(self) -> nn.Module:
        """The module that computes the logits; the net itself, except for a net of the user."""
        return self

    def logits(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return the logits (B, classes) of x (B, …) for these parameters and buffers.

        Norm layers in training mode write to the buffers.
        """
        return functional_call(self.module, dict(tensors), (x,))  # type: ignore[no-any-return]

    @abstractmethod
    def weight_layers(self) -> list[WeightLayer]:
        """Return the weight layers in the order they are computed; the head is last."""

    def _numbered(self, sites: Sequence[LayerSite]) -> list[WeightLayer]:
        """Return the sites as weight layers; the last one is the head."""
        names = {module: name for name, module in self.named_modules()}
        return [
            WeightLayer(index, names[site.module], *site, is_head=index == len(sites))
            for index, site in enumerate(sites, 1)
        ]

    def stages(self) -> Sequence[HiddenStage]:
        """Return the hidden layers in order, if each one's input is only the output of the one before.

        Returns an empty list for other nets, such as those with shortcuts.
        """
        return []

    def branches(self) -> Sequence[ResidualBranch]:
        """Return the residual branches in the order of the forward pass; none in a net without shortcuts."""
        return []


def check_line(network: Network, *, dense: bool) -> None:
    """Raise ValueError, with a reason, unless the net is a chain of at least one hidden layer.

    With `dense`, none of the layers may be a convolution.
    """
    if not network.stages():
        whole = len(network.weight_layers())
        reason = "is not a plain sequence of layers: choose mlp or cnn"
        if whole < 2:
            reason = "has no hidden layer at model.depth=1"
        raise ValueError(f"trains one hidden layer after the other, and this model.family {reason}")
    if dense and has_maps(network.weight_layers()):
        raise ValueError(
            "has a penalty for dense layers alone with kind=contractive: choose mlp, or kind=denoising"
        )


class FamilyOptions(Section):
    """Options that all families share."""

    family: str = ""
    """Name of the family."""
    activation: Annotated[Options, Choice(ACTIVATIONS)] = Field(
        default_factory=lambda: default_choice(ACTIVATIONS, "relu")
    )
    """Activation of the hidden layers: a name, or a mapping of name and options."""
    norm: Annotated[Options, Choice(NORMS)] = Field(default_factory=lambda: default_choice(NORMS, "none"))
    """Norm layer of the hidden layers: a name, or a mapping of name and options."""
    norm_placement: Literal["before_activation", "after_activation"] = "before_activation"
    """Position of the norm layer in a hidden layer."""
    bias: bool = True
    """Whether weight layers have a bias."""

    @property
    def declared_activation(self) -> BoundActivation | None:
        """The activation; None if the config does not decide it."""
        return bind(self.activation)

    @property
    def declared_norm(self) -> Options | None:
        """The norm; None if the config does not decide it."""
        return self.norm


@dataclass(frozen=True, kw_only=True)
class Family(RegistryEntry):
    """A model family.

    `build(options, form)` returns a Network with torch's default weights for samples of this form.
    `mode(options, batch_size, inputs, classes)` returns how runs train on a CPU: stacked, or one by one if
    stacking is slower or would change the last digits. `check(options, input_shape)` raises ConfigError,
    naming the keys, if the net cannot be built for samples of that shape.
    """

    build: Callable[[Any, SampleShape], Network]
    mode: Callable[[Any, int, int, int], Mode]
    stacks_on_gpu: bool = True
    """Whether runs are stacked on a GPU."""
    check: Callable[[Any, tuple[int, ...]], None] = lambda _options, _input_shape: None
    has_layer_order: bool = True
    """Whether each weight layer is a module with one input, whose lower layers are known."""
    takes_positions: bool = False
    """Whether nets may take token ids, and may have outputs for each position or pixel."""


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
"""Well-known names that are not supported; no similar name is suggested for them."""
FAMILIES: Registry[Family] = Registry(
    "model family", "initbench.models.families", absent=_ABSENT, group="families"
)
