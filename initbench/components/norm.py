"""What a norm layer states about itself: how it is built, over which axes it averages, what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from initbench.registry import Registry, RegistryEntry

ShapeIssue = tuple[str, str]
"""The option at fault, "" when it is the norm itself, and a sentence."""


def _as_it_is(layer: nn.Module, _options: Any) -> nn.Module:
    return layer


@dataclass(frozen=True, kw_only=True)
class Norm(RegistryEntry):
    """A norm layer: a module of its own on (N, C) and (N, C, H, W) alike, or a change to a weight layer.

    `build(num_features, options)` gives the module, or None where nothing is to be inserted.
    `wrap(layer, options)` gives the nn.Linear or nn.Conv2d that takes the place of `layer`: of the same
    class and with the same `weight` to assign, so that what an init writes is kept.
    `problem(shape, options)` says why it is no layer for samples of that shape, (C,) or (C, H, W),
    and `batch_problem(batch_size, options)` why not for batches of that size; None where nothing is wrong.
    """

    build: Callable[[int, Any], nn.Module | None] = lambda _features, _options: None
    wrap: Callable[[nn.Module, Any], nn.Module] = _as_it_is
    acts_on: Literal["activations", "weights"] = "activations"
    axes: tuple[str, ...]
    """Axes that share one statistic: of activations (N, C, H, W), or of weights (O, I, H, W).

    C/G is one group of channels, N/G one group of samples, C/n a window of channels."""
    min_batch: int = 1
    """The smallest batch it can be trained on."""
    problem: Callable[[tuple[int, ...], Any], ShapeIssue | None] = lambda _shape, _options: None
    batch_problem: Callable[[int, Any], ShapeIssue | None] = lambda _batch_size, _options: None
    scale_free: bool = False
    """Whether multiplying a weight by a number changes nothing that the layer computes."""
    rounds_alike: bool = True
    """Whether every entry is rounded alike, wherever it stands in memory: false for powers and tanh."""


NORMS: Registry[Norm] = Registry("norm", "initbench.components.norms", first="standard")
