"""Products over two inputs against closed forms and sampling."""

from __future__ import annotations

import math

import pytest
import torch

from initbench.components.activation import bound
from initbench.theory.nonlinearity import Nonlinearity
from initbench.theory.pair_expectations import PAIRS, pair_expectations
from initbench.theory.preactivation import PreactivationDistribution, evaluate_moments, quadrature_nodes


def of(name: str) -> Nonlinearity:
    found = bound(name).nonlinearity
    assert found is not None
    return found


@pytest.mark.parametrize("c", [-1.0, -0.5, 0.0, 0.5, 0.99, 0.99999, 1.0])
def test_relu_is_the_arc_cosine_kernel(c: float) -> None:
    q, angle = 2.0, math.acos(c)
    found = pair_expectations(of("relu"), PreactivationDistribution(q), c)
    assert found["act", "act"] == pytest.approx(
        q * (math.sin(angle) + (math.pi - angle) * c) / (2 * math.pi), abs=1e-6
    )
    assert found["slope", "slope"] == pytest.approx((math.pi - angle) / (2 * math.pi), abs=1e-6)
    assert found["h2", "h2"] == pytest.approx(q * q * (1 + 2 * c * c), rel=1e-6)


@pytest.mark.parametrize("name", ["tanh", "gelu", "hard_tanh", "sigmoid"])
@pytest.mark.parametrize(
    "law",
    [
        PreactivationDistribution(1.0),
        PreactivationDistribution(64.0),
        PreactivationDistribution(0.3, shift=0.5),
        PreactivationDistribution(0.1, half_width=1.0),
    ],
)
def test_sampling_agrees(name: str, law: PreactivationDistribution) -> None:
    c, count = 0.6, 400_000
    stream, activation = torch.Generator().manual_seed(5), of(name)
    z = torch.randn(2, count, generator=stream, dtype=torch.float64)
    bias = law.shift + law.half_width * (2 * torch.rand(count, generator=stream, dtype=torch.float64) - 1)
    std = math.sqrt(law.variance)
    first, second = (
        evaluate_moments(activation, bias + std * part)
        for part in (z[0], c * z[0] + math.sqrt(1 - c * c) * z[1])
    )
    found = pair_expectations(activation, law, c)
    for f, g in PAIRS:
        product = first[f] * second[g]
        error = float(product.std()) / math.sqrt(count)
        assert abs(float(product.mean()) - found[f, g]) < 4.5 * error + 1e-9, (f, g)


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "hard_tanh"])
@pytest.mark.parametrize(
    "law",
    [
        PreactivationDistribution(1.0),
        PreactivationDistribution(0.3, shift=0.5),
        PreactivationDistribution(0.2, half_width=1.0),
    ],
)
def test_derivatives_in_the_variance_are_those_of_differences(
    name: str, law: PreactivationDistribution
) -> None:
    activation = of(name)

    def mean(variance: float) -> float:
        nodes = quadrature_nodes(
            PreactivationDistribution(variance, law.shift, law.half_width), activation.breaks
        )
        return nodes.mean(evaluate_moments(activation, nodes.h)["act2"])

    nodes = quadrature_nodes(law, activation.breaks)
    values = evaluate_moments(activation, nodes.h)["act2"]
    step = 1e-3 * law.variance
    slope = (mean(law.variance + step) - mean(law.variance - step)) / (2 * step)
    curve = (mean(law.variance + step) - 2 * mean(law.variance) + mean(law.variance - step)) / step**2
    assert nodes.slope(values, law.variance) == pytest.approx(slope, rel=1e-4)
    assert nodes.curve(values, law.variance) == pytest.approx(curve, rel=1e-2, abs=1e-4)


def test_the_flat_part_of_tanh_begins_where_its_slope_is_a_twentieth() -> None:
    low, high = of("tanh").breaks
    assert high == -low == pytest.approx(math.acosh(math.sqrt(20.0)))
    law = PreactivationDistribution(9.0)
    nodes = quadrature_nodes(law, of("tanh").breaks)
    share = nodes.mean(evaluate_moments(of("tanh"), nodes.h)["flat"])
    assert share == pytest.approx(math.erfc(high / 3.0 / math.sqrt(2.0)), rel=1e-9)
