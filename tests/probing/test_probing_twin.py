"""The probe against a slow twin: a forward written by hand, statistics in plain numpy.

Nets are in float64 here, so that the two may differ by roundings of 1e-16 alone.
"""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from initbench.components.activation import ACTIVATIONS
from initbench.components.norm import NORMS
from initbench.components.parametrized_weight import assign_weight, weight_of
from initbench.components.target import SampleShape
from initbench.models.build import build
from initbench.models.init_weights import InitOptions
from initbench.models.network import FAMILIES
from initbench.probing import tensor_statistics
from initbench.probing.model_inputs import as_inputs
from initbench.probing.module_probe import probe_module
from initbench.probing.network_probe import first_non_finite_layer, probe
from initbench.probing.tensor_statistics import ProbeDetail
from initbench.registry_choice import options_model

REL = 1e-9
SAMPLES, FEATURES, CLASSES, BINS = 96, 12, 5, 8


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(samples=SAMPLES):
    return torch.randint(0, CLASSES, (samples,), generator=torch.Generator().manual_seed(2))


def net(init=None, *, double=True, **model):
    options = options_model(FAMILIES["mlp"], "family")(**{"depth": 4, "width": 16, **model})
    init = InitOptions.model_validate(init or {"scheme": "torch_default"})
    network = build(options, init, form=SampleShape((FEATURES,), CLASSES), seed=0, batch=noise(32, FEATURES))
    return network.double() if double else network


def probed(network, *, detail=ProbeDetail.FULL, x=None, bins=BINS):
    x = noise(SAMPLES, FEATURES).to(network.head.weight.dtype) if x is None else x
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    buffers = dict(network.named_buffers())
    return probe(
        network,
        parameters,
        buffers,
        x=x,
        y=labels(len(x)),
        loss=F.cross_entropy,
        bins=bins,
        detail=detail,
    )


def by_hand(network, activation, norm, placement):
    """Pre-activations, activations and weights of a forward pass, and the gradients of both."""

    def normed(h):
        if norm == "none":
            return h
        mean, variance = h.mean(0), h.var(0, correction=0)
        return (h - mean) / (variance + 1e-5).sqrt()

    h, pres, acts, weights = noise(SAMPLES, FEATURES).double(), [], [], []
    for block in network.blocks:
        weights.append(block.linear.weight.detach().clone().requires_grad_())
        h = F.linear(h, weights[-1], block.linear.bias.detach())
        pres.append(normed(h) if placement == "before_activation" else h)
        acts.append(activation(pres[-1]))
        h = acts[-1] if placement == "before_activation" else normed(acts[-1])
    weights.append(network.head.weight.detach().clone().requires_grad_())
    pres.append(F.linear(h, weights[-1], network.head.bias.detach()))
    loss = F.cross_entropy(pres[-1], labels())
    gradients = torch.autograd.grad(loss, [*pres, *weights])
    numpy = [[t.detach().numpy() for t in part] for part in (pres, acts, weights, gradients)]
    return (*numpy[:3], numpy[3][: len(pres)], numpy[3][len(pres) :])


def cosine_by_pairs(x):
    rows = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = [rows[i] @ rows[j] for i in range(len(x)) for j in range(len(x)) if i != j]
    return np.mean(pairs)


def rank_by_covariance(x):
    share = np.clip(np.linalg.eigvalsh(np.cov(x.T, bias=True)), 0, None)
    share = share[share > 0] / share.sum()
    return np.exp(-(share * np.log(share)).sum())


FUNCTIONS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "linear": lambda x: x}
SLOPES = {"tanh": lambda x: 1 / np.cosh(x) ** 2, "sigmoid": lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2}


@pytest.mark.parametrize("scheme", ["torch_default", {"name": "normal", "std": 1.5}])
@pytest.mark.parametrize("placement", ["before_activation", "after_activation"])
@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("activation", FUNCTIONS)
def test_every_statistic_equals_the_twins(activation, norm, placement, scheme):
    assert_equal_to_the_twins({"scheme": scheme}, activation, norm, placement)


DYING = {"scheme": {"name": "normal", "std": 1.5}, "bias": -9.0}


def test_every_statistic_of_a_dying_net_equals_the_twins():
    assert_equal_to_the_twins(DYING, "relu", "none", "before_activation")


