"""What an activation states about itself: φ as a module, φ′, its kinks, its natural range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from initbench.choice import options_model
from initbench.registry import Entry, Options, Registry
from initbench.theory import meanfield


@dataclass(frozen=True, kw_only=True)
class Activation(Entry):
    """An elementwise activation.

    `build(options)` gives φ as a module; `derivative(options, x)` gives φ′(x), 0 at a kink where
    autograd gives 0.
    """

    build: Callable[[Any], nn.Module]
    derivative: Callable[[Any, Tensor], Tensor]
    kinks: tuple[float, ...] = ()
    bounded: bool = False
    """Bounded above and below, so that saturation has a meaning."""
    histogram_range: tuple[float, float] = (-4.0, 4.0)
    """Where the outputs of a healthy layer lie; fixed, so that all runs share their bins."""
    rounds_alike: bool = False
    """Every entry of a tensor is rounded the same, wherever it lies in memory.

    torch computes most exponentials by another formula for the entries left over at the end of a
    tensor that do not fill the CPU's vectors.
    """
    negative_slope: Callable[[Any], float] = lambda _options: 0.0
    """The slope a that the kaiming gain √(2/(1+a²)) uses."""

    def bind(self, options: Options) -> BoundActivation:
        """φ and φ′ with `options` filled in."""
        return BoundActivation(self, options)


@dataclass(frozen=True)
class BoundActivation:
    """An activation with its options, as functions of a tensor."""

    entry: Activation
    options: Options

    @cached_property
    def phi(self) -> Callable[[Tensor], Tensor]:
        """φ, elementwise, in the precision of its argument."""
        return self.entry.build(self.options)

    def derivative(self, x: Tensor) -> Tensor:
        """φ′(x), elementwise."""
        return self.entry.derivative(self.options, x)

    @cached_property
    def preserving_gain(self) -> float:
        """1/√E[φ(z)²], computed."""
        return meanfield.preserving_gain(self.phi, self.entry.kinks)

    @cached_property
    def kaiming_gain(self) -> float:
        """√(2/(1+a²)), a being the negative slope (He et al. 2015)."""
        slope = self.entry.negative_slope(self.options)
        return float((2.0 / (1.0 + slope * slope)) ** 0.5)

    @cached_property
    def max_derivative(self) -> float:
        """max|φ′| over [−20, 20]."""
        grid = torch.linspace(-20.0, 20.0, 40_001, dtype=torch.float64)
        return float(self.derivative(grid).abs().max())


@lru_cache(maxsize=64)
def bind(options: Options) -> BoundActivation:
    """The bound activation that a config value (`options.name` and its options) stands for."""
    return ACTIVATIONS[options.name].bind(options)


def bound(name: str, **options: Any) -> BoundActivation:
    """The activation called `name`, with `options` or its defaults."""
    return bind(options_model(ACTIVATIONS[name], "name")(**options))


ACTIVATIONS: Registry[Activation] = Registry("activation", "initbench.components.activations")
