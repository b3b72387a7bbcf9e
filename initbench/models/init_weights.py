"""Initialise the weights of a net by an init scheme, with a separate random stream for each parameter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from torch import Generator, Tensor, nn

from initbench.components.activation import BoundActivation
from initbench.components.fans import fans, kernels, shape_of, torch_fans
from initbench.components.init_scheme import INITS, Scheme, SchemeContext, SchemeRequirement
from initbench.components.inits.autoencoder_scheme import AutoencoderOptions
from initbench.components.parametrized_weight import assign_weight, weight_of
from initbench.errors import ConfigError, ConfigIssue, UsageError
from initbench.models.network import Network, WeightLayer, check_line
from initbench.registry import Options, Section
from initbench.registry_choice import Choice, default_choice
from initbench.rng import stream_generator

Gain = Annotated[float, Field(gt=0.0)] | Literal["auto"] | None


class InitOptions(Section):
    """Initialisation of weights and biases."""

    scheme: Annotated[Options, Choice(INITS)] = Field(
        default_factory=lambda: default_choice(INITS, "kaiming_normal")
    )
    """Init scheme of every weight layer: a name, or a mapping of name and options."""
    gain: Gain = None
    """Factor of the standard deviation: a number, `auto` for 1/√E[φ(z)²], or null for the scheme's default.

    Writing the scheme's default as a number gives the same weights, but another run id."""
    bias: float | None = None
    """Value of every bias of a weight layer; null for the scheme's default: 0 except for torch_default."""
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

    def misfits(self, setting: SchemeContext | None) -> Iterator[tuple[str, str]]:
        """Yield (key, message) for each scheme that cannot be used in a net with these settings, if known."""
        for key, scheme_options in (("init.scheme", self.scheme), ("init.head", self.head)):
            if scheme_options is not None and setting is not None:
                problem = INITS[scheme_options.name].problem(
                    f"{key}={scheme_options.name}", replace(setting, options=scheme_options)
                )
                if problem is not None:
                    yield key, problem
        if self.bias is not None and INITS[self.scheme.name].measures_bias:
            reason = f"init.scheme={self.scheme.name} sets every bias from the first batch"
            yield "init.bias", f"init.bias={self.bias:g} has no effect: {reason}"
        if self.head is not None and INITS[self.head.name].needs is SchemeRequirement.MODEL_EDIT:
            yield "init.head", f"init.head={self.head.name} edits residual branches, which a head has none of"
        if self.head is not None and INITS[self.head.name].needs is SchemeRequirement.STORED_RUN:
            yield "init.head", f"init.head={self.head.name} is for whole nets: use init.scheme"
        if self.head is not None and INITS[self.head.name].needs is SchemeRequirement.TRAINING:
            yield "init.head", f"init.head={self.head.name} is for hidden layers: it trains nothing in a head"


def init_options(
    caller: str, scheme: str, options: dict[str, Any], gain: float | str | None, bias: float | None
) -> InitOptions:
    """Return the `init` section of a config, given as arguments of the function `caller`.

    Raises:
        UsageError: If the arguments are invalid; names `caller`.
    """
    entry = INITS[scheme]  # for an unknown name, the error suggests similar ones
    if entry.needs is SchemeRequirement.STORED_RUN:
        raise UsageError(
            f"{caller}: {entry.name} is for a config's nets; into a module of your own, load weights with"
            " torch's load_state_dict"
        )
    if "name" in options:
        raise UsageError("the scheme's name is the argument `scheme`")
    try:
        return InitOptions.model_validate(
            {"scheme": {"name": entry.name, **options}, "gain": gain, "bias": bias}
        )
    except ValidationError as error:
        message = "; ".join(
            ": ".join([*(str(part) for part in issue["loc"][-1:]), issue["msg"]]) for issue in error.errors()
        )
        raise UsageError(f"{caller}: {message}") from None


