"""Activation between a module's layers, from a name, options and factors given in Python."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from torch import nn

from initbench.components.activation import ACTIVATIONS, BoundActivation
from initbench.components.init_scheme import INITS
from initbench.errors import UsageError
from initbench.registry_choice import options_model

_FACTORS = ("input_scale", "output_scale", "output_shift")
_LABEL = re.compile(r"([a-z_0-9]+)\(([-+.e0-9]+)\)", re.ASCII)
_OF_MODULES: dict[str, tuple[type[nn.Module], str, Callable[[Any], float]]] = {
    "leaky_relu": (nn.LeakyReLU, "negative_slope", lambda m: m.negative_slope),
    "elu": (nn.ELU, "alpha", lambda m: m.alpha),
    "celu": (nn.CELU, "alpha", lambda m: m.alpha),
    "softplus": (nn.Softplus, "beta", lambda m: m.beta),
    "prelu": (nn.PReLU, "init", lambda m: float(m.weight.detach().double().mean())),
}
"""By activation: torch's class, the name of our option, and a function that reads it from a module."""


def activation_of_net(
    caller: str,
    module: nn.Module,
    scheme: str,
    activation: str | Mapping[str, Any],
    options: Mapping[str, Any],
) -> tuple[BoundActivation, dict[str, Any]]:
    """Split `options` into those of the activation and those of the scheme.

    Options of the activation that are not given are read from the module, if all its activations of that kind
    agree. The factors `input_scale` a and `output_scale` c and the constant `output_shift` s give the
    activation c·φ(a·x) + s.

    Args:
        caller: Name of the function for error messages.
        module: The module.
        scheme: Name of the init scheme.
        activation: A name, `name(value)` for its first option, or a mapping of name and options.
        options: Options of the scheme and of the activation.

    Returns:
        The activation and the options of the scheme.

    Raises:
        UsageError: If the activation or an option is invalid.
    """
    name, values = _named(caller, activation)
    name = ACTIVATIONS[name].name  # an alias becomes the name
    entry = ACTIVATIONS[name]
    fields = [*(field for field in entry.options.model_fields if field != "name"), *_FACTORS]
    of_scheme = INITS[scheme].options.model_fields
    remaining = {}
    for key, value in options.items():
        if key not in fields or key in values:
            remaining[key] = value
        elif key in of_scheme and key != "name":
            raise UsageError(
                f"{caller}: {key} is an option of {scheme} and of {name}; give the activation's as"
                f' activation={{"name": "{name}", "{key}": {value!r}}}'
            )
        else:
            values[key] = value
    for key, value in _read_off(module, name).items():
        values.setdefault(key, value)
    return _bound(caller, name, values), remaining


def _named(caller: str, activation: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(activation, Mapping):
        values = dict(activation)
        name = values.pop("name", None)
        if not isinstance(name, str):
            raise UsageError(f'{caller}: a mapping for the activation has a name, as in {{"name": "relu"}}')
        return name, values
    label = _LABEL.fullmatch(activation)
    if label is None or label[1] not in ACTIVATIONS:
        return activation, {}
    fields = [field for field in ACTIVATIONS[label[1]].options.model_fields if field != "name"]
    if not fields:
        raise UsageError(f"{caller}: {label[1]} has no option, so {activation!r} says nothing")
    return label[1], {fields[0]: float(label[2])}


def _read_off(module: nn.Module, name: str) -> dict[str, float]:
    if name not in _OF_MODULES:
        return {}
    kind, option, read = _OF_MODULES[name]
    values = {float(read(part)) for part in module.modules() if isinstance(part, kind)}
    value = next(iter(values)) if len(values) == 1 else None
    usable = value is not None and math.isfinite(value) and _fits(name, option, value)
    return {option: value} if usable and value is not None else {}


def _fits(name: str, option: str, value: float) -> bool:
    try:
        options_model(ACTIVATIONS[name], "name")(**{option: value})
    except ValidationError:
        return False
    return True


def _bound(caller: str, name: str, values: dict[str, Any]) -> BoundActivation:
    factors = {key: values.pop(key) for key in _FACTORS if key in values}
    for key, value in factors.items():
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
            or value == 0
        ):
            raise UsageError(f"{caller}: {key} is a number other than 0; found {value!r}")
    numbers = {
        k: float(v) if isinstance(v, int) and not isinstance(v, bool) else v for k, v in values.items()
    }
    try:
        options = options_model(ACTIVATIONS[name], "name").model_validate(numbers)
    except ValidationError:
        try:
            options = options_model(ACTIVATIONS[name], "name").model_validate(values)
        except ValidationError as error:
            faults = [": ".join([*(str(p) for p in e["loc"][-1:]), e["msg"]]) for e in error.errors()]
            raise UsageError(f"{caller}: activation {name}: {'; '.join(faults)}") from None
    return ACTIVATIONS[name].bind(options).scaled(**factors)  # type: ignore[arg-type]