def assert_equal_to_the_twins(init, activation, norm, placement):
    network = net(init, activation=activation, norm=norm, norm_placement=placement)
    records = probed(network)
    pres, acts, weights, deltas, slopes = by_hand(network, FUNCTIONS[activation], norm, placement)
    assert [r["index"] for r in records] == [1, 2, 3, 4]
    assert [r["name"] for r in records] == ["blocks.0.linear", "blocks.1.linear", "blocks.2.linear", "head"]
    low, high = ACTIVATIONS[activation].histogram_range
    for i, record in enumerate(records):
        h, delta = pres[i], deltas[i]
        pre, grad = record["pre"], record["grad"]
        # A mean over a normed layer is a sum of what cancels: 0 up to rounding.
        assert pre["mean"] == pytest.approx(h.mean(), rel=REL, abs=1e-12)
        assert pre["std"] == pytest.approx(h.std(), rel=REL)
        assert pre["q"] == pytest.approx((h**2).mean(), rel=REL)
        assert pre["signal"] == pytest.approx(h.var(axis=0).mean(), rel=REL)
        assert pre["correlation"] == pytest.approx(cosine_by_pairs(h), rel=REL, abs=1e-12)
        quantiles = np.quantile(h, [0.01, 0.25, 0.5, 0.75, 0.99])
        assert list(pre["quantiles"]) == ["p01", "p25", "p50", "p75", "p99"]
        assert list(pre["quantiles"].values()) == pytest.approx(quantiles, rel=REL, abs=1e-12)
        assert grad["pre_q"] == pytest.approx((delta**2).mean(), rel=REL)
        assert grad["zero_fraction"] == (delta == 0).mean()
        assert grad["weight_norm"] == pytest.approx(np.sqrt((slopes[i] ** 2).sum()), rel=REL)
        assert record["weight_std"] == pytest.approx(weights[i].std(), rel=REL)
        assert record["units"] == len(weights[i])
        if i == len(acts):
            assert record["act"] is None
            continue
        a, act = acts[i], record["act"]
        assert act["mean"] == pytest.approx(a.mean(), rel=REL, abs=1e-12)
        assert act["std"] == pytest.approx(a.std(), rel=REL)
        assert act["q"] == pytest.approx((a**2).mean(), rel=REL)
        assert act["zero_fraction"] == (a == 0).mean()
        assert act["dead_fraction"] == (a == 0).all(axis=0).mean()
        assert act["effective_rank"] == pytest.approx(rank_by_covariance(a), rel=1e-7)
        if activation in SLOPES:
            slope = SLOPES[activation](h)
            limit = 0.05 * (1.0 if activation == "tanh" else 0.25)
            assert act["saturated_fraction"] == (slope < limit).mean()
        else:
            assert act["saturated_fraction"] is None
        counts, edges = np.histogram(a, bins=BINS, range=(low, high))
        assert act["histogram"]["counts"] == counts.tolist()
        assert act["histogram"]["edges"] == pytest.approx(edges, abs=1e-12)
        assert act["histogram"]["below"] == (a < low).sum()
        assert act["histogram"]["above"] == (a > high).sum()
        assert act["histogram"]["nan"] == 0


def test_the_twin_meets_zeros_dead_units_saturation_and_outliers():
    """None of the fractions that are compared above is 0 in all nets."""
    relu = probed(net(DYING))
    tanh = probed(net({"scheme": {"name": "normal", "std": 1.5}}, activation="tanh"))
    assert any(0 < r["act"]["dead_fraction"] < r["act"]["zero_fraction"] < 1 for r in relu[:-1])
    assert 0 < relu[0]["grad"]["zero_fraction"] < 1
    assert 0.3 < tanh[1]["act"]["saturated_fraction"] < 1
    assert probed(net({"scheme": {"name": "normal", "std": 1.5}}))[1]["act"]["histogram"]["above"] > 0


def test_float32_nets_agree_with_float64_ones():
    """Forward roundings of 6e-8 over four layers."""
    single, double = net(double=False), net()
    for a, b in zip(probed(single), probed(double), strict=True):
        assert a["pre"]["q"] == pytest.approx(b["pre"]["q"], rel=1e-5)
        assert a["grad"]["pre_q"] == pytest.approx(b["grad"]["pre_q"], rel=1e-5)
        assert a["grad"]["weight_norm"] == pytest.approx(b["grad"]["weight_norm"], rel=1e-5)


def test_what_is_too_slow_for_every_evaluation_is_left_out():
    brief, full = probed(net(), detail=ProbeDetail.EVALUATION), probed(net())
    assert "jacobian" in full[0]
    for a, b in zip(brief, full, strict=True):
        assert "quantiles" not in a["pre"]
        assert "jacobian" not in a
        assert a["grad"] == b["grad"]
        assert {k: v for k, v in b["pre"].items() if k != "quantiles"} == a["pre"]
        if a["act"] is not None:
            assert {k: v for k, v in b["act"].items() if k != "effective_rank"} == a["act"]


