"""The quadrature against closed forms; 1e-10 is far above its rounding and far below a missed kink."""

import math

import pytest
import torch
from scipy.integrate import quad

from initbench.theory.quadrature import gaussian_expectation

TOLERANCE = 1e-10


def normal_cdf(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


@pytest.mark.parametrize(("power", "moment"), [(0, 1), (1, 0), (2, 1), (3, 0), (4, 3), (6, 15), (8, 105)])
def test_moments_of_the_normal(power, moment):
    assert gaussian_expectation(lambda z: z**power) == pytest.approx(moment, rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize("std", [1e-6, 0.1, 1.0, 7.0, 100.0])
def test_std_scales_the_argument(std):
    assert gaussian_expectation(torch.square, std=std) == pytest.approx(std**2, rel=TOLERANCE)
    assert gaussian_expectation(torch.cos, std=min(std, 7.0)) == pytest.approx(
        math.exp(-(min(std, 7.0) ** 2) / 2), rel=TOLERANCE, abs=TOLERANCE
    )


def test_exponential_tilts_the_mean():
    assert gaussian_expectation(torch.exp) == pytest.approx(math.exp(0.5), rel=TOLERANCE)


def test_zero_std_is_the_value_at_zero():
    assert gaussian_expectation(lambda h: h + 2.5, std=0.0) == 2.5


@pytest.mark.parametrize("std", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("kink", [0.3337, -1.7])
def test_a_jump_off_the_origin_is_exact_when_it_is_declared(std, kink):
    exact = 1 - normal_cdf(kink / std)
    step = lambda h: (h > kink).double()  # noqa: E731
    assert gaussian_expectation(step, std=std, kinks=(kink,)) == pytest.approx(
        exact, rel=TOLERANCE, abs=TOLERANCE
    )


def test_an_undeclared_jump_is_not_exact():
    """Show that the accuracy above is due to the declared kinks."""
    error = gaussian_expectation(lambda h: (h > 0.3337).double()) - (1 - normal_cdf(0.3337))
    assert abs(error) > 1e-5


@pytest.mark.parametrize("std", [0.3, 1.0, 20.0])
def test_clipping_at_one(std):
    """E[clip(h, −1, 1)²] = q·(2Φ(c) − 1 − 2c·p(c)) + 2(1 − Φ(c)) with c = 1/std."""
    c = 1 / std
    density = math.exp(-c * c / 2) / math.sqrt(2 * math.pi)
    inside = std**2 * (2 * normal_cdf(c) - 1 - 2 * c * density)
    found = gaussian_expectation(lambda h: h.clamp(-1, 1).square(), std=std, kinks=(-1.0, 1.0))
    assert found == pytest.approx(inside + 2 * (1 - normal_cdf(c)), rel=TOLERANCE)


@pytest.mark.parametrize("std", [0.01, 1.0, 10.0, 100.0, 1000.0])
def test_steep_erf_has_a_closed_form(std):
    """E[erf(h)²] = (2/π)·asin(2q/(1 + 2q)) (Williams 1997)."""
    q = std**2
    exact = 2 / math.pi * math.asin(2 * q / (1 + 2 * q))
    assert gaussian_expectation(lambda h: torch.erf(h).square(), std=std) == pytest.approx(
        exact, rel=TOLERANCE
    )


@pytest.mark.parametrize("std", [10.0, 100.0])
@pytest.mark.parametrize("power", [2, 4])
def test_steep_tanh_against_scipy(std, power):
    """E[sech²] and E[sech⁴] (1 − E[tanh²] and E[φ′²]): all of the mass lies within |h| < 50."""

    def integrand(h):
        return math.cosh(h) ** -power * math.exp(-0.5 * (h / std) ** 2) / (std * math.sqrt(2 * math.pi))

    exact, _ = quad(integrand, 0, 50, points=[1, 5, 20], epsabs=1e-16, epsrel=1e-13, limit=400)
    found = gaussian_expectation(lambda h: torch.cosh(h.clamp(-300, 300)) ** -power, std=std)
    assert found == pytest.approx(2 * exact, rel=TOLERANCE)
    if power == 2:
        assert gaussian_expectation(lambda h: torch.tanh(h).square(), std=std) == pytest.approx(
            1 - 2 * exact, rel=TOLERANCE
        )


def test_gelu_and_the_normal_cdf():
    """E[zΦ(z)] = 1/(2√π) by parts; Φ(z) is uniform, so E[Φ(z)²] = 1/3."""
    assert gaussian_expectation(torch.nn.functional.gelu) == pytest.approx(
        0.5 / math.sqrt(math.pi), rel=TOLERANCE
    )
    assert gaussian_expectation(lambda z: torch.special.ndtr(z).square()) == pytest.approx(
        1 / 3, rel=TOLERANCE
    )
