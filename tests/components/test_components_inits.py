"""Every init scheme by its defining property; tolerances come from the sampling error.

Over N independent weights of variance v and kurtosis κ, the sample mean has the standard error √(v/N)
and the sample mean square v·√((κ−1)/N). Five of them leave a chance of 6e-7 a check, and seeds are fixed.
"""

import math

import pytest
import torch
from scipy.stats import kstest

from initbench.choice import options_model
from initbench.components.activation import bound
from initbench.components.scheme import INITS, Needs

SIGMAS = 5.0
SHAPES = [(256, 256), (128, 512), (512, 128), (96, 32, 3, 3)]
NOT_SQUARE = SHAPES[1:]
KURTOSIS = {"normal": 3.0, "uniform": 1.8}

# The rules of the catalogue, written down once more: what a scheme states of itself proves nothing.
RULES = {
    "normal": lambda n, m, gain: 1e-4,
    "torch_default": lambda n, m, gain: 1 / (3 * n),
    "lecun_normal": lambda n, m, gain: gain**2 / n,
    "lecun_uniform": lambda n, m, gain: gain**2 / n,
    "xavier_normal": lambda n, m, gain: gain**2 * 2 / (n + m),
    "xavier_uniform": lambda n, m, gain: gain**2 * 2 / (n + m),
    "kaiming_normal": lambda n, m, gain: gain**2 / n,
    "kaiming_uniform": lambda n, m, gain: gain**2 / n,
    "kaiming_misprint": lambda n, m, gain: 4 / n,
}
NEIGHBOURS = {
    "xavier": lambda n, m: 2 / (n + m),
    "kaiming": lambda n, m: 2 / n,
    "kaiming fan_out": lambda n, m: 2 / m,
    "lecun": lambda n, m: 1 / n,
    "torch_default": lambda n, m: 1 / (3 * n),
    "misprint": lambda n, m: 4 / n,
}
INDEPENDENT = [scheme.name for scheme in INITS if scheme.variance is not None]
UNIFORM = [name for name in INDEPENDENT if name.endswith("_uniform") or name == "torch_default"]


def fans(shape):
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def options_of(name, **options):
    return options_model(INITS[name], "name")(**options).model_dump(exclude={"name"})


def drawn(name, shape, *, gain=None, seed=0, **options):
    """A weight filled by the scheme, with its default gain for relu unless one is given."""
    scheme = INITS[name]
    n, m = fans(shape)
    weight = torch.full(shape, math.nan)
    generator = torch.Generator().manual_seed(seed)
    arguments = options_of(name, **options)
    scheme.fill(weight, fan_in=n, fan_out=m, gain=gain or gain_of(name), generator=generator, **arguments)
    return weight.double()


def gain_of(name):
    default = INITS[name].default_gain
    return default(bound("relu")) if default else 1.0


def kurtosis_of(name):
    return KURTOSIS["uniform" if name in UNIFORM else "normal"]


def rule_of(name, n, m, gain):
    """The catalogue's variance; for a scheme that this file does not know, its own statement."""
    if name in RULES:
        return RULES[name](n, m, gain)
    return INITS[name].variance(fan_in=n, fan_out=m, gain=gain, **options_of(name))


def deviation(weight, variance, kurtosis):
    """How many standard errors the mean square lies from `variance`."""
    found = float(weight.square().mean())
    return abs(found / variance - 1) / math.sqrt((kurtosis - 1) / weight.numel())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", INDEPENDENT)
def test_mean_and_variance(name, shape):
    n, m = fans(shape)
    for gain in {gain_of(name), 1.7}:
        if INITS[name].default_gain is None and gain != 1.0:
            continue
        weight = drawn(name, shape, gain=gain)
        variance = rule_of(name, n, m, gain)
        assert abs(float(weight.mean())) < SIGMAS * math.sqrt(variance / weight.numel())
        assert deviation(weight, variance, kurtosis_of(name)) < SIGMAS
        declared = INITS[name].variance(fan_in=n, fan_out=m, gain=gain, **options_of(name))
        assert declared == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("shape", NOT_SQUARE, ids=str)
@pytest.mark.parametrize("name", INDEPENDENT)
def test_the_neighbouring_schemes_fail_the_same_test(name, shape):
    n, m = fans(shape)
    own = rule_of(name, n, m, gain_of(name))
    weight = drawn(name, shape)
    others = {other: rule(n, m) for other, rule in NEIGHBOURS.items()}
    different = {other: v for other, v in others.items() if not math.isclose(v, own, rel_tol=1e-9)}
    assert len(different) >= len(NEIGHBOURS) - 1  # only the scheme itself is left out
    for other, variance in different.items():
        assert deviation(weight, variance, kurtosis_of(name)) > SIGMAS, other


@pytest.mark.parametrize("name", INDEPENDENT)
def test_shape_of_the_distribution(name):
    """Kolmogorov–Smirnov over 65,536 draws: at p = 1e-4 it tells a uniform from a normal at once."""
    weight = drawn(name, (256, 256), seed=5)
    std = math.sqrt(rule_of(name, 256, 256, gain_of(name)))
    uniform, normal = ("uniform", (-math.sqrt(3) * std, 2 * math.sqrt(3) * std)), ("norm", (0, std))
    own, other = (uniform, normal) if name in UNIFORM else (normal, uniform)
    flat = weight.flatten().numpy()
    assert kstest(flat, own[0], args=own[1]).pvalue > 1e-4
    assert kstest(flat, other[0], args=other[1]).pvalue < 1e-4


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", UNIFORM)
def test_uniform_schemes_keep_and_fill_their_bound(name, shape):
    """The largest of N draws is within 20/N of the bound but for a chance of e⁻²⁰; float32 rounds by 6e-8."""
    n, m = fans(shape)
    weight = drawn(name, shape)
    bound_ = math.sqrt(3 * rule_of(name, n, m, gain_of(name)))
    largest = float(weight.abs().max())
    assert bound_ * (1 - 20 / weight.numel()) < largest <= bound_ * (1 + 1e-6)


