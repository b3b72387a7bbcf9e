"""Run a module and restore its exact state afterwards."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_CONTAINERS = (dict, OrderedDict, set, list)


@contextmanager
def preserve_state(module: nn.Module) -> Iterator[None]:
    """Restore, at the end, all state that a pass through `module` can change.

    This covers every attribute of every submodule: mode, hooks, counters, the contents of dicts, lists and
    sets (but not of containers nested in them), and the values of tensors that are neither parameters nor
    buffers. The random states of torch, NumPy and Python are restored as well. The caller protects the
    values of parameters and buffers by passing copies through `functional_call`.
    """
    undo: list[Callable[[], None]] = []
    empty: list[Any] = []  # most of the containers of a module are empty dicts of hooks
    for submodule in module.modules():
        attributes = vars(submodule)
        undo.append(_refill(attributes))
        empty += [value for value in attributes.values() if value.__class__ in _CONTAINERS and not value]
        undo += _undo_steps(attributes.values())
    with _random_states():
        try:
            yield
        finally:
            for step in undo:
                step()
            for container in empty:
                if container:
                    container.clear()


def _undo_steps(values: Iterable[Any]) -> Iterator[Callable[[], None]]:
    """Yield functions that restore values in place, because handles of hooks refer to the objects."""
    for value in values:
        if value.__class__ in _CONTAINERS and not value:
            continue
        if isinstance(value, dict | set):
            yield _refill(value)
        elif isinstance(value, list):
            yield _refill_list(value)
        elif isinstance(value, Tensor):
            yield _rewrite(value)


def _refill(container: dict[Any, Any] | set[Any]) -> Callable[[], None]:
    held = container.copy()

    def step() -> None:
        container.clear()
        container.update(held)

    return step


def _refill_list(items: list[Any]) -> Callable[[], None]:
    held = items.copy()

    def step() -> None:
        items[:] = held

    return step


def _rewrite(tensor: Tensor) -> Callable[[], None]:
    held = tensor.detach().clone()

    def step() -> None:
        if not torch.equal(tensor.detach(), held):
            tensor.detach().copy_(held)

    return step


@contextmanager
def _random_states() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
