"""Schemes that draw every weight independently: a scheme is a variance and a distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field
from torch import Generator, Tensor

from initbench.components.activation import BoundActivation
from initbench.components.scheme import INITS, Fill, Scheme, kaiming_gain, unit_gain
from initbench.registry import Options

Variance = Callable[..., float]


class NormalOptions(Options):
    """Options of normal."""

    std: float = Field(default=0.01, gt=0.0)
    """Standard deviation of every weight, whatever the layer's size."""


class FanModeOptions(Options):
    """Options of the kaiming schemes."""

    mode: Literal["fan_in", "fan_out"] = "fan_in"
    """Which fan the variance is divided by: fan_in keeps the signal going forward, fan_out going back."""


def draw(variance: Variance, distribution: Literal["normal", "uniform"]) -> Fill:
    """A Fill that draws from a zero-mean `distribution` with the given variance."""

    def fill(
        weight: Tensor, *, fan_in: int, fan_out: int, gain: float, generator: Generator, **options: Any
    ) -> None:
        std = math.sqrt(variance(fan_in=fan_in, fan_out=fan_out, gain=gain, **options))
        if distribution == "normal":
            weight.normal_(0.0, std, generator=generator)
        else:
            bound = math.sqrt(3.0) * std
            weight.uniform_(-bound, bound, generator=generator)

    return fill


def _register(
    name: str,
    variance: Variance,
    distribution: Literal["normal", "uniform"],
    *,
    formula: str,
    summary: str,
    source: str,
    default_gain: Callable[[BoundActivation], float] | None = None,
    options: type[Options] = Options,
    bias_bound: Callable[[int], float] | None = None,
) -> None:
    INITS.add(
        Scheme(
            name=name,
            summary=summary,
            formula=formula,
            source=source,
            options=options,
            fill=draw(variance, distribution),
            variance=variance,
            default_gain=default_gain,
            bias_bound=bias_bound,
        )
    )


def _fixed(*, std: float, **_: Any) -> float:
    return std**2


def _torch_default(*, fan_in: int, **_: Any) -> float:
    return 1.0 / (3.0 * fan_in)


def _lecun(*, fan_in: int, gain: float, **_: Any) -> float:
    return gain**2 / fan_in


def _xavier(*, fan_in: int, fan_out: int, gain: float, **_: Any) -> float:
    return 2.0 * gain**2 / (fan_in + fan_out)


def _kaiming(*, fan_in: int, fan_out: int, gain: float, mode: str, **_: Any) -> float:
    return gain**2 / (fan_in if mode == "fan_in" else fan_out)


def _misprint(*, fan_in: int, **_: Any) -> float:
    return 4.0 / fan_in


_register(
    "normal",
    _fixed,
    "normal",
    formula="W ~ N(0, std²)",
    summary="One standard deviation for every layer: right for one width only.",
    source="Krizhevsky et al. 2012 (std 0.01)",
    options=NormalOptions,
)
_register(
    "torch_default",
    _torch_default,
    "uniform",
    formula="W, b ~ U(±1/√n), variance 1/(3n)",
    summary="What nn.Linear and nn.Conv2d do by themselves; it is not Kaiming, and shrinks the signal.",
    source="PyTorch, nn.Linear.reset_parameters",
    bias_bound=lambda fan_in: 1.0 / math.sqrt(fan_in),
)
for _kind in ("normal", "uniform"):
    _register(
        f"lecun_{_kind}",
        _lecun,
        _kind,
        formula="variance gain²/n",
        summary="Keeps the signal through linear units; the `randn/√n` often shown as Xavier.",
        source="LeCun et al. 1998",
        default_gain=unit_gain,
    )
    _register(
        f"xavier_{_kind}",
        _xavier,
        _kind,
        formula="variance 2·gain²/(n + m)",
        summary="A compromise between the forward and the backward signal of linear units.",
        source="Glorot & Bengio 2010",
        default_gain=unit_gain,
    )
    _register(
        f"kaiming_{_kind}",
        _kaiming,
        _kind,
        formula="variance gain²/fan, gain √(2/(1 + a²))",
        summary="Makes up for the half that relu drops; the right one for (leaky) relu.",
        source="He et al. 2015",
        default_gain=kaiming_gain,
        options=FanModeOptions,
    )
_register(
    "kaiming_misprint",
    _misprint,
    "normal",
    formula="W = z·2/√n, variance 4/n",
    summary="The formula a popular article prints for Kaiming: doubles the signal at each relu layer.",
    source="a misprint of He et al. 2015, kept to show the error",
)
