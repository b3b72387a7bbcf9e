"""Theory against nets: 200 of them, drawn and run in float64 by a loop that knows no theory."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize, one_hot

from initbench.components.activation import bound
from initbench.theory import propagation
from initbench.theory.bands import PredictedStatistic, q_band
from initbench.theory.expectations import Correlation, next_correlation
from initbench.theory.pair_expectations import difference, pair_expectations
from initbench.theory.preactivation import PreactivationDistribution
from initbench.theory.propagation import propagate
from initbench.theory.types import InputStatistics, TheoryLayer

NETS, WIDTH, DEPTH, SAMPLES, CLASSES = 200, 128, 8, 32, 10
PLACES = (1, 4, DEPTH - 2)
CASES = {
    "relu at its gain": ("relu", 2.0, 0.0),
    "relu too small": ("relu", 1.0, 0.0),
    "tanh at the edge of chaos": ("tanh", 1.0, 0.0),
    "tanh in chaos": ("tanh", 4.0, 0.0),
    "gelu that decays": ("gelu", 2.0, 0.0),
    "gelu that holds": ("gelu", 2.353, 0.0),
    "sigmoid": ("sigmoid", 1.0, 0.0),
    "linear": ("linear", 1.0, 0.0),
    "elu": ("elu", 1.55, 0.0),
    "torch's default": ("relu", 1 / 3, WIDTH**-0.5),
    "a wide uniform bias": ("tanh", 0.3, 2.5),
}
"""Activation, σ_w², half width of a uniform bias."""


def layers_of(name: str, sigma_w2: float, half_width: float) -> list[TheoryLayer]:
    hidden = TheoryLayer(
        WIDTH, WIDTH, WIDTH, sigma_w2, bias_half_width=half_width, activation=bound(name).nonlinearity
    )
    return [*[hidden] * (DEPTH - 1), replace(hidden, fan_out=CLASSES, units=CLASSES, activation=None)]


@cache
def inputs() -> torch.Tensor:
    return torch.randn(SAMPLES, WIDTH, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def source() -> InputStatistics:
    x = inputs()
    unit = normalize(x, dim=1)
    cosines = (unit @ unit.mT)[~torch.eye(SAMPLES, dtype=torch.bool)]
    squares = x.square().mean(1)
    spread = float(squares.var(correction=0) / squares.mean() ** 2)
    return InputStatistics(
        float(squares.mean()), float(cosines.mean()), SAMPLES, spread, float(cosines.var(correction=0))
    )


@cache
def measured(name: str, sigma_w2: float, half_width: float) -> list[dict[str, torch.Tensor]]:
    """Return, by layer and statistic, the values (NETS,) of all nets."""
    stream, activation = torch.Generator().manual_seed(1), bound(name)
    assert activation.nonlinearity is not None
    h, weights, pre = inputs().expand(NETS, SAMPLES, WIDTH), [], []
    for index in range(DEPTH):
        units = CLASSES if index == DEPTH - 1 else WIDTH
        weight = torch.randn(NETS, WIDTH, units, generator=stream, dtype=torch.float64)
        weights.append(weight * math.sqrt(sigma_w2 / WIDTH))
        bias = (2 * torch.rand(NETS, 1, units, generator=stream, dtype=torch.float64) - 1) * half_width
        h = (activation.phi(h) if index else h) @ weights[-1] + bias
        pre.append(h)
    labels = one_hot(torch.randint(CLASSES, (SAMPLES,), generator=stream), CLASSES)
    delta = torch.softmax(pre[-1], -1) - labels
    shown = []
    for index in reversed(range(DEPTH - 1)):
        above = delta.square().mean((1, 2))
        delta = (delta @ weights[index + 1].mT) * activation.derivative(pre[index])
        act = activation.phi(pre[index])
        shown.append(
            {
                "log_q": pre[index].square().mean((1, 2)).log(),
                "act_mean": act.mean((1, 2)),
                "act_std": act.flatten(1).std(1, correction=0),
                "grad_ratio": delta.square().mean((1, 2)) / above,
            }
        )
    return shown[::-1]


def z_and_spread(case: str, layers: list[TheoryLayer]) -> dict[tuple[int, str], tuple[float, float]]:
    """Return, by layer and statistic, the difference in standard errors, and measured/predicted sd."""
    predicted = propagate(layers, source())
    shown = measured(*CASES[case])
    found = {}
    for place in PLACES:
        if not predicted[place].trusted:
            continue
        for name, values in shown[place].items():
            if name == "grad_ratio" and not predicted[place].backward_trusted:
                continue
            said = predicted[place].statistics[name]
            z = float(values.mean() - said.value) / (said.sd / math.sqrt(NETS))
            found[place, name] = z, float(values.std()) / said.sd
    return found


MOST_Z = 6.0
"""4 standard errors, and two for the terms of second order in 1/width, as 200 nets of width 128 show them."""
SPREAD = (0.75, 1.25)
"""A standard deviation from 200 nets is uncertain by 5 %; log-normal tails and the next order add to that."""


@pytest.mark.parametrize("case", CASES)
def test_nets_do_what_theory_says(case: str) -> None:
    found = z_and_spread(case, layers_of(*CASES[case]))
    assert len(found) >= 3, "one layer at least is trusted"
    for (place, name), (z, spread) in found.items():
        assert abs(z) < MOST_Z, (place, name, z)
        assert SPREAD[0] < spread < SPREAD[1], (place, name, spread)


@pytest.mark.parametrize("case", CASES)
def test_a_neighbouring_scale_is_told_apart(case: str) -> None:
    name, sigma_w2, half_width = CASES[case]
    found = z_and_spread(case, layers_of(name, 1.15 * sigma_w2, half_width))
    assert max(abs(z) for z, _ in found.values()) > 2 * MOST_Z


def test_a_uniform_bias_is_not_a_gaussian_one() -> None:
    case = "a wide uniform bias"
    layers = [
        replace(layer, bias_half_width=0.0, bias_variance=layer.bias_half_width**2 / 3)
        for layer in layers_of(*CASES[case])
    ]
    assert max(abs(z) for z, _ in z_and_spread(case, layers).values()) > 2 * MOST_Z


def test_chance_correlations_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_chance(*arguments: Any) -> Correlation:
        return replace(next_correlation(*arguments), chance=0.0)

    monkeypatch.setattr(propagation, "next_correlation", without_chance)
    found = z_and_spread("linear", layers_of(*CASES["linear"]))
    assert max(spread for _, spread in found.values()) > 1.5


def test_one_net_and_one_input_of_relu_stray_as_he_and_hanin_say() -> None:
    layers = layers_of("relu", 2.0, 0.0)
    for index, one in enumerate(propagate(layers[:-1], InputStatistics(1.0, 0.0, 1)), start=1):
        relative = (one.statistics["q"].sd / one.statistics["q"].value) ** 2
        assert relative == pytest.approx((5 * (index - 1) + 2) / WIDTH, rel=1e-6)
        assert one.statistics["q"].value == pytest.approx(2.0)


def test_the_input_is_not_passed_through_the_activation() -> None:
    first = propagate(layers_of("relu", 1.0, 0.0), InputStatistics(3.0, 0.0, 1))[0]
    assert first.statistics["q"].value == pytest.approx(3.0)


def test_nothing_is_predicted_past_what_float32_can_hold() -> None:
    layers = [*layers_of("relu", 1e-12, 0.0)]
    said = [bool(one.statistics) for one in propagate(layers, source())]
    assert said == sorted(said, reverse=True) and not said[-1] and said[0]
    assert propagation.Q_UNDERFLOW < 1e-60


def arc_cosine_gaps(first: float, layers: int) -> list[float]:
    """1 − c of relu at each layer, by the closed form of Cho and Saul (2009)."""
    gaps, c = [], first
    for _ in range(layers):
        gaps.append(1.0 - c)
        angle = math.acos(min(1.0, c))
        c = (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / math.pi
    return gaps


def test_the_correlation_of_relu_follows_the_arc_cosine_map_to_any_depth() -> None:
    hidden = TheoryLayer(1e9, 1e9, 10**9, 2.0, activation=bound("relu").nonlinearity)
    predicted = propagate([hidden] * 400 + [TheoryLayer(1e9, 10, 10, 2.0)], InputStatistics(1.0, 0.5, 2))
    gaps = [1.0 - (one.correlation or 0.0) for one in predicted[:400]]
    wanted = arc_cosine_gaps(0.5, 400)
    assert wanted[99] == pytest.approx(0.00351, abs=1e-5), "the closed form itself"
    for layer in (20, 50, 100, 400):
        assert gaps[layer - 1] == pytest.approx(wanted[layer - 1], rel=1e-5)


def test_the_correlation_of_an_ordered_net_reaches_its_fixed_point() -> None:
    hidden = TheoryLayer(1e9, 1e9, 10**9, 1.5, bias_variance=0.1, activation=bound("tanh").nonlinearity)
    gaps = [
        1.0 - (one.correlation or 0.0)
        for one in propagate([hidden] * 200 + [TheoryLayer(1e9, 10, 10, 2.0)], InputStatistics(1.0, 0.5, 2))[
            :200
        ]
    ]
    ratios = [after / before for before, after in pairwise(gaps[60:121])]
    assert max(ratios) - min(ratios) < 1e-4 and 0.5 < ratios[0] < 1.0, "it shrinks by χ₁ a layer, and goes on"
    assert gaps[199] < 1e-6


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "sigmoid"])
@pytest.mark.parametrize(
    "law",
    [
        PreactivationDistribution(1.0),
        PreactivationDistribution(400.0),
        PreactivationDistribution(0.5, 0.3),
        PreactivationDistribution(0.5, 0.0, 0.4),
    ],
)
@pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.5, 0.97])
def test_the_difference_of_two_inputs_agrees_with_their_products(
    name: str, law: PreactivationDistribution, correlation: float
) -> None:
    activation = bound(name).nonlinearity
    same, other = pair_expectations(activation, law, 1.0), pair_expectations(activation, law, correlation)
    apart = difference(activation, law, correlation)
    gap = same["act", "act"] - other["act", "act"]
    assert apart.gap == pytest.approx(gap, rel=2e-4, abs=1e-6 * same["act", "act"])
    assert apart.slope_product == pytest.approx(other["slope", "slope"], rel=2e-4, abs=1e-6)


class TestBand:
    def test_it_holds_the_mean_of_log_normal_nets(self) -> None:
        stream, sd = torch.Generator().manual_seed(3), 0.3
        draws = torch.exp(sd * torch.randn(4000, 16, generator=stream, dtype=torch.float64) - sd**2 / 2)
        q = PredictedStatistic(1.0, math.sqrt(math.expm1(sd**2)))
        low, high = q_band(q, 16)
        outside = float(((draws.mean(1) < low) | (draws.mean(1) > high)).double().mean())
        assert outside < 0.0027 + 4 * math.sqrt(0.0027 / 4000) + 0.003
        narrower = 1 / 3 * math.log(high / low) / 2
        missed = float((draws.mean(1).log().abs() > narrower).double().mean())
        assert 0.2 < missed < 0.45, "one standard error holds two thirds"

    def test_nothing_is_judged_once_a_layer_has_strayed(self) -> None:
        narrow = TheoryLayer(8, 8, 8, 2.0, activation=bound("relu").nonlinearity)
        said = [one.trusted for one in propagate([narrow] * 6, InputStatistics(1.0, 0.0, 16))]
        assert said == sorted(said, reverse=True) and said[0] and not said[-1]
        wide = TheoryLayer(4096, 4096, 4096, 2.0, activation=bound("relu").nonlinearity)
        assert all(one.trusted for one in propagate([wide] * 6, InputStatistics(1.0, 0.0, 16)))
