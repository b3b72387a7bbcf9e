"""Schemes that draw every weight independently, defined by a variance and a distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError
from torch import Generator, Tensor, nn

from initbench.components.activation import BoundActivation
from initbench.components.init_scheme import INITS, Fill, Scheme, kaiming_gain, unit_gain
from initbench.registry import Options

Variance = Callable[..., float]
DrawnDistribution = Literal["normal", "uniform", "truncated"]

TRUNCATED_STD = 0.8796256610342398
"""Standard deviation of N(0, 1) cut at ±2: √(1 − 4p(2)/(2Φ(2) − 1))."""


class NormalOptions(Options):
    """Options of normal."""

    std: float = Field(default=0.01, gt=0.0)
    """Standard deviation of every weight, independent of the layer's size."""


class UniformOptions(Options):
    """Options of uniform."""

    bound: float = Field(default=0.05, gt=0.0)
    """Largest absolute value of a weight, independent of the layer's size."""


class TruncatedOptions(Options):
    """Options of trunc_normal."""

    std: float = Field(default=0.02, gt=0.0)
    """Standard deviation of the weights, after truncation."""


class WeightsInitOptions(Options):
    """Options of weights_init."""

    names: list[str] = Field(default=["Conv", "Linear"], min_length=1)
    """Substrings of class names, case-sensitive: other layers keep torch's default init."""
    std: float = Field(default=0.02, gt=0.0)
    """Standard deviation of every weight that is drawn."""

    @field_validator("names")
    @classmethod
    def _say_something(cls, names: list[str]) -> list[str]:
        if "" in names:
            raise PydanticCustomError(
                "key_fault",
                "{problem}",
                {"problem": "has an empty name, which every class contains", "at": ""},
            )
        return names


class FanModeOptions(Options):
    """Options of the kaiming schemes."""

    mode: Literal["fan_in", "fan_out"] = "fan_in"
    """Fan that the variance is divided by: fan_in preserves the forward signal, fan_out the gradient."""


def draw(variance: Variance, distribution: DrawnDistribution) -> Fill:
    """Return a Fill that draws from a zero-mean `distribution` with the given variance."""

    def fill(
        weight: Tensor, *, fan_in: float, fan_out: float, gain: float, generator: Generator, **options: Any
    ) -> None:
        """Draw the weight in place, with the variance of the scheme."""
        std = math.sqrt(variance(fan_in=fan_in, fan_out=fan_out, gain=gain, **options))
        if distribution == "normal":
            weight.normal_(0.0, std, generator=generator)
        elif distribution == "truncated":
            uncut = std / TRUNCATED_STD
            nn.init.trunc_normal_(weight, 0.0, uncut, -2.0 * uncut, 2.0 * uncut, generator=generator)
        else:
            bound = math.sqrt(3.0) * std
            weight.uniform_(-bound, bound, generator=generator)

    return fill


def _register(
    name: str,
    variance: Variance,
    distribution: DrawnDistribution,
    *,
    formula: str,
    summary: str,
    source: str,
    default_gain: Callable[[BoundActivation], float] | None = None,
    options: type[Options] = Options,
    bias_std: Callable[[BoundActivation, float], float] | None = None,
    touches: Callable[..., bool] = lambda _class_name, **_: True,
    takes_torch_fans: bool = False,
    aliases: tuple[str, ...] = (),
    suggested_for: tuple[str, ...] = (),
) -> None:
    INITS.add(
        Scheme(
            name=name,
            summary=summary,
            formula=formula,
            source=source,
            options=options,
            fill=draw(variance, distribution),
            touches=touches,
            variance=variance,
            distribution=distribution,
            default_gain=default_gain,
            bias_std=bias_std,
            bias_distribution="uniform",
            takes_torch_fans=takes_torch_fans,
            aliases=aliases,
            suggested_for=suggested_for,
        )
    )


def _fixed(*, std: float, **_: Any) -> float:
    return std**2


def _within(*, bound: float, **_: Any) -> float:
    return bound**2 / 3.0


def _has_such_a_name(class_name: str, *, names: Sequence[str], **_: Any) -> bool:
    return any(name in class_name for name in names)


