"""Checks of init schemes; tolerances come from the sampling error.

Over N independent weights of variance v and kurtosis κ, the sample mean has the standard error √(v/N)
and the sample mean square v·√((κ−1)/N). Five of them leave a chance of 6e-7 per check, and seeds are fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from scipy.stats import kstest, truncnorm
from torch import Tensor, nn

from initbench.components.activation import bound
from initbench.components.fans import fans, torch_fans
from initbench.components.init_scheme import Scheme, SchemeRequirement
from initbench.models.init_weights import rule_for_module
from initbench.registry import Options
from initbench.testing.check import Check, check_of, default_options, expect_that

SIGMAS = 5.0
KURTOSIS = {"normal": 3.0, "uniform": 1.8, "truncated": 3.0 + float(truncnorm(-2, 2).stats("k"))}
"""E[w⁴]/E[w²]² of the distributions of weights."""
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "square": lambda: nn.Linear(256, 256),
    "wide": lambda: nn.Linear(128, 512),
    "tall": lambda: nn.Linear(512, 128),
    "conv": lambda: nn.Conv2d(32, 96, 3),
    "grouped": lambda: nn.Conv2d(64, 256, 3, groups=4),
    "depthwise": lambda: nn.Conv2d(512, 512, 5, groups=512),
    "transposed": lambda: nn.ConvTranspose2d(48, 96, 4, stride=2),
    "transposed in groups": lambda: nn.ConvTranspose2d(64, 128, 3, stride=2, groups=2),
    "strided": lambda: nn.Conv2d(64, 64, 3, stride=2),
    "kernel 1 × 7": lambda: nn.Conv2d(48, 96, (1, 7), stride=(1, 2)),
    "conv1d": lambda: nn.Conv1d(64, 96, 5),
}
_SHAPES = ((32, 48), (48, 32), (16, 8, 3, 3))
_GAIN = 1.7


def scheme_checks(scheme: Scheme) -> Iterator[Check]:
    """Yield the checks of an init scheme."""
    yield check_of("declares what it needs", check_requirement, scheme)
    if scheme.needs is SchemeRequirement.CONSTRUCTION:
        return  # it fills nothing
    for shape in _SHAPES:
        if scheme.unfillable(shape) is None:
            size = " × ".join(map(str, shape))
            yield check_of(f"fills {size} weights from its own generator alone", check_fill, scheme, shape)
    if scheme.variance is None:
        return
    for kind in LAYERS:
        yield check_of(f"mean and variance: {kind} layer", check_moments, scheme, kind)
    if scheme.distribution != "other":
        yield check_of("shape of the distribution", check_distribution, scheme)


def check_requirement(scheme: Scheme) -> None:
    """Check that the functions of a scheme fit its `needs`."""
    for field, requirement in (
        ("calibrate", SchemeRequirement.FIRST_BATCH),
        ("edit", SchemeRequirement.MODEL_EDIT),
    ):
        is_given, is_needed = getattr(scheme, field) is not None, scheme.needs is requirement
        expect_that(is_given == is_needed, f"{field} is given exactly if needs is {requirement.value}")
    both = scheme.default_gain is not None and scheme.layer_gain is not None
    expect_that(not both, "default_gain and layer_gain exclude each other")
    expect_that(
        (scheme.kurtosis is not None) == (scheme.distribution == "other"),
        "kurtosis is given exactly if distribution is other",
    )


def check_fill(scheme: Scheme, shape: Sequence[int]) -> None:
    """Check that all weights are overwritten with finite values that depend on the generator alone."""
    torch.manual_seed(1)
    global_state = torch.random.get_rng_state()
    first = draw_weight(scheme, shape, seed=7)
    expect_that(
        torch.equal(torch.random.get_rng_state(), global_state), "it advances torch's global generator"
    )
    expect_that(bool(first.isfinite().all()), "some weights are not finite, or are not filled")
    torch.manual_seed(2)
    again = draw_weight(scheme, shape, seed=7)
    expect_that(torch.equal(again, first), "equal seeds give different weights: use the argument `generator`")
    differ = not torch.equal(draw_weight(scheme, shape, seed=8), first)
    expect_that(
        differ == scheme.is_random,
        "other seeds give equal weights, but is_random is True"
        if scheme.is_random
        else "other seeds give other weights, but is_random is False",
    )


def check_moments(scheme: Scheme, kind: str) -> None:
    """Check mean 0 and the declared variance in a layer of LAYERS, for the default gain and another one."""
    layer = LAYERS[kind]()
    fan_in, fan_out = torch_fans(layer) if scheme.takes_torch_fans else fans(layer)
    for gain in (None, _GAIN) if scheme.default_gain is not None else (None,):
        weight = fill_layer(scheme, layer, gain=gain)
        variance = declared_variance(scheme, fan_in, fan_out, gain)
        words = f"with fan_in {fan_in:g}, fan_out {fan_out:g} and gain {gain or default_gain(scheme):g}"
        error = abs(float(weight.mean())) / math.sqrt(variance / weight.numel())
        expect_that(error < SIGMAS, f"the mean {float(weight.mean()):.3g} is not 0 {words}")
        expect_that(
            variance_deviation(weight, variance, weight_kurtosis(scheme)) < SIGMAS,
            f"the weights have the variance {float(weight.square().mean()):.4g}, not {variance:.4g} as"
            f" declared, {words}",
        )


def check_distribution(scheme: Scheme) -> None:
    """Check the declared distribution by Kolmogorov–Smirnov over 65,536 draws.

    At p = 1e-4 this distinguishes the normal, the uniform and the truncated normal distribution.
    """
    weight = draw_weight(scheme, (256, 256), seed=5)
    std = math.sqrt(declared_variance(scheme, 256, 256))
    uncut = std / truncnorm(-2, 2).std()
    candidates = {
        "uniform": ("uniform", (-math.sqrt(3) * std, 2 * math.sqrt(3) * std)),
        "normal": ("norm", (0, std)),
        "truncated": ("truncnorm", (-2, 2, 0, uncut)),
    }
    fitting = [
        kind
        for kind, (cdf, arguments) in candidates.items()
        if kstest(weight.flatten().numpy(), cdf, args=arguments).pvalue > 1e-4
    ]
    fitting_names = " and ".join(fitting) or "none of normal, uniform and truncated"
    expect_that(
        fitting == [scheme.distribution], f"the distribution is {fitting_names}, not {scheme.distribution}"
    )


def draw_weight(
    scheme: Scheme, shape: Sequence[int], *, gain: float | None = None, seed: int = 0, **options: Any
) -> Tensor:
    """Return a weight that `fill` has drawn, in float64; by default with the gain for relu."""
    field = math.prod(shape[2:])
    weight = torch.full(tuple(shape), math.nan)
    scheme.fill(
        weight,
        fan_in=shape[1] * field,
        fan_out=shape[0] * field,
        gain=gain or default_gain(scheme),
        generator=torch.Generator().manual_seed(seed),
        **_arguments(scheme, **options),
    )
    return weight.double()


def fill_layer(
    scheme: Scheme,
    layer: nn.Module,
    *,
    gain: float | None = None,
    activation: str = "relu",
    seed: int = 0,
    **options: Any,
) -> Tensor:
    """Return the weight of `layer`, in float64, as it is drawn for the second layer of a net."""
    rule = rule_for_module(layer, default_options(scheme, **options), gain, bound(activation), 2)
    weight = torch.full(layer.get_parameter("weight").shape, math.nan)
    rule.fill(layer, weight, torch.Generator().manual_seed(seed))
    return weight.double()


def default_gain(scheme: Scheme) -> float:
    """Return the gain of a scheme for relu if the config gives none; 1 for schemes without a gain."""
    if scheme.layer_gain is not None:
        return scheme.layer_gain(bound("relu"), 2)
    return scheme.default_gain(bound("relu")) if scheme.default_gain is not None else 1.0


def weight_kurtosis(scheme: Scheme) -> float:
    """Return E[w⁴]/E[w²]² of one weight."""
    return KURTOSIS[scheme.distribution] if scheme.kurtosis is None else scheme.kurtosis


def declared_variance(scheme: Scheme, fan_in: float, fan_out: float, gain: float | None = None) -> float:
    """Return the variance that a scheme declares, by default for its gain for relu."""
    assert scheme.variance is not None
    used = gain or default_gain(scheme)
    return scheme.variance(fan_in=fan_in, fan_out=fan_out, gain=used, **_arguments(scheme))


def variance_deviation(weight: Tensor, variance: float, kurtosis: float) -> float:
    """Return the deviation of the mean square from `variance`, in standard errors."""
    mean_square = float(weight.square().mean())
    return abs(mean_square / variance - 1) / math.sqrt((kurtosis - 1) / weight.numel())


def _arguments(scheme: Scheme, **options: Any) -> dict[str, Any]:
    scheme_options: Options = default_options(scheme, **options)
    return scheme_options.model_dump(exclude={"name"})
