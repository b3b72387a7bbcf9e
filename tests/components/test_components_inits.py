"""Every init scheme by its defining property; tolerances come from the sampling error.

Over N independent weights of variance v and kurtosis κ, the sample mean has the standard error √(v/N)
and the sample mean square v·√((κ−1)/N). Five of them leave a chance of 6e-7 a check, and seeds are fixed.
"""

import math
from itertools import combinations

import pytest
import torch
from torch import nn

from initbench.components.activation import bound
from initbench.components.fans import fans as fans_of
from initbench.components.init_scheme import INITS
from initbench.testing import inits as checks
from initbench.testing.inits import KURTOSIS, SIGMAS, variance_deviation

SHAPES = [(256, 256), (128, 512), (512, 128), (96, 32, 3, 3)]
NOT_SQUARE = SHAPES[1:]

# fan_in and fan_out of checks.LAYERS, counted by hand: terms of an output's sum, outputs per input.
FANS = {
    "square": (256, 256),
    "wide": (128, 512),
    "tall": (512, 128),
    "conv": (32 * 9, 96 * 9),
    "grouped": (16 * 9, 64 * 9),
    "depthwise": (25, 25),
    "transposed": (48 * 4, 96 * 16),
    "transposed in groups": (72, 64 * 9),
    "strided": (64 * 9, 64 * 9 / 4),
    "kernel 1 × 7": (48 * 7, 96 * 7 / 2),
    "conv1d": (320, 480),
}
LAYERS = {kind: (build, *FANS[kind]) for kind, build in checks.LAYERS.items()}

NEIGHBOURS = {
    "normal": lambda n, m: 1e-4,
    "uniform": lambda n, m: 0.05**2 / 3,
    "trunc_normal": lambda n, m: 4e-4,
    "trunc_normal as cut": lambda n, m: 4e-4 * 0.7737,
    "xavier": lambda n, m: 2 / (n + m),
    "kaiming": lambda n, m: 2 / n,
    "kaiming fan_out": lambda n, m: 2 / m,
    "lecun": lambda n, m: 1 / n,
    "torch_default": lambda n, m: 1 / (3 * n),
    "misprint": lambda n, m: 4 / n,
}
INDEPENDENT = [scheme.name for scheme in INITS if scheme.variance is not None]
UNIFORM = [name for name in INDEPENDENT if INITS[name].distribution == "uniform"]


def fans(shape):
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def drawn(name, shape, **options):
    return checks.draw_weight(INITS[name], shape, **options)


def filled(name, layer, **options):
    return checks.fill_layer(INITS[name], layer, **options)


def gain_of(name):
    return checks.default_gain(INITS[name])


def kurtosis_of(name):
    return checks.weight_kurtosis(INITS[name])


def declared_variance(name, n, m, gain):
    return checks.declared_variance(INITS[name], n, m, gain)


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("normal", 1e-4),
        ("uniform", 0.05**2 / 3),
        ("trunc_normal", 4e-4),
        ("weights_init", 4e-4),
        ("torch_default", 1 / (3 * 300)),
        ("lecun_normal", 1.7**2 / 300),
        ("lecun_uniform", 1.7**2 / 300),
        ("xavier_normal", 1.7**2 * 2 / 1000),
        ("xavier_uniform", 1.7**2 * 2 / 1000),
        ("kaiming_normal", 1.7**2 / 300),
        ("kaiming_uniform", 1.7**2 / 300),
        ("kaiming_misprint", 4 / 300),
    ],
)
def test_published_schemes_declare_the_variance_of_their_source(name, variance):
    """Expected values are worked out by hand for fan_in 300, fan_out 700 and a gain of 1.7."""
    assert declared_variance(name, 300, 700, 1.7) == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize("name", ["critical", "analytic"])
def test_computed_schemes_declare_the_variance_of_kaiming_for_relu(name):
    assert declared_variance(name, 300, 700, gain_of(name)) == pytest.approx(2 / 300, rel=1e-9)


@pytest.mark.parametrize("kind", LAYERS)
def test_fans(kind):
    build, n, m = LAYERS[kind]
    assert fans_of(build()) == (n, m)