def held_by(small, large):
    """Return the entries of `large` with the keys of `small`, at every depth of nested records."""
    return {k: held_by(v, large[k]) if isinstance(v, dict) else large[k] for k, v in small.items()}


@pytest.mark.parametrize("init", ["torch_default", {"name": "constant", "value": 0.1}, "zeros"])
@pytest.mark.parametrize(("activation", "norm"), [("relu", "none"), ("tanh", "batch"), ("relu", "weight")])
def test_a_diagnosis_reads_the_same_numbers(activation, norm, init):
    network = net({"scheme": init}, activation=activation, norm=norm)
    brief, whole = (probed(network, detail=d) for d in (ProbeDetail.DIAGNOSIS, ProbeDetail.EVALUATION))
    for a, b in zip(brief, whole, strict=True):
        normed = norm == "batch" and b["act"] is not None
        assert set(b) - set(a) == {"weight_std"} | ({"batch_norm"} if normed else set())
        assert a["pre"].keys() == {"mean", "std", "q", "signal"}
        assert a["grad"].keys() == {"pre_q"}
        assert (a["unit_spread"] > tensor_statistics.ALIKE) == (b["unit_spread"] > tensor_statistics.ALIKE)
        if b["unit_spread"] <= tensor_statistics.ALIKE:
            assert a["unit_spread"] == b["unit_spread"]
        assert a | {"unit_spread": b["unit_spread"]} == held_by(a, b)


@pytest.mark.parametrize("family", ["resnet", "resnet_mlp", "cnn", "torchvision"])
def test_the_gradient_reaches_every_layer_in_a_diagnosis(family):
    """Though the first weight's alone is asked for, in nets with branches too."""
    options = options_model(FAMILIES[family], "family")()
    network = build(
        options, InitOptions(), form=SampleShape((3, 32, 32), CLASSES), seed=0, batch=noise(4, 3, 32, 32)
    )
    x = noise(6, 3, 32, 32)
    brief, whole = (probed(network, detail=d, x=x) for d in (ProbeDetail.DIAGNOSIS, ProbeDetail.EVALUATION))
    assert [r["grad"]["pre_q"] for r in brief] == [r["grad"]["pre_q"] for r in whole]
    assert all(r["grad"]["pre_q"] is not None for r in brief)


def hooks_of(network):
    """Return the hooks of each module; norm layers have one for other precisions than float32."""
    modules = network.named_modules()
    return {name: [*module._forward_hooks, *module._forward_pre_hooks] for name, module in modules}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_nothing_of_the_network_changes(norm, training):
    network = net(norm=norm)
    network.train(training)
    network.blocks[1].eval()  # a mode that is not the same throughout
    modes = {name: module.training for name, module in network.named_modules()}
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    requires = {name: p.requires_grad for name, p in network.named_parameters()}
    random, hooks = torch.random.get_rng_state(), hooks_of(network)
    first = probed(network)
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert {name: p.requires_grad for name, p in network.named_parameters()} == requires
    assert all(p.grad is None for p in network.parameters())
    assert hooks_of(network) == hooks
    assert torch.equal(torch.random.get_rng_state(), random)
    assert probed(network) == first


def test_modes_and_hooks_are_put_back_after_a_failure():
    network = net(norm="batch").eval()
    hooks = hooks_of(network)
    with pytest.raises(RuntimeError):
        probed(network, x=noise(8, FEATURES + 1).double())
    assert not any(module.training for module in network.modules())
    assert hooks_of(network) == hooks


def test_batch_norm_is_probed_with_the_batchs_statistics():
    """Its output has mean 0 and std 1 in training mode; by its running statistics it has neither."""
    network = net({"scheme": {"name": "normal", "std": 3.0}}, norm="batch").eval()
    first = probed(network)[0]["pre"]
    assert first["mean"] == pytest.approx(0, abs=1e-12)
    assert first["std"] == pytest.approx(1, rel=1e-4)
    assert float(network.blocks[0](noise(SAMPLES, FEATURES).double()).std()) > 2


