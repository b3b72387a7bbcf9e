"""Find the tensors in a module's output, whatever container holds them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from initbench.errors import UsageError

_MAIN = ("logits", "out")
"""Names of the outputs that are preferred for the loss."""
_DEEPEST = 8
"""Maximum nesting of containers."""


def real_outputs(output: Any) -> dict[str, Tensor]:
    """Return all floating-point tensors in a module's output by their path, main output first.

    The function searches tuples, lists, mappings, dataclasses and other objects with attributes. The main
    output is the one called `logits` or `out`, or else the first with a gradient. A complex tensor counts as
    its real and imaginary parts. A tensor that occurs twice is returned once.

    Raises:
        UsageError: If there is no such tensor.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in _tensors(output, "", 0):
        real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        if real.is_floating_point() and real.numel() and not any(real is other for other in tensors.values()):
            tensors[name] = real
    if not tensors:
        raise UsageError(f"the module returns {type(output).__name__} without a tensor of real numbers")
    has_gradient = any(tensor.requires_grad for tensor in tensors.values())
    names = sorted(
        tensors,
        key=lambda name: (
            name.rpartition(".")[2] not in _MAIN,
            has_gradient and not tensors[name].requires_grad,
        ),
    )
    return {name: tensors[name] for name in names}


def with_output(returned: Any, old: Tensor, new: Tensor, depth: int = 0) -> Any:
    """Return a copy of a returned value in which the tensor `old` is replaced by `new`."""
    if returned is old:
        return new
    if isinstance(returned, Tensor) or depth == _DEEPEST:
        return returned
    changed = {
        part: exchanged
        for part, item in _parts(returned)
        if (exchanged := with_output(item, old, new, depth + 1)) is not item
    }
    if not changed:
        return returned
    if isinstance(returned, tuple):
        items = [changed.get(part, item) for part, item in _parts(returned)]
        return type(returned)(*items) if hasattr(returned, "_fields") else type(returned)(items)
    twin: Any = copy.copy(returned)
    for part, exchanged in changed.items():
        if hasattr(twin, "__setitem__"):
            twin[part] = exchanged
        else:
            object.__setattr__(twin, str(part), exchanged)
    return twin


def _tensors(value: Any, name: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
        return
    if depth == _DEEPEST:
        return
    for part, item in _parts(value):
        yield from _tensors(item, f"{name}.{part}" if name else str(part), depth + 1)


def _parts(value: Any) -> Iterator[tuple[object, Any]]:
    """Yield the items of a container by name or position."""
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, tuple | list):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    elif isinstance(value, torch.distributions.Distribution):
        yield from (
            (name, getattr(value, name, None)) for name in value.arg_constraints if name in vars(value)
        )
    elif hasattr(value, "__dict__") and not isinstance(value, torch.nn.Module | type):
        yield from vars(value).items()
