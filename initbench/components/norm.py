"""What a norm layer states about itself: how it is built, over which axes it averages, what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from initbench.registry import Entry, Registry


@dataclass(frozen=True, kw_only=True)
class Norm(Entry):
    """A norm layer.

    `build(num_features, options)` gives the module, or None where nothing is to be inserted.
    `axes` are the ones of (N, C, H, W) it averages over; `problem(shape, options)` says why it is
    no layer for samples of that shape, (C,) or (C, H, W): the option at fault, "" when it is the
    norm itself, and a sentence; None where nothing is wrong.
    """

    build: Callable[[int, Any], nn.Module | None]
    axes: tuple[str, ...]
    min_batch: int = 1
    """The smallest batch it can be trained on."""
    problem: Callable[[tuple[int, ...], Any], tuple[str, str] | None] = lambda _shape, _options: None
    wrap: Callable[[nn.Module, Any], nn.Module] = lambda layer, _: layer
    """(weight layer, options) → the weight layer to use instead: for norms of the weight itself."""


NORMS: Registry[Norm] = Registry("norm", "initbench.components.norms")