def test_a_collapsing_net_has_no_false_zeros():
    """Pitfall 7: q falls by 1/6 a layer to 1e-46, below float32's smallest number; float32 squares are 0."""
    network = net(depth=62, width=64, bias=False, double=False)
    records = probed(network, detail=ProbeDetail.EVALUATION)
    q = [record["pre"]["q"] for record in records]
    delta = [record["grad"]["pre_q"] for record in records]
    assert 0 < q[-2] < 1e-45
    assert 0 < delta[0] < 1e-45
    exact = probed(network.double(), detail=ProbeDetail.EVALUATION)
    assert q == pytest.approx([record["pre"]["q"] for record in exact], rel=1e-4)
    assert delta == pytest.approx([record["grad"]["pre_q"] for record in exact], rel=1e-4)
    # Theory's 1/6 a layer within its scatter: log q over 60 layers has std √(5·60/64) = 2.2, by mean −2.3.
    assert math.log(q[-2] / q[0]) == pytest.approx(-60 * math.log(6), abs=2.3 + 4 * 2.2)


def test_duplicated_units_show_as_no_spread():
    assert all(r["unit_spread"] > 0.1 for r in probed(net()))
    assert all(
        r["unit_spread"] < 1e-12 for r in probed(net({"scheme": {"name": "constant", "value": 0.1}}))[:-1]
    )
    twins = net()
    with torch.no_grad():
        twins.blocks[1].linear.weight[:] = twins.blocks[1].linear.weight[:1]
        twins.blocks[1].linear.bias[:] = twins.blocks[1].linear.bias[:1]
    # The same function for now, but the gradient tells them apart: not symmetric.
    assert probed(twins)[1]["unit_spread"] > 0.1


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_effective_rank_of_a_known_covariance(rank):
    """Orthogonal features of equal variance, over as many dimensions as the rank."""
    basis, _ = torch.linalg.qr(noise(200, rank).double() - noise(200, rank).double().mean(0))
    basis = basis - basis.mean(0)
    basis, _ = torch.linalg.qr(basis)
    turned = basis @ torch.linalg.qr(noise(9, 9, seed=3).double())[0][:rank]
    assert tensor_statistics.effective_rank(turned) == pytest.approx(rank, rel=1e-9)
    assert tensor_statistics.effective_rank(7 * turned + 3) == pytest.approx(rank, rel=1e-9)
    assert tensor_statistics.effective_rank(turned[:, :3]) <= 3 + 1e-9


def test_effective_rank_of_unequal_eigenvalues_and_of_nothing():
    column = torch.tensor([1.0, -1.0, 0.0, 0.0], dtype=torch.float64)
    x = torch.stack([2 * column, column.flip(0)], dim=1)  # variances 4 : 1, uncorrelated
    expected = math.exp(-(0.8 * math.log(0.8) + 0.2 * math.log(0.2)))
    assert tensor_statistics.effective_rank(x) == pytest.approx(expected, rel=1e-9)
    assert tensor_statistics.effective_rank(torch.ones(4, 3, dtype=torch.float64)) is None
    assert tensor_statistics.effective_rank(torch.full((4, 3), math.nan)) is None


def test_correlation_of_known_rows():
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]], dtype=torch.float64)
    assert tensor_statistics.correlation(x) == pytest.approx(1 / 3)
    assert tensor_statistics.correlation(x[:1]) is None
    assert tensor_statistics.correlation(torch.cat([x, torch.zeros(1, 2)])) is None


def test_histogram_places_edges_outliers_and_what_is_no_number():
    x = torch.tensor([-5.0, -1.0, -0.5, 0.0, 0.999, 1.0, 1.001, math.inf, -math.inf, math.nan, math.nan])
    found = tensor_statistics.histogram(x.double(), (-1.0, 1.0), 4)
    assert found == {
        "edges": [-1.0, -0.5, 0.0, 0.5, 1.0],
        "counts": [1, 1, 1, 2],
        "below": 2,
        "above": 2,
        "nan": 2,
    }
    assert float(x[1]) == -1.0  # not changed in place
    total = sum(found["counts"]) + found["below"] + found["above"] + found["nan"]
    assert total == x.numel()


@pytest.mark.parametrize("lost", [1, 3, 4])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_first_non_finite_layer(lost, value):
    network = net(norm="batch")
    parameters = {name: p.detach().clone() for name, p in network.named_parameters()}
    buffers = {name: b.clone() for name, b in network.named_buffers()}
    x = noise(SAMPLES, FEATURES).double()
    assert first_non_finite_layer(network, parameters, buffers, x) is None
    name = network.weight_layers()[lost - 1].name
    parameters[f"{name}.weight"][0, 0] = value
    assert first_non_finite_layer(network, parameters, buffers, x) == lost
    assert all(torch.equal(b, buffers[name]) for name, b in network.named_buffers())
    assert not any(m._forward_hooks for m in network.modules())
    assert bool(network(x).isfinite().all())


