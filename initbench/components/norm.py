"""Definition of a norm layer: how it is built, the axes that it averages over, and its requirements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from initbench.registry import Registry, RegistryEntry

ShapeIssue = tuple[str, str]
"""The invalid option, or "" if it is the norm itself, and a message."""


def _as_it_is(layer: nn.Module, _options: Any) -> nn.Module:
    return layer


@dataclass(frozen=True, kw_only=True)
class Norm(RegistryEntry):
    """A norm layer: a separate module for inputs (N, C) or (N, C, H, W), or a change to a weight layer.

    `build(num_features, options)` returns the module, or None if no module is inserted.
    `wrap(layer, options)` returns the nn.Linear or nn.Conv2d that replaces `layer`; it has the same class and
    an assignable `weight`, so that an init can write to it.
    `problem(shape, options)` returns why the norm is not defined for samples of shape (C,) or (C, H, W), and
    `batch_problem(batch_size, options)` why not for batches of that size; None if there is no problem.
    """

    build: Callable[[int, Any], nn.Module | None] = lambda _features, _options: None
    wrap: Callable[[nn.Module, Any], nn.Module] = _as_it_is
    acts_on: Literal["activations", "weights"] = "activations"
    axes: tuple[str, ...]
    """Axes over which a statistic is computed: of activations (N, C, H, W), or of weights (O, I, H, W).

    C/G is one group of channels, N/G one group of samples, C/n a window of channels."""
    min_batch: int = 1
    """Smallest batch size for training."""
    problem: Callable[[tuple[int, ...], Any], ShapeIssue | None] = lambda _shape, _options: None
    batch_problem: Callable[[int, Any], ShapeIssue | None] = lambda _batch_size, _options: None
    scale_free: bool = False
    """Whether the output of the layer is independent of the scale of its weight."""
    rounds_alike: bool = True
    """Whether the rounding of an entry is independent of its position in memory: not for powers and tanh."""


NORMS: Registry[Norm] = Registry("norm", "initbench.components.norms", first="standard", group="norms")
