"""Length map, χ₁ and gains: against closed forms, the catalogue's table, and Monte Carlo."""

import math

import pytest
import torch

from initbench.components.activation import ACTIVATIONS, bind, bound
from initbench.registry_choice import options_model
from initbench.theory import mean_field

SIGMAS = 5.0
"""Standard errors allowed: a two-sided chance of 6e-7 a check, under a fixed seed at that."""


@pytest.mark.parametrize("q", [1e-6, 1.0, 100.0])
def test_relu_halves(q):
    relu = bound("relu")
    assert mean_field.second_moment(relu.phi, q, (0.0,)) == pytest.approx(q / 2, rel=1e-10)
    assert mean_field.length_map(relu.phi, q, sigma_w2=2.0, sigma_b2=0.3, kinks=(0.0,)) == pytest.approx(
        q + 0.3, rel=1e-10
    )
    assert mean_field.chi(relu.derivative, q, sigma_w2=2.0, kinks=(0.0,)) == pytest.approx(1.0, rel=1e-10)


@pytest.mark.parametrize("slope", [0.01, 0.3])
def test_leaky_relu_is_kept_by_its_kaiming_gain(slope):
    leaky = bound("leaky_relu", negative_slope=slope)
    assert leaky.kaiming_gain == pytest.approx(math.sqrt(2 / (1 + slope**2)), rel=1e-15)
    assert leaky.preserving_gain == pytest.approx(leaky.kaiming_gain, rel=1e-10)
    sigma_w2 = leaky.kaiming_gain**2
    assert mean_field.chi(leaky.derivative, 3.0, sigma_w2=sigma_w2, kinks=(0.0,)) == pytest.approx(
        1.0, rel=1e-10
    )


def test_selu_has_its_fixed_point_at_mean_zero_variance_one():
    selu = bound("selu")
    assert mean_field.gaussian_expectation(selu.phi, kinks=(0.0,)) == pytest.approx(0.0, abs=1e-10)
    assert mean_field.length_map(selu.phi, 1.0, sigma_w2=1.0, kinks=(0.0,)) == pytest.approx(1.0, abs=1e-10)


def test_an_activation_that_is_zero_everywhere_has_no_gain():
    with pytest.raises(ValueError, match="zero everywhere"):
        mean_field.preserving_gain(torch.zeros_like)


@pytest.mark.parametrize("q", [0.25, 1.0, 16.0])
@pytest.mark.parametrize("name", [entry.name for entry in ACTIVATIONS if entry.elementwise])
def test_theory_agrees_with_monte_carlo(name, q):
    """Each mean of N = 2²⁰ draws has the standard error s/√N, s measured on the same draws. What
    happens too seldom to be among them (hard_sigmoid beyond six σ) weighs some 1/N of the largest value.
    """
    activation = bind(options_model(ACTIVATIONS[name], "name")())
    kinks = activation.entry.kinks
    z = torch.randn(2**20, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
    h = math.sqrt(q) * z
    forward = 1.7 * activation.phi(h).square() + 0.2
    backward = 1.7 * activation.derivative(h).square()
    theory = [
        mean_field.length_map(activation.phi, q, sigma_w2=1.7, sigma_b2=0.2, kinks=kinks),
        mean_field.chi(activation.derivative, q, sigma_w2=1.7, kinks=kinks),
    ]
    for sample, expected in zip((forward, backward), theory, strict=True):
        error = float(sample.std()) / math.sqrt(sample.numel())
        assert float(sample.mean()) == pytest.approx(
            expected, abs=SIGMAS * error + float(sample.max()) / sample.numel()
        )


def test_a_wide_random_layer_does_what_the_length_map_says():
    """One tanh layer, n = m = 2,000. The measured q is a mean of m squared normals, relative error
    √(2/m) = 3.2 %, whose variance is itself a mean over n inputs, √(Var φ²/n)/E[φ²] ≈ 2 %.
    """
    generator = torch.Generator().manual_seed(3)
    n = 2000
    h = torch.randn(n, generator=generator, dtype=torch.float64) * 1.5
    weight = torch.randn(n, n, generator=generator, dtype=torch.float64) * math.sqrt(1.9 / n)
    tanh = bound("tanh")
    squares = tanh.phi(h).square()
    relative = math.hypot(math.sqrt(2 / n), float(squares.std() / squares.mean()) / math.sqrt(n))
    expected = mean_field.length_map(tanh.phi, 1.5**2, sigma_w2=1.9)
    found = float((weight @ tanh.phi(h)).square().mean())
    assert found == pytest.approx(expected, rel=4 * relative)
    assert 4 * relative < 0.2  # σ_w² without its square root, or φ unsquared, is off by more
