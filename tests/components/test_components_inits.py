"""Every init scheme by its defining property; tolerances come from the sampling error.

Over N independent weights of variance v and kurtosis κ, the sample mean has the standard error √(v/N)
and the sample mean square v·√((κ−1)/N). Five of them leave a chance of 6e-7 a check, and seeds are fixed.
"""

import math
from itertools import combinations

import pytest
import torch
from scipy.stats import kstest, truncnorm
from torch import nn

from initbench.components.activation import bound
from initbench.components.init_scheme import INITS, SchemeRequirement
from initbench.models.fans import fans as fans_of
from initbench.models.init_weights import rule_for_module
from initbench.registry_choice import options_model

SIGMAS = 5.0
SHAPES = [(256, 256), (128, 512), (512, 128), (96, 32, 3, 3)]
NOT_SQUARE = SHAPES[1:]
KURTOSIS = {"normal": 3.0, "uniform": 1.8, "truncated": 3.0 + float(truncnorm(-2, 2).stats("k"))}

# Layers with fan_in and fan_out counted by hand: terms of an output's sum, outputs that an input enters.
LAYERS = {
    "square": (lambda: nn.Linear(256, 256), 256, 256),
    "wide": (lambda: nn.Linear(128, 512), 128, 512),
    "tall": (lambda: nn.Linear(512, 128), 512, 128),
    "conv": (lambda: nn.Conv2d(32, 96, 3), 32 * 9, 96 * 9),
    "grouped": (lambda: nn.Conv2d(64, 256, 3, groups=4), 16 * 9, 64 * 9),
    "depthwise": (lambda: nn.Conv2d(512, 512, 5, groups=512), 25, 25),
    "transposed": (lambda: nn.ConvTranspose2d(48, 96, 4, stride=2), 48 * 4, 96 * 16),
    "transposed in groups": (lambda: nn.ConvTranspose2d(64, 128, 3, stride=2, groups=2), 72, 64 * 9),
    "strided": (lambda: nn.Conv2d(64, 64, 3, stride=2), 64 * 9, 64 * 9 / 4),
    "kernel 1 × 7": (lambda: nn.Conv2d(48, 96, (1, 7), stride=(1, 2)), 48 * 7, 96 * 7 / 2),
    "conv1d": (lambda: nn.Conv1d(64, 96, 5), 320, 480),
}

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


def chosen_of(name, **options):
    needed = {"from": "elsewhere"} if name == "pretrained" else {}
    return options_model(INITS[name], "name")(**needed, **options)


def options_of(name, **options):
    return chosen_of(name, **options).model_dump(exclude={"name"})


def drawn(name, shape, *, gain=None, seed=0, **options):
    """A weight filled by the scheme, with its default gain for relu unless one is given."""
    scheme = INITS[name]
    n, m = fans(shape)
    weight = torch.full(shape, math.nan)
    generator = torch.Generator().manual_seed(seed)
    arguments = options_of(name, **options)
    scheme.fill(weight, fan_in=n, fan_out=m, gain=gain or gain_of(name), generator=generator, **arguments)
    return weight.double()


def filled(name, layer, *, gain=None, activation="relu", seed=0, **options):
    """The weight of `layer` as the second layer of a net has it drawn."""
    chosen = chosen_of(name, **options)
    rule = rule_for_module(layer, chosen, gain, bound(activation), 2)
    weight = torch.full(layer.weight.shape, math.nan)
    rule.fill(layer, weight, torch.Generator().manual_seed(seed))
    return weight.double()


def gain_of(name):
    scheme = INITS[name]
    if scheme.layer_gain:
        return scheme.layer_gain(bound("relu"), 2)
    return scheme.default_gain(bound("relu")) if scheme.default_gain else 1.0


def kurtosis_of(name):
    scheme = INITS[name]
    return scheme.kurtosis if scheme.distribution == "other" else KURTOSIS[scheme.distribution]


def declared_variance(name, n, m, gain):
    return INITS[name].variance(fan_in=n, fan_out=m, gain=gain, **options_of(name))


