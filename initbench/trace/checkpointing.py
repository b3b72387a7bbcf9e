"""Activation checkpointing that runs a part of the net again on the way back, where no tracer follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointFunction


@contextmanager
def without_recomputation() -> Iterator[None]:
    """Call what reentrant checkpoints wrap directly, with the same values and gradients.

    A reentrant checkpoint runs its part without gradient and once more on the way back, which
    `torch.autograd.grad` refuses. If its arguments need no gradient, its weights get none, and it runs
    without gradient here too.
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
