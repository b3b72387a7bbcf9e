"""Draw the weights of a net by an init scheme, each parameter from a stream of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from initbench.choice import Choice, default_choice
from initbench.components.activation import BoundActivation
from initbench.components.scheme import INITS, Scheme
from initbench.components.weight import assign_weight, weight_of
from initbench.models.network import Network, WeightLayer
from initbench.registry import Options, Section
from initbench.streams import generator

Gain = Annotated[float, Field(gt=0.0)] | Literal["auto"] | None


class InitOptions(Section):
    """How the weights start."""

    scheme: Annotated[Options, Choice(INITS)] = Field(
        default_factory=lambda: default_choice(INITS, "kaiming_normal")
    )
    """Init scheme of every weight layer: a name, or a mapping of name and options."""
    gain: Gain = None
    """Factor of the standard deviation: a number, `auto` for 1/√E[φ(z)²], or null for the scheme's own.

    The scheme's own typed in as a number gives the same weights under another run id."""
    bias: float | None = None
    """Value of every bias of a weight layer; null for the scheme's own: 0, but for torch_default."""
    head: Annotated[Options, Choice(INITS)] | None = None
    """Scheme of the last layer; null to follow `scheme`."""

    @model_validator(mode="after")
    def _gain_has_a_use(self) -> InitOptions:
        schemes = {"scheme": INITS[self.scheme.name]}
        if self.head is not None:
            schemes["head"] = INITS[self.head.name]
        if self.gain is None or any(scheme.default_gain is not None for scheme in schemes.values()):
            return self
        problem = " and ".join(
            f"init.{key}={scheme.name} has no gain (its formula is {scheme.formula})"
            for key, scheme in schemes.items()
        )
        raise PydanticCustomError("key_fault", "{problem}", {"problem": problem, "at": "gain"})


@dataclass(frozen=True)
class LayerRule:
    """What one weight layer is drawn from."""

    scheme: Scheme
    options: Options
    gain: float
    fan_in: int
    fan_out: int

    @property
    def arguments(self) -> dict[str, object]:
        """The scheme's own options as keywords."""
        return self.options.model_dump(exclude={"name"})

    @property
    def sigma_w2(self) -> float | None:
        """fan_in times the variance of one weight; None where weights are not independent draws."""
        if self.scheme.variance is None:
            return None
        variance = self.scheme.variance(
            fan_in=self.fan_in, fan_out=self.fan_out, gain=self.gain, **self.arguments
        )
        return self.fan_in * variance


def fans(weight: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight of shape (out, in, …): channels times the receptive field."""
    field = weight[0, 0].numel()
    return weight.shape[1] * field, weight.shape[0] * field


def layer_rule(layer: WeightLayer, options: InitOptions, activation: BoundActivation) -> LayerRule:
    """The scheme, gain and fans that `layer` is drawn from. The gain is for whichever has one."""
    chosen = options.head if layer.is_head and options.head is not None else options.scheme
    scheme = INITS[chosen.name]
    fan_in, fan_out = fans(weight_of(layer.module))
    return LayerRule(scheme, chosen, _gain(scheme, options.gain, activation), fan_in, fan_out)


def _gain(scheme: Scheme, asked: float | str | None, activation: BoundActivation) -> float:
    if scheme.default_gain is None:
        return 1.0
    if asked is None:
        return scheme.default_gain(activation)
    return activation.preserving_gain if asked == "auto" else float(asked)


@torch.no_grad()
def initialise(network: Network, options: InitOptions, *, seed: int, batch: Tensor) -> None:
    """Overwrite every weight and bias of the weight layers, in place, on the CPU.

    `batch` (B, …) is what schemes that measure (lsuv) see first. Norm layers keep their scale of 1
    and shift of 0. The draw of a parameter depends on (seed, its name, its shape) alone.
    """
    layers = network.weight_layers()
    for layer in layers:
        rule = layer_rule(layer, options, network.activation)
        weight = weight_of(layer.module).clone()
        rule.scheme.fill(
            weight,
            fan_in=rule.fan_in,
            fan_out=rule.fan_out,
            gain=rule.gain,
            generator=generator(seed, "init", f"{layer.name}.weight"),
            **rule.arguments,
        )
        assign_weight(layer.module, weight)
        _fill_bias(layer.module, options.bias, rule, generator(seed, "init", f"{layer.name}.bias"))
    _calibrate(network, layers, options, batch)


def _fill_bias(module: nn.Module, value: float | None, rule: LayerRule, stream: torch.Generator) -> None:
    bias = getattr(module, "bias", None)
    if not isinstance(bias, Tensor):
        return
    if value is not None:
        bias.fill_(value)
    elif rule.scheme.bias_bound is not None:
        bound = rule.scheme.bias_bound(rule.fan_in)
        bias.uniform_(-bound, bound, generator=stream)
    else:
        bias.zero_()


def _calibrate(network: Network, layers: list[WeightLayer], options: InitOptions, batch: Tensor) -> None:
    """Let schemes that measure see the batch, from the input on: the body's first, then the head's own."""
    parts = [(options.scheme, layers)]
    if options.head is not None:
        parts = [(options.scheme, layers[:-1]), (options.head, layers[-1:])]
    for chosen, part in parts:
        calibrate = INITS[chosen.name].calibrate
        if calibrate is not None:
            modules = [layer.module for layer in part]
            calibrate(network, modules, batch, **chosen.model_dump(exclude={"name"}))
