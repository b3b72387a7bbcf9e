"""Turn off activation checkpointing, whose recomputation in the backward pass a tracer cannot follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointFunction


@contextmanager
def without_recomputation() -> Iterator[None]:
    """Call the function of a reentrant checkpoint directly, with the same values and gradients.

    A reentrant checkpoint runs its function without gradient and again in the backward pass, which
    `torch.autograd.grad` does not support. If no argument requires a gradient, the weights inside get
    none, so the function also runs without gradient here.
    """
    inherited = "apply" not in vars(CheckpointFunction)
    original = CheckpointFunction.apply
    CheckpointFunction.apply = staticmethod(_called_directly)
    try:
        yield
    finally:
        if inherited:
            del CheckpointFunction.apply
        else:
            CheckpointFunction.apply = original


def _called_directly(function: Callable[..., Any], _preserve_random_state: bool, *arguments: Any) -> Any:
    lets_gradient_through = any(isinstance(x, Tensor) and x.requires_grad for x in arguments)
    with torch.set_grad_enabled(torch.is_grad_enabled() and lets_gradient_through):
        return function(*arguments)
