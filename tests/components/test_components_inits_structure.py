"""Schemes whose weights depend on each other: orthogonal, sparse, identity and mirrored ones."""

import pytest
import torch
from torch import nn
from torch.nn.functional import pad

from initbench.components.activation import ACTIVATIONS, bound
from initbench.components.init_scheme import INITS
from initbench.components.inits.mean_field_schemes import critical_of
from initbench.components.target import SampleShape
from initbench.models.build import build
from initbench.models.init_weights import InitOptions, rule_for_module
from initbench.models.network import FAMILIES
from initbench.registry_choice import options_model
from initbench.theory.criticality import critical_point


def fill(layer, name, *, gain=None, activation="relu", index=2, seed=0, **options):
    """`layer` with its weight drawn and its bias 0."""
    rule = rule_for_module(
        layer, options_model(INITS[name], "name")(**options), gain, bound(activation), index
    )
    with torch.no_grad():
        weight = torch.full(layer.weight.shape, float("nan"))
        rule.fill(layer, weight, torch.Generator().manual_seed(seed))
        layer.weight.copy_(weight)
        nn.init.zeros_(layer.bias)
    return layer.double()


def problem(layer, name, index=2):
    return rule_for_module(layer, options_model(INITS[name], "name")(), None, bound("relu"), index).problem(
        layer
    )


def mlp(init, *, depth=6, width=64, seed=0, features=64, classes=10, samples=256, **model):
    options = options_model(FAMILIES["mlp"], "family")(**{"depth": depth, "width": width, **model})
    x = torch.randn(samples, features, generator=torch.Generator().manual_seed(1))
    init = InitOptions.model_validate({"scheme": init})
    return build(options, init, form=SampleShape((features,), classes), seed=seed, batch=x), x


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("gain", [None, 1.7])
def test_delta_orthogonal_keeps_norms_through_a_circular_convolution(kernel, groups, gain):
    """‖y‖ = gain·‖x‖ for every image, to float32's rounding of the weight; orthogonal alone does not."""
    x = torch.randn(6, 16, 9, 9, generator=torch.Generator().manual_seed(3)).double()

    def ratio(name):
        conv = nn.Conv2d(16, 24, kernel, padding=kernel // 2, padding_mode="circular", groups=groups)
        return fill(conv, name, gain=gain)(x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)

    assert torch.allclose(ratio("delta_orthogonal"), torch.full((6,), gain or 1.0).double(), rtol=1e-5)
    assert kernel == 1 or not torch.allclose(ratio("orthogonal"), ratio("delta_orthogonal"), rtol=1e-2)


def test_delta_orthogonal_refuses_to_lose_channels():
    assert "not 16 in and 8 out" in problem(nn.Conv2d(16, 8, 3), "delta_orthogonal")
    assert problem(nn.Conv2d(16, 16, 3), "delta_orthogonal") is None
    assert "not 8 in and 4 out" in problem(nn.Conv2d(16, 8, 3, groups=2), "delta_orthogonal"), "each group"
    assert problem(nn.ConvTranspose2d(8, 16, 3), "delta_orthogonal") is None
    matrix = fill(nn.Linear(16, 8), "delta_orthogonal").weight
    assert torch.allclose(matrix @ matrix.T, torch.eye(8).double(), atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "rows"),
    [
        (nn.Conv2d(8, 40, 3, groups=4), lambda w: w.unflatten(0, (4, 10)).flatten(2)),
        (nn.Conv2d(6, 6, 3, groups=6), lambda w: w.unflatten(0, (6, 1)).flatten(2)),
        (nn.ConvTranspose2d(6, 4, 3), lambda w: w.transpose(0, 1).flatten(1)[None]),
    ],
)
def test_every_group_is_an_orthogonal_map_of_its_own(layer, rows):
    for block in rows(fill(layer, "orthogonal").weight):
        assert torch.allclose(block @ block.T, torch.eye(len(block)).double(), atol=1e-5)


@pytest.mark.parametrize("name", ["dirac", "identity"])
def test_the_identity_hands_on_its_input(name):
    x = torch.randn(4, 12, 7, 7).double()
    if name == "dirac":
        for groups in (1, 3):
            conv = nn.Conv2d(12, 12, 3, padding=1, groups=groups)
            assert torch.allclose(fill(conv, name)(x), x)
            assert torch.allclose(fill(nn.Conv2d(12, 12, 3, padding=1), name, gain=2.0)(x), 2 * x)
        deconv = nn.ConvTranspose2d(12, 12, 3, padding=1)
        assert torch.allclose(fill(deconv, name)(x), x)
    else:
        assert "dirac" in problem(nn.Conv2d(12, 12, 3), name)
        assert problem(nn.Linear(12, 12), name) is None
    flat = x[:, :, 0, 0]
    assert torch.equal(fill(nn.Linear(12, 12), name)(flat), flat)
    assert torch.equal(fill(nn.Linear(12, 20), name)(flat), pad(flat, (0, 8)))