def test_torch_default_draws_what_torch_draws():
    """The same bound for the weight and the bias as nn.Linear's own reset_parameters."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(300, 400)
    bound_ = 1 / math.sqrt(300)
    assert float(linear.weight.detach().abs().max()) == pytest.approx(bound_, rel=1e-3)
    assert float(linear.bias.detach().abs().max()) == pytest.approx(bound_, rel=2e-2)
    assert float(drawn("torch_default", (400, 300)).abs().max()) == pytest.approx(bound_, rel=1e-3)
    assert INITS["torch_default"].bias_bound(300) == pytest.approx(bound_, rel=1e-15)


@pytest.mark.parametrize("shape", NOT_SQUARE, ids=str)
@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_kaiming_fan_modes(kind, shape):
    n, m = fans(shape)
    name = f"kaiming_{kind}"
    for mode, fan, other in (("fan_in", n, m), ("fan_out", m, n)):
        weight = drawn(name, shape, mode=mode)
        assert deviation(weight, 2 / fan, KURTOSIS[kind]) < SIGMAS
        assert deviation(weight, 2 / other, KURTOSIS[kind]) > SIGMAS


def test_normal_std_is_an_option():
    assert deviation(drawn("normal", (200, 300), std=0.3), 0.09, 3.0) < SIGMAS


@pytest.mark.parametrize("name", [scheme.name for scheme in INITS])
def test_a_fill_uses_its_own_generator_and_no_other(name):
    """The same seed gives the same weight, whatever the global state, which it does not move."""
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = drawn(name, (32, 48), seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(drawn(name, (32, 48), seed=7), first)
    assert bool(first.isfinite().all())
    if name not in ("zeros", "constant"):
        assert not torch.equal(drawn(name, (32, 48), seed=8), first)


@pytest.mark.parametrize("gain", [1.0, 1.7])
@pytest.mark.parametrize(
    "shape", [(64, 64), (40, 90), (90, 40), (24, 8, 3, 3), (80, 4, 3, 3), (1, 5), (5, 1)], ids=str
)
@pytest.mark.parametrize("name", ["orthogonal", "lsuv"])
def test_orthogonal(name, shape, gain):
    """QᵀQ = gain²·I on the shorter side; float32 QR is good to about 1e-6."""
    matrix = drawn(name, shape, gain=gain).flatten(1)
    rows, columns = matrix.shape
    product = matrix @ matrix.mT if rows <= columns else matrix.mT @ matrix
    assert torch.allclose(product, gain**2 * torch.eye(min(rows, columns), dtype=torch.float64), atol=1e-5)


def test_orthogonal_has_no_sign_bias():
    """Over the orthogonal group an entry of a 4 × 4 has mean 0 and variance 1/4, and so has the trace
    per entry; over 2,000 draws the mean diagonal has the standard error √(1/16/2000) = 0.0056.
    QR without the sign correction leaves the diagonal at about −0.3.
    """
    draws = torch.stack([drawn("orthogonal", (4, 4), seed=seed) for seed in range(2000)])
    diagonal = draws.diagonal(dim1=1, dim2=2)
    assert abs(float(diagonal.mean())) < SIGMAS * math.sqrt(1 / 16 / 2000)
    assert (diagonal.mean(0).abs() < SIGMAS * math.sqrt(1 / 4 / 2000)).all()
    # Var(w²) of an entry is 2(d−1)/(d²(d+2)) = 1/16 at d = 4.
    assert float(draws[:, 0, 0].square().mean()) == pytest.approx(
        1 / 4, abs=SIGMAS * math.sqrt(1 / 16 / 2000)
    )
    signs = torch.linalg.det(draws)
    assert abs(float(signs.mean())) < SIGMAS / math.sqrt(2000)  # rotations and reflections alike


def test_fixed_schemes():
    assert bool((drawn("zeros", (3, 4)) == 0).all())
    assert bool((drawn("constant", (3, 4)) == 1).all())
    assert bool((drawn("constant", (3, 4), value=-0.25) == -0.25).all())


@pytest.mark.parametrize("name", [scheme.name for scheme in INITS])
def test_what_a_scheme_needs_is_there(name):
    scheme = INITS[name]
    assert (scheme.calibrate is not None) == (scheme.needs is Needs.FIRST_BATCH)
    if scheme.bias_bound is not None:
        assert scheme.bias_bound(100) > scheme.bias_bound(400) > 0


def test_kaiming_gain_follows_the_leaky_slope_and_else_is_root_two():
    gain = INITS["kaiming_normal"].default_gain
    assert gain(bound("relu")) == gain(bound("tanh")) == gain(bound("gelu")) == math.sqrt(2)
    assert gain(bound("leaky_relu", negative_slope=0.5)) == pytest.approx(math.sqrt(2 / 1.25), rel=1e-15)
    assert gain(bound("leaky_relu")) == pytest.approx(
        torch.nn.init.calculate_gain("leaky_relu", 0.01), rel=1e-15
    )