def _torch_default(*, fan_in: float, **_: Any) -> float:
    return 1.0 / (3.0 * fan_in)


def fan_in_variance(*, fan_in: float, gain: float, **_: Any) -> float:
    """Return gain²/fan_in."""
    return gain**2 / fan_in


def _xavier(*, fan_in: float, fan_out: float, gain: float, **_: Any) -> float:
    return 2.0 * gain**2 / (fan_in + fan_out)


def _kaiming(*, fan_in: float, fan_out: float, gain: float, mode: str, **_: Any) -> float:
    return gain**2 / (fan_in if mode == "fan_in" else fan_out)


def _misprint(*, fan_in: float, **_: Any) -> float:
    return 4.0 / fan_in


_register(
    "normal",
    _fixed,
    "normal",
    formula="W ~ N(0, std²)",
    summary="One standard deviation for every layer: right for one width only.",
    source="Krizhevsky et al. 2012 (std 0.01)",
    options=NormalOptions,
    aliases=("gaussian", "random_normal"),
    suggested_for=("random",),
)
_register(
    "uniform",
    _within,
    "uniform",
    formula="W ~ U(±bound), variance bound²/3",
    summary="One bound for every layer: right for one width only.",
    source="-",
    options=UniformOptions,
    aliases=("random_uniform",),
    suggested_for=("random",),
)
_register(
    "trunc_normal",
    _fixed,
    "truncated",
    formula="W ~ N(0, (std/0.87963)²) cut at two of its standard deviations, variance std²",
    summary="A normal without outliers, widened before the cut such that the weights have the given std.",
    source="-",
    options=TruncatedOptions,
    aliases=("truncated_normal",),
)
_register(
    "weights_init",
    _fixed,
    "normal",
    formula="W ~ N(0, std²), b = 0, if the layer's class name contains one of `names`",
    summary="The function for `net.apply(weights_init)`: layers it does not match keep torch's default init.",
    source="Radford, Metz and Chintala 2016 (std 0.02), the code of DCGAN",
    options=WeightsInitOptions,
    touches=_has_such_a_name,
)
_register(
    "torch_default",
    _torch_default,
    "uniform",
    formula="W, b ~ U(±1/√n), variance 1/(3n)",
    summary="Default init of nn.Linear and nn.Conv2d; it is not Kaiming, and shrinks the signal.",
    source="PyTorch, nn.Linear.reset_parameters",
    bias_std=lambda _activation, fan_in: 1.0 / math.sqrt(3.0 * fan_in),
    takes_torch_fans=True,
    aliases=("default", "pytorch", "torch", "pytorch_default"),
)
for _kind in ("normal", "uniform"):
    _register(
        f"lecun_{_kind}",
        fan_in_variance,
        _kind,
        formula="variance gain²/n",
        summary="Preserves the signal through linear units; the `randn/√n` often presented as Xavier.",
        source="LeCun et al. 1998",
        default_gain=unit_gain,
        suggested_for=("lecun", "variance_scaling"),
    )
    _register(
        f"xavier_{_kind}",
        _xavier,
        _kind,
        formula="variance 2·gain²/(n + m)",
        summary="A compromise between preserving signal and gradient of linear units.",
        source="Glorot & Bengio 2010",
        default_gain=unit_gain,
        aliases=(f"glorot_{_kind}",),
        suggested_for=("xavier", "glorot", "variance_scaling"),
    )
    _register(
        f"kaiming_{_kind}",
        _kaiming,
        _kind,
        formula="variance gain²/fan, gain √(2/(1 + a²))",
        summary="Compensates for the half that relu drops; the right choice for (leaky) relu.",
        source="He et al. 2015",
        default_gain=kaiming_gain,
        options=FanModeOptions,
        aliases=(f"he_{_kind}", f"msra_{_kind}"),
        suggested_for=("kaiming", "he", "msra", "variance_scaling"),
    )
_register(
    "kaiming_misprint",
    _misprint,
    "normal",
    formula="W = z·2/√n, variance 4/n",
    summary="The formula for Kaiming in a popular article: doubles the signal in each relu layer.",
    source="a misprint of He et al. 2015, kept to show the error",
)