@pytest.mark.parametrize("layer", [nn.Linear(300, 200), nn.Conv2d(16, 64, 3), nn.Conv2d(64, 64, 3, groups=4)])
def test_sparse_has_exactly_fifteen_inputs_a_unit(layer):
    """The chosen inputs are spread evenly: a count over m units is binomial."""
    rows = fill(layer, "sparse").weight.detach().flatten(1)
    assert bool(((rows != 0).sum(1) == 15).all())
    share, units = 15 / rows.shape[1], rows.shape[0]
    counts = (rows != 0).sum(0).double()
    assert float((counts - units * share).abs().max()) < 6 * (units * share * (1 - share)) ** 0.5
    values = rows[rows != 0]
    assert abs(float(values.square().mean()) - 1) < 5 * (2 / len(values)) ** 0.5
    assert abs(float(values.mean())) < 5 / len(values) ** 0.5


def test_sparse_options():
    assert bool((fill(nn.Linear(9, 20), "sparse").weight != 0).all())
    rows = fill(nn.Linear(90, 400), "sparse", connections=4, std=0.5).weight
    assert bool(((rows != 0).sum(1) == 4).all())
    assert float(rows[rows != 0].detach().square().mean()) == pytest.approx(0.25, rel=5 * (2 / 1600) ** 0.5)


def test_a_net_that_looks_linear_is_linear():
    """f(a + b) = f(a) + f(b) without biases, in float64; with plain orthogonal weights it is not."""

    def additive(init):
        network, x = mlp(init, activation="crelu", depth=8)
        f, a, b = network.double(), x[:128].double(), x[128:].double()
        return torch.allclose(f(a + b), f(a) + f(b), atol=1e-5 * float(f(a).detach().std()))

    assert additive("looks_linear")
    assert not additive("orthogonal")


def test_a_net_that_looks_linear_keeps_lengths():
    """64 → 64 and onward, each an orthogonal map: the last hidden layer's ‖h‖ is ‖x‖ to float32."""
    network, x = mlp("looks_linear", activation="crelu", depth=8, width=64, classes=64)
    assert torch.allclose(network(x).norm(dim=1), x.norm(dim=1), rtol=1e-4)


def test_looks_linear_mirrors_kernels_too():
    conv = fill(nn.Conv2d(16, 8, 3, padding=1), "looks_linear")
    x = torch.randn(2, 8, 5, 5).double()
    crelu = torch.cat([x.relu(), (-x).relu()], 1)
    half = nn.functional.conv2d(x, conv.weight[:, :8], padding=1)
    assert torch.allclose(conv(crelu), half)
    assert "two halves" in problem(nn.Conv2d(15, 8, 3), "looks_linear")
    assert problem(nn.Conv2d(15, 8, 3), "looks_linear", index=1) is None, "the first is not mirrored"


SOLVABLE = [n for n in ACTIVATIONS.names() if n not in ("softplus", "squared_relu")]


@pytest.mark.parametrize("name", SOLVABLE)
def test_critical_is_a_stable_fixed_point_with_chi_one(name):
    """In the limit q → 0 the three hold at a q of 1e-12, up to terms of its root."""
    phi = bound(name)
    point = critical_of(phi)
    q = point.q or 1e-12
    sigmas = {"sigma_w2": point.sigma_w2, "sigma_b2": point.sigma_b2}
    assert point.sigma_b2 >= 0
    assert phi.chi(q, sigma_w2=point.sigma_w2) / phi.widening == pytest.approx(1, rel=1e-5)
    assert phi.length_map(q, **sigmas) == pytest.approx(q, rel=1e-5)
    growth = phi.length_map(1.001 * q, **sigmas) - phi.length_map(0.999 * q, **sigmas)
    assert growth / (0.002 * q) < 1 + 1e-6  # towards q*, or for relu not away from it
    # The smallest σ_b² is 0, or stands where stability begins.
    assert point.sigma_b2 < 1e-9 * q or growth / (0.002 * q) > 1 - 1e-6


