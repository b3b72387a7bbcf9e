"""Model family of nets that a function of the user builds: `--model package.module:function`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from torch import nn

from initbench.components.activation import ACTIVATIONS, BoundActivation, bind
from initbench.components.norm import NORMS
from initbench.components.target import SampleShape
from initbench.errors import UsageError
from initbench.models.custom_network import CustomNetwork
from initbench.models.model_factory import ModelFactory, loaded_factory
from initbench.models.network import FAMILIES, Family, FamilyOptions
from initbench.models.shape_checks import raise_config_error
from initbench.registry import Options
from initbench.registry_choice import Choice

OptionValue = bool | int | float | str | None
_BY_DATA = ("input_shape", "classes", "vocabulary")
_BY_KEY = ("activation", "norm")


class CustomOptions(FamilyOptions):
    """A net that the function of `--model MODULE:FUNCTION` builds (docs/own_nets.md).

    The function gets `input_shape`, `classes` (the number of outputs, per position or pixel) and, for token
    ids, `vocabulary`; the activation and the norm layer if the config names them; and `options`. Each is
    passed by keyword if the function has an argument of that name.
    """

    options: dict[str, OptionValue | list[OptionValue]] = Field(default_factory=dict)
    """Keyword arguments of the function."""
    activation: Annotated[Options, Choice(ACTIVATIONS)] | None = None  # type: ignore[assignment]
    """Argument `activation` of the function: a callable that returns a module; null to pass none."""
    norm: Annotated[Options, Choice(NORMS)] | None = None  # type: ignore[assignment]
    """Argument `norm` of the function: a callable of a number of units; null to pass none."""

    @property
    def declared_activation(self) -> BoundActivation | None:
        """The activation that the function is given; None if it chooses one."""
        return None if self.activation is None else bind(self.activation)

    @property
    def declared_norm(self) -> Options | None:
        """The norm that the function is given; None if it chooses one."""
        return self.norm

    @model_validator(mode="after")
    def _leaves_the_layers_to_the_function(self) -> CustomOptions:
        entry = None if self.activation is None else ACTIVATIONS[self.activation.name]
        if entry is not None and not entry.elementwise:
            raise _issue("activation", f"{entry.name} mixes channels; use it inside the function of --model")
        if self.norm is not None and NORMS[self.norm.name].acts_on == "weights":
            raise _issue(
                "norm", f"{self.norm.name} norm acts on weights; use it inside the function of --model"
            )
        for key, default in (("bias", True), ("norm_placement", "before_activation")):
            if getattr(self, key) != default:
                raise _issue(key, "the function of --model decides it; remove the key")
        return self


def _issue(key: str, problem: str) -> PydanticCustomError:
    return PydanticCustomError("key_fault", "{problem}", {"problem": problem, "at": key})


def require_factory() -> ModelFactory:
    """Return the function of `--model`; raise ConfigError, which names the option, if there is none."""
    factory = loaded_factory()
    if factory is None:
        raise_config_error(
            "model.family",
            "custom is a net of your own: name the function that builds it with --model MODULE:FUNCTION",
        )
    return factory


def _build(options: CustomOptions, form: SampleShape) -> CustomNetwork:
    """Build the net on the CPU, even if the default device is another one."""
    factory = require_factory()
    with torch.device("cpu"):
        try:
            module = factory.build(_arguments(factory, options, form))
            return _wrap(factory, module, options, form)
        except UsageError as error:
            raise_config_error("model", str(error))


def _wrap(
    factory: ModelFactory,
    module: nn.Module,
    options: CustomOptions,
    form: SampleShape,
) -> CustomNetwork:
    try:
        return CustomNetwork(module, form, options.declared_activation)
    except UsageError as error:
        raise UsageError(f"--model {factory.path}: {error}") from error


def _arguments(factory: ModelFactory, options: CustomOptions, form: SampleShape) -> dict[str, Any]:
    """Return the arguments of the function; raise ConfigError for those that it does not take or lacks."""
    for name in options.options:
        if name in _BY_DATA:
            raise_config_error(f"model.options.{name}", "the data decide it; remove it")
        if name in _BY_KEY:
            raise_config_error(f"model.options.{name}", f"write model.{name}")
        if not factory.takes(name):
            raise_config_error(f"model.options.{name}", factory.unknown_option(name))
    arguments: dict[str, Any] = dict(options.options)
    shapes: dict[str, Any] = {"input_shape": form.shape, "classes": form.outputs}
    if form.vocabulary is not None:
        shapes["vocabulary"] = form.vocabulary
    arguments |= {name: value for name, value in shapes.items() if factory.names(name)}
    if options.activation is not None:
        arguments["activation"] = _argument(factory, "activation", _activation_maker(options.activation))
    if options.norm is not None:
        arguments["norm"] = _argument(factory, "norm", _norm_maker(options.norm))
    if missing := factory.missing(arguments):
        key = f"model.{missing[0]}" if missing[0] in _BY_KEY else f"model.options.{missing[0]}"
        raise_config_error(key, f"--model {factory.path} requires it")
    return arguments


def _argument(factory: ModelFactory, name: str, value: Any) -> Any:
    if not factory.names(name):
        raise_config_error(
            f"model.{name}", f"--model {factory.path} has no argument {name!r}, so it decides; remove the key"
        )
    return value


def _activation_maker(options: Options) -> Callable[..., nn.Module]:
    def activation(units: int = 1) -> nn.Module:
        """Return a new module of the activation; `units` is for those that learn a number per unit."""
        return ACTIVATIONS[options.name].build(options, units)

    return activation


def _norm_maker(options: Options) -> Callable[[int], nn.Module]:
    def norm(units: int) -> nn.Module:
        """Return a new norm layer for inputs (B, units) or (B, units, H, W); an identity for `none`."""
        entry = NORMS[options.name]
        problem = entry.problem((units,), options)
        if problem is not None:
            raise_config_error(f"model.norm.{problem[0]}".rstrip("."), f"{problem[1]} ({units} units)")
        return entry.build(units, options) or nn.Identity()

    return norm


FAMILIES.add(
    Family(
        name="custom",
        summary="A net of your own, which the function of --model builds; trained singly.",
        source="-",
        formula="as in your code",
        chosen_by="--model MODULE:FUNCTION",
        options=CustomOptions,
        build=_build,
        mode=lambda _options, *_sizes: "single",
        stacks_on_gpu=False,
        has_layer_order=False,
        takes_positions=True,
    )
)