def test_fans_are_what_is_counted():
    """Every weight and input 1, far from the border: the mean output is fan_in, the mean gradient fan_out."""
    for build, n, m in list(LAYERS.values())[3:-1]:
        layer = build()
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
        x = torch.ones(1, layer.in_channels, 44, 44, requires_grad=True)
        y = layer(x)
        inner = (..., slice(8, 16), slice(8, 16))  # a whole number of strides
        y.sum().backward()
        assert float(y.detach()[inner].mean()) == pytest.approx(n, rel=1e-5)
        assert float(x.grad[inner].mean()) == pytest.approx(m, rel=1e-5)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", INDEPENDENT)
def test_the_neighbouring_schemes_fail_the_same_test(name, kind):
    """All others fail; a rule within ten standard errors here is distinguished at another shape."""
    build, n, m = LAYERS[kind]
    declared, weight = declared_variance(name, n, m, gain_of(name)), filled(name, build())
    for other, rule in NEIGHBOURS.items():
        if separated(declared, rule(n, m), weight.numel(), kurtosis_of(name)):
            assert variance_deviation(weight, rule(n, m), kurtosis_of(name)) > SIGMAS, other


def separated(own, other, count, kurtosis):
    """Whether a sample of variance `own` is sure to lie off `other`: ten standard errors, in units of it."""
    return abs(own / other - 1) > 2 * SIGMAS * math.sqrt((kurtosis - 1) / count) * max(1.0, own / other)


def test_some_layer_tells_each_two_rules_apart():
    for (one, rule), (two, other) in combinations(NEIGHBOURS.items(), 2):
        apart = [
            kind
            for kind, (build, n, m) in LAYERS.items()
            if separated(rule(n, m), other(n, m), build().weight.numel(), 3.0)
        ]
        assert apart, (one, two)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", UNIFORM)
def test_uniform_schemes_keep_and_fill_their_bound(name, shape):
    """The largest of N draws is within 20/N of the bound but for a chance of e⁻²⁰; float32 rounds by 6e-8."""
    n, m = fans(shape)
    weight = drawn(name, shape)
    bound_ = math.sqrt(3 * declared_variance(name, n, m, gain_of(name)))
    largest = float(weight.abs().max())
    assert bound_ * (1 - 20 / weight.numel()) < largest <= bound_ * (1 + 1e-6)


def test_torch_default_draws_what_torch_draws():
    """Weight and bias have the bound of nn.Linear's reset_parameters."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(300, 400)
    bound_ = 1 / math.sqrt(300)
    assert float(linear.weight.detach().abs().max()) == pytest.approx(bound_, rel=1e-3)
    assert float(linear.bias.detach().abs().max()) == pytest.approx(bound_, rel=2e-2)
    assert float(drawn("torch_default", (400, 300)).abs().max()) == pytest.approx(bound_, rel=1e-3)
    assert math.sqrt(3) * INITS["torch_default"].bias_std(bound("relu"), 300) == pytest.approx(bound_)


@pytest.mark.parametrize("shape", NOT_SQUARE, ids=str)
@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_kaiming_fan_modes(kind, shape):
    n, m = fans(shape)
    name = f"kaiming_{kind}"
    for mode, fan, other in (("fan_in", n, m), ("fan_out", m, n)):
        weight = drawn(name, shape, mode=mode)
        assert variance_deviation(weight, 2 / fan, KURTOSIS[kind]) < SIGMAS
        assert variance_deviation(weight, 2 / other, KURTOSIS[kind]) > SIGMAS


def test_normal_std_is_an_option():
    assert variance_deviation(drawn("normal", (200, 300), std=0.3), 0.09, 3.0) < SIGMAS


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
    assert bool((drawn("ones", (3, 4)) == 1).all())
    assert bool((drawn("constant", (3, 4)) == 1).all())
    assert bool((drawn("constant", (3, 4), value=-0.25) == -0.25).all())


def test_kaiming_gain_follows_the_leaky_slope_and_else_is_root_two():
    gain = INITS["kaiming_normal"].default_gain
    assert gain(bound("relu")) == gain(bound("tanh")) == gain(bound("gelu")) == math.sqrt(2)
    assert gain(bound("leaky_relu", negative_slope=0.5)) == pytest.approx(math.sqrt(2 / 1.25), rel=1e-15)
    assert gain(bound("leaky_relu")) == pytest.approx(
        torch.nn.init.calculate_gain("leaky_relu", 0.01), rel=1e-15
    )