@dataclass(frozen=True)
class LayerRule:
    """Distribution from which one weight layer is drawn: scheme, options, gain and fans."""

    scheme: Scheme
    options: Options
    gain: float
    fan_in: float
    fan_out: float
    activation: BoundActivation
    first: bool
    """Whether this is the first layer, whose input comes from no activation."""
    scheme_fans: tuple[float, float]
    """(fan_in, fan_out) as the scheme counts them; `torch_fans` for schemes that reproduce torch."""

    @property
    def arguments(self) -> dict[str, object]:
        """Options of the scheme as keyword arguments."""
        return self.options.model_dump(exclude={"name"})

    @property
    def sigma_w2(self) -> float | None:
        """fan_in times the variance of one weight; None if weights are not drawn independently."""
        if self.scheme.variance is None:
            return None
        fan_in, fan_out = self.scheme_fans
        variance = self.scheme.variance(fan_in=fan_in, fan_out=fan_out, gain=self.gain, **self.arguments)
        return self.fan_in * variance

    @property
    def bias_std(self) -> float:
        """Standard deviation of the biases under the scheme."""
        std = self.scheme.bias_std
        return 0.0 if std is None else std(self.activation, self.scheme_fans[0])

    @property
    def keeps_weights(self) -> bool:
        """Whether the layer keeps the weight and the bias that it was constructed with."""
        return self.scheme.needs is SchemeRequirement.CONSTRUCTION

    def problem(self, module: nn.Module) -> str | None:
        """Return why the weight of `module` cannot be filled, or None if it can."""
        if self.first and self.scheme.first_fill:
            return None
        kernel = kernels(module, torch.empty(shape_of(module), device="meta"))[0]
        return self.scheme.unfillable(kernel.shape)

    def fill(self, module: nn.Module, weight: Tensor, stream: Generator) -> None:
        """Overwrite `weight`, which has the shape of the weight of `module`.

        `problem(module)` must be None.
        """
        fill = self.scheme.first_fill if self.first and self.scheme.first_fill else self.scheme.fill
        fan_in, fan_out = self.scheme_fans
        for kernel in kernels(module, weight):
            fill(
                kernel,
                fan_in=fan_in,
                fan_out=fan_out,
                gain=self.gain,
                generator=stream,
                **self.arguments,
            )

    def fill_bias(self, bias: Tensor, stream: Generator) -> None:
        """Overwrite `bias` with values drawn by the scheme."""
        if self.scheme.bias_distribution == "uniform":
            bound = math.sqrt(3.0) * self.bias_std
            bias.uniform_(-bound, bound, generator=stream)
        else:
            bias.normal_(0.0, self.bias_std, generator=stream)


def rule_for_layer(layer: WeightLayer, options: InitOptions, activation: BoundActivation) -> LayerRule:
    """Return the rule by which `layer` is drawn; a gain in the options is ignored by schemes without one."""
    scheme_options = options.head if layer.is_head and options.head is not None else options.scheme
    return rule_for_module(layer.module, scheme_options, options.gain, activation, layer.index)


def rule_for_module(
    module: nn.Module, scheme_options: Options, gain: Gain, activation: BoundActivation, index: int
) -> LayerRule:
    """Return the rule of weight layer number `index` (from 1) for the given scheme.

    Layers that the scheme does not draw get the rule of torch_default.
    """
    if not applies_to(module, scheme_options):
        scheme_options = default_choice(INITS, "torch_default")
    counted = torch_fans(module) if INITS[scheme_options.name].takes_torch_fans else fans(module)
    return rule_for_fans(scheme_options, gain, fans(module), activation, index, counted)


def applies_to(module: nn.Module, scheme_options: Options) -> bool:
    """Return whether the scheme draws layers of this class; others keep torch's default init."""
    return INITS[scheme_options.name].touches(
        type(module).__name__, **scheme_options.model_dump(exclude={"name"})
    )


def rule_for_fans(
    scheme_options: Options,
    gain: Gain,
    both_fans: tuple[float, float],
    activation: BoundActivation,
    index: int,
    scheme_fans: tuple[float, float] | None = None,
) -> LayerRule:
    """Return the rule of a layer with the given (fan_in, fan_out).

    `scheme_fans` are the fans as the scheme counts them; by default `both_fans`.
    """
    scheme = INITS[scheme_options.name]
    used = _gain(scheme, gain, activation, index)
    counted = scheme_fans or both_fans
    return LayerRule(
        scheme, scheme_options, used, *both_fans, activation, first=index == 1, scheme_fans=counted
    )


