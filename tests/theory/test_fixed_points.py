"""Fixed points of deep stacks."""

from __future__ import annotations

import math

import pytest

from initbench.components.activation import bound
from initbench.theory.fixed_points import FixedPoint, fixed_point
from initbench.theory.types import TheoryLayer


def settled(name: str, sigma_w2: float, start: float = 0.5, **biases: float) -> FixedPoint:
    layer = TheoryLayer(64, 64, 64, sigma_w2, activation=bound(name).nonlinearity, **biases)
    return fixed_point(layer, start=start)


def test_relu_at_its_gain_keeps_every_q() -> None:
    found = settled("relu", 2.0)
    assert found.q_star is None and found.chi_q == 0.5
    assert (found.chi_1, found.chi_parallel) == (pytest.approx(1.0), pytest.approx(1.0))
    assert found.depth_scale_q == found.depth_scale_c == math.inf


@pytest.mark.parametrize(("sigma_w2", "q_star"), [(1.0, 0.0), (3.0, math.inf)])
def test_relu_off_its_gain_keeps_none(sigma_w2: float, q_star: float) -> None:
    found = settled("relu", sigma_w2)
    assert found.q_star == q_star
    assert found.chi_1 == pytest.approx(sigma_w2 / 2)


def test_relu_with_a_bias_settles_where_the_geometric_series_does() -> None:
    found = settled("relu", 1.0, bias_variance=0.2)
    assert found.q_star == pytest.approx(0.4, rel=1e-6)
    assert (found.depth_scale_q, found.depth_scale_c) == pytest.approx((1 / math.log(2.0),) * 2, rel=1e-6)


def test_tanh_settles_at_a_q_that_its_own_map_keeps() -> None:
    found = settled("tanh", 4.0, bias_variance=0.05)
    activation = bound("tanh")
    assert found.q_star is not None
    kept = activation.length_map(found.q_star, sigma_w2=4.0, sigma_b2=0.05)
    assert kept == pytest.approx(found.q_star, rel=1e-8)
    assert found.chi_parallel < 1 < found.chi_1, "chaos: q is stable, two inputs part"
    assert 0 < found.depth_scale_c < math.inf


def test_the_depth_scale_of_correlations_grows_towards_the_edge_of_chaos() -> None:
    below = [settled("tanh", sigma_w2, bias_variance=0.05).depth_scale_c for sigma_w2 in (1.0, 1.4, 1.7)]
    above = [settled("tanh", sigma_w2, bias_variance=0.05).depth_scale_c for sigma_w2 in (3.0, 2.4, 2.0)]
    assert below == sorted(below) and above == sorted(above)
    assert min(below[-1], above[-1]) > 4


def test_gelu_at_the_gain_of_relu_fades() -> None:
    found = settled("gelu", 2.0)
    assert found.q_star == 0.0


@pytest.mark.parametrize(("start", "q_star"), [(0.9, 0.0), (1.1, math.inf)])
def test_gelu_at_its_own_gain_stands_on_an_edge(start: float, q_star: float) -> None:
    gain = bound("gelu").preserving_gain
    assert settled("gelu", gain**2, start).q_star == q_star
    edge = settled("gelu", gain**2, 1.0)
    assert edge.q_star == 1.0 and edge.chi_parallel > 1.1


def test_selu_comes_back_to_one_from_either_side() -> None:
    for start in (0.01, 1.0, 30.0):
        assert settled("selu", 1.0, start).q_star == pytest.approx(1.0, abs=1e-6)