@pytest.mark.parametrize("name", SOLVABLE)
def test_no_smaller_bias_variance_is_critical_and_stable(name):
    """Every other q of a grid has a larger σ_b², or none, or is unstable by a finite difference."""
    phi, found = bound(name), critical_of(bound(name))
    for exponent in range(-30, 31):
        q = 10 ** (exponent / 10)
        chi = phi.chi(q, sigma_w2=1.0) / phi.widening
        if chi <= 0:
            continue
        sigma_w2 = 1 / chi
        sigma_b2 = q - phi.length_map(q, sigma_w2=sigma_w2)
        growth = phi.length_map(1.0001 * q, sigma_w2=sigma_w2) - phi.length_map(0.9999 * q, sigma_w2=sigma_w2)
        if sigma_b2 > -1e-9 * q and growth / (0.0002 * q) < 1 - 1e-6:
            assert sigma_b2 >= found.sigma_b2 - 1e-9


def test_critical_points_of_the_literature():
    """relu (2, 0) of He 2015; tanh (1, 0) of Schoenholz 2017; silu and elu by the same equations."""
    assert critical_of(bound("relu")).sigma_w2 == pytest.approx(2, rel=1e-12)
    assert critical_of(bound("tanh")).sigma_w2 == pytest.approx(1, abs=1e-6)
    assert critical_of(bound("relu")).sigma_b2 == critical_of(bound("tanh")).sigma_b2 == 0
    assert critical_of(bound("gelu")).sigma_b2 > 0.1
    # E[cos²(√q z)] = (1 + e^(−2q))/2, so that sin has σ_w² → 1.
    assert critical_of(bound("sin")).sigma_w2 == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", ["softplus", "squared_relu"])
def test_critical_says_where_there_is_none(name):
    with pytest.raises(ValueError, match="no stable q"):
        critical_of(bound(name))


def test_a_function_without_slope_has_no_critical_point():
    with pytest.raises(ValueError, match="no stable q"):
        critical_point(lambda q: 1.0, lambda q: 0.0)


def test_critical_draws_its_weights_and_biases():
    """gelu: n·Var(w) and Var(b) over 5 layers of 400; N normals have the relative error √(2/N)."""
    network, _ = mlp("critical", activation="gelu", width=400, features=400, depth=6)
    point = critical_of(bound("gelu"))
    blocks = [layer.module for layer in network.weight_layers()[:-1]]
    weights, biases = (
        torch.cat([getattr(b, part).detach().flatten() for b in blocks]) for part in ("weight", "bias")
    )
    for values, variance in ((weights, point.sigma_w2 / 400), (biases, point.sigma_b2)):
        assert float(values.double().square().mean()) == pytest.approx(
            variance, rel=5 * (2 / len(values)) ** 0.5
        )


def last_q(init, activation, seeds=4, **model):
    """log q of the last hidden layer of wide nets, averaged over seeds."""
    logs = []
    for seed in range(seeds):
        network, x = mlp(
            init, activation=activation, width=512, features=512, depth=8, samples=64, seed=seed, **model
        )
        found = []
        network.weight_layers()[-2].module.register_forward_hook(
            lambda _m, _i, out, found=found: found.append(out.detach().square().mean().log())
        )
        network(x)
        logs += found
    return float(torch.stack(logs).mean())


@pytest.mark.parametrize("activation", ["tanh", "gelu", "selu", "relu", "sigmoid", "softplus", "maxout"])
def test_analytic_keeps_q_at_one(activation):
    """For relu Var(log q) = (5(L − 1) + 2)/n = 0.063 at L = 7, n = 512, and its mean is half of that lower.
    Over four nets the standard error is 0.125; the other activations vary less or alike.
    """
    assert abs(last_q("analytic", activation) + 0.03) < 4 * 0.125


@pytest.mark.parametrize("activation", ["tanh", "gelu", "sigmoid"])
def test_plain_lecun_fails_the_same_test(activation):
    assert abs(last_q("lecun_normal", activation) + 0.03) > 4 * 0.125


def test_analytic_has_a_gain_of_one_in_the_first_layer():
    network, _ = mlp("analytic", activation="sigmoid", width=512, features=512)
    first, second = (layer.module.weight.detach() for layer in network.weight_layers()[:2])
    ratio = float(second.std() / first.std())
    assert ratio == pytest.approx(bound("sigmoid").preserving_gain, rel=5 * (1 / 512**2) ** 0.5)