def _gain(scheme: Scheme, asked: Gain, activation: BoundActivation, index: int) -> float:
    if scheme.layer_gain is not None:
        return scheme.layer_gain(activation, index)
    if scheme.default_gain is None:
        return 1.0
    if asked is None:
        return scheme.default_gain(activation)
    return activation.preserving_gain if asked == "auto" else float(asked)


@torch.no_grad()
def initialise(network: Network, options: InitOptions, *, seed: int, batch: Tensor) -> None:
    """Overwrite every weight and bias of the weight layers, in place, on the CPU.

    Schemes that measure activations (such as lsuv) use `batch` (B, …). Norm layers keep their scale of 1 and
    shift of 0. The values of a parameter depend on the seed, its name and its shape only. The net must have
    passed `check_init`.
    """
    layers = network.weight_layers()
    for layer in layers:
        rule = rule_for_layer(layer, options, network.activation)
        if not rule.keeps_weights:
            weight = torch.empty_like(weight_of(layer.module))
            rule.fill(layer.module, weight, stream_generator(seed, "init", f"{layer.name}.weight"))
            assign_weight(layer.module, weight)
        _fill_bias(layer.module, options.bias, rule, stream_generator(seed, "init", f"{layer.name}.bias"))
    _edit(network, layers, options)
    _calibrate(network, layers, options, batch)


@torch.no_grad()
def check_init(network: Network, options: InitOptions) -> None:
    """Raise ConfigError, naming the keys, if the schemes cannot be used in this net.

    Only shapes are used, so `network` may be on the device "meta". It must not be used for anything else
    afterwards.
    """
    layers = network.weight_layers()
    for layer in layers:
        rule = rule_for_layer(layer, options, network.activation)
        problem = rule.problem(layer.module)
        if problem is not None:
            key = "init.head" if layer.is_head and options.head is not None else "init.scheme"
            where = f"(layer {layer.index}, {layer.name}, of model.family)"
            raise ConfigError([ConfigIssue("", key, f"{key}={rule.scheme.name} {problem} {where}")])
    try:
        if INITS[options.scheme.name].needs is SchemeRequirement.TRAINING:
            scheme_options = options.scheme
            contractive = (
                isinstance(scheme_options, AutoencoderOptions) and scheme_options.kind == "contractive"
            )
            check_line(network, dense=contractive)
        _edit(network, layers, options)
    except ValueError as reason:
        problem = f"init.scheme={options.scheme.name} {reason}"
        raise ConfigError([ConfigIssue("", "init.scheme", problem)]) from None


def _edit(network: Network, layers: Sequence[WeightLayer], options: InitOptions) -> None:
    """Apply the edit of a scheme that edits the model; raise ValueError, with a reason, if it cannot."""
    edit = INITS[options.scheme.name].edit
    if edit is None:
        return
    branches = network.branches()
    if not branches:
        raise ValueError("edits residual branches, and this model.family has none")
    head = layers[-1].module if options.head is None else None
    edit(branches, head, **options.scheme.model_dump(exclude={"name"}))


def _fill_bias(module: nn.Module, value: float | None, rule: LayerRule, stream: Generator) -> None:
    bias = getattr(module, "bias", None)
    if not isinstance(bias, Tensor):
        return
    if value is not None:
        bias.fill_(value)
    elif not rule.keeps_weights:
        rule.fill_bias(bias, stream)


def _calibrate(network: Network, layers: list[WeightLayer], options: InitOptions, batch: Tensor) -> None:
    """Calibrate schemes that measure activations on the batch: first all hidden layers, then the head."""
    parts = [(options.scheme, layers)]
    if options.head is not None:
        parts = [(options.scheme, layers[:-1]), (options.head, layers[-1:])]
    for scheme_options, part in parts:
        calibrate = INITS[scheme_options.name].calibrate
        if calibrate is not None:
            modules = [layer.module for layer in part]
            calibrate(network, modules, batch, **scheme_options.model_dump(exclude={"name"}))
