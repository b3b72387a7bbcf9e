"""Questions about tensors, and the tensors among the arguments of a function."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor


def is_matrix(x: Tensor) -> bool:
    """Whether at least two axes have more than one entry."""
    return sum(size > 1 for size in x.shape) > 1


def is_wrapped(x: Tensor) -> bool:
    """Whether x is a wrapper of a `torch.func` transform, for one sample or a value with its derivative."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))


def varies_between_samples(x: Tensor) -> bool:
    """Whether x differs between samples, which lie along its first axis of more than one entry."""
    rows = x.detach()
    while rows.ndim > 2 and len(rows) == 1:
        rows = rows[0]
    return bool((rows != rows[:1]).any())


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among the values, also those in tuples and lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from tensors_in(value)
