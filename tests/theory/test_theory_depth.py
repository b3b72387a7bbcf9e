"""Depth scales of a stack, and the weight scale at which they diverge."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from initbench.components.activation import bound
from initbench.theory.depth_scales import (
    TRAINABLE,
    critical_sigma_w,
    deep_chi_1,
    depth_scales,
    gradient_scale,
)
from initbench.theory.types import TheoryLayer


def stack(name: str, sigma_w: float, hidden: int = 100) -> list[TheoryLayer]:
    layer = TheoryLayer(64, 64, 64, sigma_w**2, activation=bound(name).nonlinearity)
    return [layer] * hidden + [replace(layer, activation=None)]


@pytest.mark.parametrize("sigma_w", [0.8, 1.2, 2.0])
def test_relu_multiplies_the_gradient_by_half_of_sigma_w2(sigma_w: float) -> None:
    found = depth_scales(stack("relu", sigma_w), 1.0)
    factor = sigma_w**2 / 2
    assert found.chi_1 == pytest.approx(factor)
    assert found.depth_scale_gradient == pytest.approx(1 / abs(math.log(factor)))
    if factor < 1:
        assert found.depth_scale_c == pytest.approx(found.depth_scale_gradient)
    assert found.reach == pytest.approx(TRAINABLE / abs(math.log(factor)))


def test_tanh_below_one_fades_by_sigma_w2_however_it_starts() -> None:
    for q in (0.01, 1.0, 50.0):
        found = depth_scales(stack("tanh", 0.7), q)
        assert found.q_star == 0.0
        assert found.chi_1 == pytest.approx(0.49, rel=1e-3)
        assert found.reach == pytest.approx(TRAINABLE / -math.log(0.49), rel=1e-3)


def test_in_chaos_the_gradient_is_lost_before_the_correlations_settle() -> None:
    found = depth_scales(stack("tanh", 2.0), 1.0)
    assert found.chi_1 > 1.0
    assert found.depth_scale_gradient < found.depth_scale_c < math.inf
    assert found.reach == TRAINABLE * found.depth_scale_gradient


def test_scales_at_the_ends() -> None:
    assert gradient_scale(1.0) == math.inf and gradient_scale(0.0) == 0.0
    assert gradient_scale(math.e) == gradient_scale(1 / math.e) == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "critical"), [("relu", math.sqrt(2.0)), ("tanh", 1.0)])
def test_chi_1_passes_one_at_the_critical_scale(name: str, critical: float) -> None:
    found = critical_sigma_w(lambda sigma_w: deep_chi_1(stack(name, sigma_w), 1.0), 0.9, 1.7)
    assert found == pytest.approx(critical, rel=2e-3)


def test_a_stack_that_leaves_the_range_of_float32_is_still_judged() -> None:
    for sigma_w in (0.1, 10.0):
        found = depth_scales(stack("relu", sigma_w, 500), 1.0)
        assert found.chi_1 == pytest.approx(sigma_w**2 / 2)
        assert found.q_star == (0.0 if sigma_w < 1 else math.inf)