def deviation(weight, variance, kurtosis):
    """Return the deviation of the mean square from `variance`, in standard errors."""
    found = float(weight.square().mean())
    return abs(found / variance - 1) / math.sqrt((kurtosis - 1) / weight.numel())


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
def test_mean_and_variance(name, kind):
    build, n, m = LAYERS[kind]
    if INITS[name].takes_torch_fans:  # as torch counts them, of a transposed convolution too
        n, m = fans(build().weight.shape)
    for gain in (None, 1.7):
        if INITS[name].default_gain is None and gain is not None:
            continue
        weight = filled(name, build(), gain=gain)
        variance = declared_variance(name, n, m, gain or gain_of(name))
        assert abs(float(weight.mean())) < SIGMAS * math.sqrt(variance / weight.numel())
        assert deviation(weight, variance, kurtosis_of(name)) < SIGMAS


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", INDEPENDENT)
def test_the_neighbouring_schemes_fail_the_same_test(name, kind):
    """All others fail; a rule within ten standard errors here is distinguished at another shape."""
    build, n, m = LAYERS[kind]
    declared, weight = declared_variance(name, n, m, gain_of(name)), filled(name, build())
    for other, rule in NEIGHBOURS.items():
        if separated(declared, rule(n, m), weight.numel(), kurtosis_of(name)):
            assert deviation(weight, rule(n, m), kurtosis_of(name)) > SIGMAS, other


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


@pytest.mark.parametrize("name", [name for name in INDEPENDENT if INITS[name].distribution != "other"])
def test_shape_of_the_distribution(name):
    """Kolmogorov–Smirnov over 65,536 draws: at p = 1e-4 it tells the three distributions apart."""
    weight = drawn(name, (256, 256), seed=5)
    std = math.sqrt(declared_variance(name, 256, 256, gain_of(name)))
    uncut = std / truncnorm(-2, 2).std()
    candidates = {
        "uniform": ("uniform", (-math.sqrt(3) * std, 2 * math.sqrt(3) * std)),
        "normal": ("norm", (0, std)),
        "truncated": ("truncnorm", (-2, 2, 0, uncut)),
    }
    for kind, (cdf, arguments) in candidates.items():
        fits = kstest(weight.flatten().numpy(), cdf, args=arguments).pvalue > 1e-4
        assert fits == (kind == INITS[name].distribution), kind


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
        assert deviation(weight, 2 / fan, KURTOSIS[kind]) < SIGMAS
        assert deviation(weight, 2 / other, KURTOSIS[kind]) > SIGMAS


def test_normal_std_is_an_option():
    assert deviation(drawn("normal", (200, 300), std=0.3), 0.09, 3.0) < SIGMAS


@pytest.mark.parametrize("name", [scheme.name for scheme in INITS])
def test_a_fill_uses_its_own_generator_and_no_other(name):
    """Equal seeds give equal weights, independently of the global generator, which is not advanced."""
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = drawn(name, (32, 48), seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(drawn(name, (32, 48), seed=7), first)
    assert bool(first.isfinite().all())
    assert torch.equal(drawn(name, (32, 48), seed=8), first) is not INITS[name].is_random


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


@pytest.mark.parametrize("name", [scheme.name for scheme in INITS])
def test_what_a_scheme_needs_is_there(name):
    scheme = INITS[name]
    assert (scheme.calibrate is not None) == (scheme.needs is SchemeRequirement.FIRST_BATCH)
    assert (scheme.edit is not None) == (scheme.needs is SchemeRequirement.MODEL_EDIT)
    assert scheme.default_gain is None or scheme.layer_gain is None
    assert (scheme.kurtosis is not None) == (scheme.distribution == "other")


def test_kaiming_gain_follows_the_leaky_slope_and_else_is_root_two():
    gain = INITS["kaiming_normal"].default_gain
    assert gain(bound("relu")) == gain(bound("tanh")) == gain(bound("gelu")) == math.sqrt(2)
    assert gain(bound("leaky_relu", negative_slope=0.5)) == pytest.approx(math.sqrt(2 / 1.25), rel=1e-15)
    assert gain(bound("leaky_relu")) == pytest.approx(
        torch.nn.init.calculate_gain("leaky_relu", 0.01), rel=1e-15
    )
