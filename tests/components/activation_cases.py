"""Shared cases of the activation tests: every entry with its default options and with others."""

from __future__ import annotations

import torch
from torch import Tensor

from initbench.components.activation import ACTIVATIONS, BoundActivation, bind
from initbench.registry import Options
from initbench.registry_choice import options_model

NAMES = ACTIVATIONS.names()
ELEMENTWISE = [entry.name for entry in ACTIVATIONS if entry.elementwise]
MIXING = [entry.name for entry in ACTIVATIONS if not entry.elementwise]
CHANNELS = 12
"""A multiple of every number of pieces that is tried."""


def another(value: object) -> object:
    """Return a valid value of an option other than its default; floats are exact in float32."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else round(8 * (0.75 * value + 0.5)) / 8


def default(name: str) -> BoundActivation:
    return bind(options_model(ACTIVATIONS[name], "name")())


def variants(name: str) -> list[BoundActivation]:
    """Return the activation with its default options and, if it has options, with all of them changed."""
    entry = ACTIVATIONS[name]
    fields = entry.options.model_fields
    others = {key: another(field.default) for key, field in fields.items() if key not in Options.model_fields}
    changed = [bind(options_model(entry, "name")(**others))] if others else []
    assert not changed or changed[0].options != default(name).options
    return [default(name), *changed]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def slope_by_autograd(activation: BoundActivation, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(activation.phi(x).sum(), x)[0]
