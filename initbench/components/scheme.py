"""What an init scheme states about itself: its rule, its variance, what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from torch import Generator, Tensor

from initbench.components.activation import BoundActivation
from initbench.registry import Entry, Registry


class Needs(StrEnum):
    """What an init needs beside the weight tensor itself."""

    NONE = "none"
    FIRST_BATCH = "first_batch"
    MODEL_EDIT = "model_edit"
    OPTIMIZER = "optimizer"
    TRAINING = "training"
    STORED_RUN = "stored_run"


class Fill(Protocol):
    """Overwrite `weight` in place.

    weight: (fan_out, fan_in) or a convolution kernel; `gain` multiplies the standard deviation;
    random numbers come from `generator`, on the CPU. The scheme's options follow as keywords.
    """

    def __call__(
        self, weight: Tensor, *, fan_in: int, fan_out: int, gain: float, generator: Generator, **options: Any
    ) -> None:
        """Fill `weight`."""


@dataclass(frozen=True, kw_only=True)
class Scheme(Entry):
    """An init scheme.

    `variance(fan_in, fan_out, gain, **options)` is the variance of one weight, where the scheme
    draws them independently; it is what `fill` draws with and what theory predicts from.
    """

    fill: Fill
    variance: Callable[..., float] | None = None
    default_gain: Callable[[BoundActivation], float] | None = None
    """The gain when the config names none; None when the scheme has no gain."""
    bias_bound: Callable[[int], float] | None = None
    """Half-width of the uniform bias as a function of fan_in; None for a zero bias."""
    needs: Needs = Needs.NONE
    calibrate: Callable[..., None] | None = None
    """For `first_batch`: calibrate(network, weight_modules, batch, **options), after `fill`."""


INITS: Registry[Scheme] = Registry("init scheme", "initbench.components.inits")


def unit_gain(_activation: BoundActivation) -> float:
    """1, whatever the activation: the default of lecun, xavier and orthogonal."""
    return 1.0


def kaiming_gain(activation: BoundActivation) -> float:
    """√(2/(1+a²)), a being the leaky slope and 0 for everything else, as torch does."""
    return activation.kaiming_gain
