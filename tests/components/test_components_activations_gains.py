"""Gains and second moments of every activation: against sampling, the catalogue's table and scipy."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from activation_cases import CHANNELS, ELEMENTWISE, NAMES, default, variants
from scipy.integrate import quad
from scipy.special import ndtr

from initbench.components.activation import ACTIVATIONS, bind, bound
from initbench.testing.activations import gaussian_mean

SAMPLES, SIGMAS = 4_000_000, 5.0
"""Standard errors allowed: a two-sided chance of 6e-7 a check, under a fixed seed at that."""


@cache
def sampled(name):
    """(E[φ(z)²], its standard error) of each variant. Groups of outputs that share inputs are one draw."""
    z = torch.from_numpy(np.random.default_rng(17).standard_normal((SAMPLES // CHANNELS, CHANNELS)))
    found = []
    for activation in variants(name):
        squares = activation.phi(z).square().mean(1)
        found.append((float(squares.mean()), float(squares.std()) / math.sqrt(len(squares))))
    return found


def agrees(gain, mean, error):
    """Whether gain² is 1/E[φ(z)²] within the sampling error."""
    return abs(gain**-2 - mean) <= SIGMAS * error + 1e-6  # 1e-6: linear, whose tails alone are sampled


@pytest.mark.parametrize("name", NAMES)
def test_preserving_gain_agrees_with_sampling(name):
    for activation, (mean, error) in zip(variants(name), sampled(name), strict=True):
        assert agrees(activation.preserving_gain, mean, error)


def test_sampling_tells_neighbours_apart():
    """The gain of another activation fails the test above wherever the two differ by ten standard errors:
    in nearly all pairs. gelu and its tanh form (5e-5 apart) are of those that it cannot tell apart.
    """
    gains = {name: default(name).preserving_gain for name in NAMES}
    told, pairs = set(), [(a, b) for a in NAMES for b in NAMES if a != b]
    for a, b in pairs:
        mean, error = sampled(a)[0]
        if abs(gains[a] ** -2 - gains[b] ** -2) > 2 * SIGMAS * error + 2e-6:
            assert not agrees(gains[b], mean, error), (a, b)
            told.add((a, b))
    assert {("gelu", "silu"), ("silu", "mish"), ("gelu", "mish"), ("tanh", "sin")} <= told
    assert ("gelu", "gelu_tanh") not in told
    assert len(told) > 0.9 * len(pairs)


CATALOGUE = {
    "linear": 1.0,
    "relu": 1.414,
    "tanh": 1.593,
    "sigmoid": 1.846,
    "elu": 1.245,
    "selu": 1.0,
    "gelu": 1.534,
    "silu": 1.677,
    "mish": 1.487,
    "softplus": 1.042,
    "softsign": 2.338,
    "hard_tanh": 1.392,
    "hard_swish": 1.737,
    "sin": 1.521,
    "squared_relu": 0.816,
}


@pytest.mark.parametrize(("name", "gain"), CATALOGUE.items())
def test_gains_of_the_catalogue(name, gain):
    """Half of the last digit printed."""
    assert bound(name).preserving_gain == pytest.approx(gain, abs=5.1e-4)


def test_the_catalogue_tells_activations_apart():
    """Only those of one value to three digits pass for another."""
    near = {
        (a, b)
        for a in CATALOGUE
        for b in CATALOGUE
        if a < b and abs(default(a).preserving_gain - CATALOGUE[b]) <= 5.1e-4
    }
    assert near == {("linear", "selu")}


@pytest.mark.parametrize(("pieces", "scale"), [(2, 1.0), (3, 0.78391), (4, 0.64461), (5, 0.55555)])
def test_maxout_has_the_scale_of_tseran_and_montufar(pieces, scale):
    """1/E[max²] as tabulated by Tseran & Montúfar 2021, 5 digits cut or rounded."""
    assert bound("maxout", pieces=pieces).preserving_gain ** 2 == pytest.approx(scale, abs=6e-5)


@pytest.mark.parametrize("pieces", [2, 3, 8, 64])
def test_maxout_against_scipy(pieces):
    """The density of the largest of k is k·p(z)·Φ(z)^(k − 1)."""

    def integrand(z):
        return pieces * z * z * ndtr(z) ** (pieces - 1) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    expected, _ = quad(integrand, -12, 12, points=[0, 2, 4], epsabs=1e-14, epsrel=1e-12, limit=200)
    for q in (0.25, 16.0):
        moment = bound("maxout", pieces=pieces).length_map(q, sigma_w2=1.0)
        assert moment == pytest.approx(q * expected, rel=1e-9)


def test_a_fast_wave_is_not_lost():
    """sin(30·h) at std 10: half its square's height, which quadrature on fixed panels misses."""
    sin = bound("sin", omega=30.0)
    assert sin.length_map(100.0, sigma_w2=1.0) == pytest.approx(0.5, rel=1e-12)
    assert sin.chi(100.0, sigma_w2=1.0) == pytest.approx(450.0, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_kaiming_gain_is_torchs(name):
    for activation in variants(name):
        slope = activation.entry.negative_slope(activation.options)
        assert (slope != 0.0) == (name in ("leaky_relu", "prelu"))
        expected = torch.nn.init.calculate_gain("leaky_relu", slope)
        assert activation.kaiming_gain == pytest.approx(expected, rel=1e-12)
        if slope:
            x = torch.tensor([[-1.0]])
            assert float(activation.phi(x)) == pytest.approx(-slope, rel=1e-6)
            assert activation.preserving_gain == pytest.approx(activation.kaiming_gain, rel=1e-6)


@pytest.mark.parametrize("name", ["gelu", "silu", "mish"])
def test_smooth_relus_decay_at_the_gain_of_relu(name):
    """Catalogue, pitfall 3: at gain √2 q falls without end; at `auto` it stays at 1, but q = 1 is unstable
    (the length map's slope there is above 1), and χ₁ is not 1 either. relu has 1 for all of them.
    """

    def walk(activation, sigma_w2, q):
        for _ in range(50):
            q = activation.length_map(q, sigma_w2=sigma_w2)
        return q

    activation, relu = bound(name), bound("relu")
    assert walk(relu, 2.0, 1.0) == pytest.approx(1.0, rel=1e-10)
    assert walk(activation, 2.0, 1.0) < 1e-5
    kept = activation.preserving_gain**2
    assert activation.length_map(1.0, sigma_w2=kept) == pytest.approx(1.0, rel=1e-12)
    assert walk(activation, kept, 0.99) < 0.8 < 1.2 < walk(activation, kept, 1.01)
    assert activation.chi(1.0, sigma_w2=kept) > 1.05


def by_gauss_hermite(function, q, order):
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    values = function(math.sqrt(q) * torch.from_numpy(nodes))
    return float((torch.from_numpy(weights / weights.sum()) * values).sum())


@pytest.mark.parametrize("name", [n for n in ELEMENTWISE if ACTIVATIONS[n].kinks])
def test_gauss_hermite_is_wrong_on_kinks(name):
    """Catalogue, pitfall 5: by over one percent with 20, 40 or 61 nodes, at q = 1 or 16. squared_relu has but
    a bend in φ′: it is the one that comes out within a percent.
    """
    activation, worst = default(name), 0.0
    for q in (1.0, 16.0):
        exact = activation.chi(q, sigma_w2=1.0)
        assert exact == pytest.approx(
            gaussian_mean(lambda h: activation.derivative(h).square(), q, activation.entry.kinks), rel=1e-6
        )
        naive = [by_gauss_hermite(lambda h: activation.derivative(h).square(), q, n) for n in (20, 40, 61)]
        worst = max(worst, *(abs(value / exact - 1) for value in naive))
    assert (worst > 0.01) == (name != "squared_relu")


@pytest.mark.parametrize("name", NAMES)
def test_theory_of_an_activation_can_be_asked_for_while_a_net_has_no_data(name):
    """Check a config on the meta device: prelu has a parameter, which must be on the CPU nevertheless."""
    bind.cache_clear()
    with torch.device("meta"):
        found = bound(name).preserving_gain
    assert found == bound(name).preserving_gain > 0
