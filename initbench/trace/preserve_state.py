"""Run a module and restore its exact state afterwards."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def preserve_state(module: nn.Module) -> Iterator[None]:
    """Restore, at the end, all state that a pass through `module` can change.

    This covers every attribute of every submodule: mode, hooks, counters, the contents of dicts, lists and
    sets (but not of containers nested in them), and the values of tensors that are neither parameters nor
    buffers. The random states of torch, NumPy and Python are restored as well. The caller protects the
    values of parameters and buffers by passing copies through `functional_call`.
    """
    undo = [step for submodule in module.modules() for step in _undo_steps(vars(submodule))]
    with _random_states():
        try:
            yield
        finally:
            for step in undo:
                step()


def _undo_steps(attributes: dict[str, Any]) -> Iterator[Callable[[], None]]:
    """Yield functions that restore the attributes in place, because handles of hooks refer to the objects."""
    yield _refill(attributes)
    for value in attributes.values():
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