def test_the_probe_survives_a_net_that_has_diverged():
    network = net(double=False)
    with torch.no_grad():
        network.blocks[1].linear.weight.fill_(math.nan)
    records = probed(network)
    assert math.isfinite(records[0]["pre"]["q"])
    assert math.isnan(records[1]["pre"]["q"])
    assert records[1]["act"]["histogram"]["nan"] == SAMPLES * 16
    assert records[1]["act"]["effective_rank"] is None


SPREAD = {"scheme": {"name": "normal", "std": 0.4}}
DERIVED = [entry.name for entry in NORMS if entry.acts_on == "weights"]


def test_a_weight_norm_that_starts_at_the_init_is_probed_as_the_plain_net():
    """g·v/‖v‖ is v at the start, so what the layers compute, and its gradient, is the plain net's.

    Up to g, which the init leaves in float32: 6e-8.
    """
    plain, normed = (probed(net(SPREAD, norm=norm)) for norm in ("none", "weight"))
    for one, other in zip(plain, normed, strict=True):
        assert other["name"] == one["name"]
        assert other["units"] == one["units"]
        for key in ("weight_std", "unit_spread"):
            assert other[key] == pytest.approx(one[key], rel=1e-6)
        assert other["grad"]["weight_norm"] == pytest.approx(one["grad"]["weight_norm"], rel=1e-6)
        assert other["pre"]["std"] == pytest.approx(one["pre"]["std"], rel=1e-6)


@pytest.mark.parametrize("norm", [name for name in DERIVED if name != "cosine"])
def test_weight_statistics_are_those_of_the_weight_that_multiplies(norm):
    """Against a plain net that holds the derived weights as its own."""
    network, twin = net(SPREAD, norm=norm), net(SPREAD)
    # The probe's pass is one more power iteration; many before it leave nothing for it to change.
    for _ in range(500):
        network(noise(8, FEATURES).double())
    for layer, other in zip(network.weight_layers(), twin.weight_layers(), strict=True):
        assign_weight(other.module, weight_of(layer.module).detach())
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for record, expected in zip(probed(network), probed(twin), strict=True):
        assert record["weight_std"] == pytest.approx(expected["weight_std"], rel=1e-6)
        assert record["unit_spread"] == pytest.approx(expected["unit_spread"], rel=1e-6)
        assert record["grad"]["weight_norm"] == pytest.approx(expected["grad"]["weight_norm"], rel=1e-6)
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("norm", DERIVED)
def test_units_that_a_norm_leaves_alike_are_seen(norm):
    network = net({"scheme": {"name": "constant", "value": 0.1}}, norm=norm)
    assert probed(network)[1]["unit_spread"] < 1e-6
    assert probed(net(SPREAD, norm=norm))[1]["unit_spread"] > 0.1


class TestTracer:
    """`probe` traces the nets that training measures by hooks of known layers; both see the same numbers."""

    @pytest.mark.parametrize(
        "model",
        [
            {"activation": "relu"},
            {"activation": "gelu", "bias": False},
            {"activation": "crelu"},
            {"activation": "maxout"},
            {"activation": "tanh", "norm": "batch"},
            {"activation": "relu", "norm": "layer", "norm_placement": "after_activation"},
            {"activation": "relu", "norm": "weight"},
            {"family": "resnet_mlp", "depth": 6},
            {"family": "cnn", "width": 8, "norm": "group"},
            {"family": "resnet", "depth": 8, "width": 4},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("samples", [16, 24])
    def test_it_measures_what_the_hooks_measure(self, model, samples):
        """With 16 samples, the output of a layer of 16 units is square, and its axes look alike."""
        family = model.get("family", "mlp")
        shape = (2, 8, 8) if family in ("cnn", "resnet") else (FEATURES,)
        options = {"width": 16, "depth": 4, **{key: value for key, value in model.items() if key != "family"}}
        settings = options_model(FAMILIES[family], "family")(**options)
        network = build(
            settings, InitOptions(), form=SampleShape(shape, CLASSES), seed=0, batch=noise(32, *shape)
        )
        x = noise(samples, *shape)
        traced = probe_module(network, as_inputs(x), labels(samples)).records
        hooked = probed(network, detail=ProbeDetail.DIAGNOSIS, x=x)
        assert [
            {key: record[key] for key in hook} for record, hook in zip(traced, hooked, strict=True)
        ] == hooked
