"""The weights of an nn.Module that an init scheme draws, with functions that read and write them.

`apply_init` sets these weights, and `lint` compares them with a declared scheme.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.weight_norm import WeightNorm

from initbench.components.activation import BoundActivation
from initbench.components.fans import Convolution, Transposed
from initbench.components.init_scheme import INITS, SchemeContext
from initbench.components.parametrized_weight import assign_weight, parametrization_of, weight_of
from initbench.models.computed_weights import (
    hook_of,
    is_scale_taken,
    settle,
    weight_from_hook,
)
from initbench.models.init_weights import InitOptions, LayerRule, applies_to, rule_for_module
from initbench.registry import Options

_ROWS = "qkv"


@dataclass(frozen=True)
class InitTarget:
    """One matrix or kernel to draw, with functions that read and write it."""

    name: str
    layer: nn.Module
    """The layer or, for one projection of an attention, a linear layer with the projection's shape."""
    bias_name: str
    bias: Tensor | None
    stored: tuple[Tensor, ...]
    """The parameters that hold the weight."""
    read: Callable[[], Tensor]
    """Return the weight that the layer multiplies by."""
    write: Callable[[Tensor], None]
    note: str = ""
    calibrated: bool = True
    """Whether the layer is called as a module, so that schemes can measure its output."""
    is_scale_taken: bool = False
    """Whether the weight does not depend on the scale of the written tensor, as under spectral norm."""

    @property
    def layer_name(self) -> str:
        """Name of the layer in a traced pass: without `.weight`, and without the index of a projection."""
        return self.name.partition("[")[0].removesuffix(".weight")


def init_targets(module: nn.Module, scheme: Options) -> list[InitTarget]:
    """Return the weights that the scheme draws, in the order of the modules, each tensor once.

    Raises:
        UsageError: If a weight is computed from other tensors and cannot be set.
    """
    return [target for target in _distinct(_all_targets(module)) if applies_to(target.layer, scheme)]


def scheme_problem(
    targets: Sequence[InitTarget], init: InitOptions, activation: BoundActivation
) -> str | None:
    """Return why the scheme does not support layers with this activation, or None if it does."""
    entry, biased = INITS[init.scheme.name], all(target.bias is not None for target in targets)
    return entry.problem(f"scheme={entry.name}", SchemeContext(activation=activation, norm="", bias=biased))


def init_rules(
    targets: Sequence[InitTarget], init: InitOptions, activation: BoundActivation, start: int = 1
) -> list[LayerRule]:
    """Return the rule by which each target is drawn; the scheme must support all targets.

    `start` is the index of the first target among all weights of the net, from 1.

    `activation` is the activation of the net. Layers that no activation follows, as in attention, at the end
    of a residual branch or at the head, are drawn like all others.
    """
    return [
        rule_for_module(target.layer, init.scheme, init.gain, activation, index)
        for index, target in enumerate(targets, start)
    ]


def _all_targets(module: nn.Module) -> Iterator[InitTarget]:
    inside_attention: set[nn.Module] = set()
    for name, layer in module.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(layer, nn.MultiheadAttention):
            yield from _attention(prefix, layer)
            inside_attention.add(layer.out_proj)
        elif isinstance(layer, nn.Linear | Convolution | Transposed):
            yield _layer(prefix, layer, calibrated=layer not in inside_attention)


def _layer(prefix: str, layer: nn.Module, *, calibrated: bool) -> InitTarget:
    parametrization, hook = parametrization_of(layer), hook_of(layer)
    note, has_lost_scale = "", False
    read: Callable[[], Tensor]
    write: Callable[[Tensor], None]
    if hook is not None:
        read, write = weight_from_hook(layer, hook)
        stored = tuple(
            layer._parameters[name]
            for name in ("weight_v", "weight_g", "weight_orig")
            if layer._parameters.get(name) is not None
        )
        is_norm = isinstance(hook, WeightNorm)
        note = "through weight norm" if is_norm else "through weight_orig, of spectral norm or pruning"
    elif parametrization is not None:
        stored, note = tuple(parametrization.parameters()), "through its parametrization"

        def read() -> Tensor:
            return weight_of(layer)

        def write(weight: Tensor) -> None:
            assign_weight(layer, weight)
            settle(layer)

    else:
        stored = (layer.get_parameter("weight"),)
        read, write = _access(stored[0])
    if note:
        has_lost_scale = is_scale_taken(layer, f"{prefix}weight", read, write)
    if has_lost_scale:
        note += ", which takes the scale away"
    bias = cast("Tensor | None", layer.bias)
    return InitTarget(
        f"{prefix}weight",
        layer,
        f"{prefix}bias",
        bias,
        cast("tuple[Tensor, ...]", stored),
        read,
        write,
        note,
        calibrated,
        has_lost_scale,
    )


def _attention(prefix: str, layer: nn.MultiheadAttention) -> Iterator[InitTarget]:
    """Yield targets for query, key and value, which torch stores in one matrix if their sizes agree."""
    packed = layer.in_proj_weight
    for i, letter in enumerate(_ROWS):
        rows = slice(i * layer.embed_dim, (i + 1) * layer.embed_dim)
        stored = packed if packed is not None else layer.get_parameter(f"{letter}_proj_weight")
        block = packed[rows] if packed is not None else stored
        bias = layer.in_proj_bias
        yield InitTarget(
            f"{prefix}in_proj_weight[{letter}]" if packed is not None else f"{prefix}{letter}_proj_weight",
            nn.Linear(block.shape[1], block.shape[0], bias=False, device="meta"),
            f"{prefix}in_proj_bias[{letter}]",
            bias[rows] if bias is not None else None,
            (stored,) if bias is None else (stored, bias),
            *_access(block),
            calibrated=False,
        )


def _access(tensor: Tensor) -> tuple[Callable[[], Tensor], Callable[[Tensor], None]]:
    """Return functions that read and write a plain tensor."""

    def write(weight: Tensor) -> None:
        with torch.no_grad():
            tensor.copy_(weight)

    return lambda: tensor, write


def _distinct(targets: Iterator[InitTarget]) -> list[InitTarget]:
    """Return the targets without those that share their parameters with an earlier one (tied weights)."""
    visited: set[tuple[int, int]] = set()
    first = []
    for target in targets:
        key = (id(target.stored[0]), int(target.read().storage_offset()))  # parts of one matrix differ there
        if key not in visited:
            first.append(target)
        visited.add(key)
    return first


def by_traced_name(module: nn.Module, targets: Sequence[InitTarget]) -> dict[str, InitTarget]:
    """Return the targets by the names of layers in a traced pass; a tied weight also under its first name."""
    first_names = {id(parameter): name for name, parameter in module.named_parameters()}
    targets_by_name: dict[str, InitTarget] = {}
    for target in targets:
        first = first_names.get(id(target.stored[0]), "").partition(".parametrizations.")[0]
        for name in (target.layer_name, first.removesuffix("_orig").removesuffix(".weight")):
            targets_by_name.setdefault(name, target)
    return targets_by_name
