"""apply_init on modules of every kind: what it sets, what it leaves, what it says."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import initbench
from initbench import apply_init
from initbench.components.init_scheme import INITS, SchemeRequirement
from initbench.components.target import SampleShape
from initbench.errors import UsageError
from initbench.models.build import build
from initbench.models.init_weights import InitOptions
from initbench.models.network import FAMILIES
from initbench.registry_choice import options_model


def batch(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4))


def rows(report):
    return {row.name: row for row in report.set}


def left(report):
    return {row.name: row.why for row in report.left}


def test_importing_initbench_loads_no_torch():
    code = "import sys, initbench; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert initbench.apply_init.__doc__
    with pytest.raises(AttributeError, match="no attribute 'aply_init'"):
        initbench.aply_init  # noqa: B018


@pytest.mark.parametrize(
    ("layer", "n", "m"),
    [
        (nn.Linear(300, 400), 300, 400),
        (nn.Linear(300, 400, bias=False), 300, 400),
        (nn.Conv1d(32, 64, 5), 160, 320),
        (nn.Conv2d(32, 64, 3), 288, 576),
        (nn.Conv3d(8, 32, 3), 216, 864),
        (nn.Conv2d(64, 128, 3, groups=4), 144, 288),
        (nn.ConvTranspose1d(64, 64, 4, stride=2), 128, 256),
        (nn.ConvTranspose2d(32, 64, 4, stride=2), 128, 1024),
        (nn.ConvTranspose3d(16, 16, 2, stride=2), 16, 128),
        (nn.Linear(300, 400).double(), 300, 400),
    ],
    ids=repr,
)
def test_a_layer_by_its_fans(layer, n, m):
    """kaiming_normal: std √(2/n) ± 5/√(2N) of it, biases 0; what is said is what is there."""
    nn.init.constant_(layer.weight, 7.0)
    report = apply_init(layer)
    row = rows(report)["weight"]
    assert (row.fan_in, row.fan_out) == (n, m)
    assert row.std_asked == pytest.approx((2 / n) ** 0.5)
    assert row.std == pytest.approx(float(layer.weight.detach().double().square().mean().sqrt()))
    assert row.std == pytest.approx((2 / n) ** 0.5, rel=5 / (2 * layer.weight.numel()) ** 0.5)
    assert layer.bias is None or bool((layer.bias == 0).all())
    assert ("bias" in rows(report)) == (layer.bias is not None)
    assert not report.left


def test_a_net_of_initbench_gets_the_weights_of_a_run():
    x = batch(32, 20)
    options = options_model(FAMILIES["mlp"], "family")(depth=4, width=16)
    for scheme in ("torch_default", "orthogonal", "lsuv"):
        init = InitOptions.model_validate({"scheme": scheme})
        network = build(options, init, form=SampleShape((20,), 5), seed=3, batch=x)
        other = build(options, InitOptions(), form=SampleShape((20,), 5), seed=8, batch=x)
        apply_init(other, scheme, seed=3, batch=x)
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_the_order_of_the_layers_changes_nothing():
    first, second = nn.Linear(9, 9), nn.Linear(9, 9)
    one, other = nn.ModuleDict({"a": first, "b": second}), nn.ModuleDict()
    apply_init(one)
    expected = {name: p.detach().clone() for name, p in one.named_parameters()}
    other["b"], other["a"] = nn.Linear(9, 9), nn.Linear(9, 9)
    apply_init(other)
    assert all(torch.equal(expected[name], p) for name, p in other.named_parameters())
    assert not torch.equal(expected["a.weight"], expected["b.weight"])
    apply_init(other, seed=1)
    assert not torch.equal(expected["a.weight"], other["a"].weight)


def test_norms_and_embeddings_are_left_and_said_so():
    net = nn.Sequential(
        nn.Embedding(10, 8), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.LayerNorm(8), nn.GRU(8, 4)
    )
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    report = apply_init(net, bias=0.5)
    for name, parameter in net.named_parameters():
        assert torch.equal(before[name], parameter) == (not name.startswith("1.")), name
    assert set(rows(report)) == {"1.weight", "1.bias"}
    said = left(report)
    assert set(said) == {name for name in before if not name.startswith("1.")}
    assert "fan_in" in said["0.weight"]
    assert "norm layer" in said["2.weight"]
    assert "norm layer" in said["3.bias"]
    assert "GRU" in said["4.weight_ih_l0"]
    assert bool((net[1].bias == 0.5).all())


def test_tied_weights_are_set_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(30, 8), nn.Linear(8, 30)
            self.again = nn.Linear(8, 30)
            self.head.weight = self.again.weight = self.table.weight

    net = Tied()
    report = apply_init(net)
    assert [row.name for row in report.set] == ["head.weight", "head.bias"]
    assert left(report)["table.weight"] == "tied to head.weight, which was set"
    assert left(report)["again.weight"] == "tied to head.weight, which was set"
    alone = nn.ModuleDict({"head": nn.Linear(8, 30)})
    apply_init(alone)
    assert torch.equal(net.table.weight, alone["head"].weight)


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (parametrizations.weight_norm, "parametrization"),
        (torch.nn.utils.weight_norm, "weight norm"),
        (lambda layer: prune.random_unstructured(layer, "weight", 0.0), "weight_orig"),
    ],
)
def test_weight_norm_before_the_init_does_not_discard_it(wrap, said):
    plain, wrapped = nn.Sequential(nn.Linear(12, 9)), nn.Sequential(wrap(nn.Linear(12, 9)))
    apply_init(plain, "xavier_uniform")
    report = apply_init(wrapped, "xavier_uniform")
    x = batch(5, 12)
    assert torch.allclose(wrapped(x), plain(x), atol=1e-6)
    assert torch.allclose(wrapped[0].weight, plain[0].weight, atol=1e-6)
    assert said in rows(report)["0.weight"].note
    assert rows(report)["0.weight"].std == pytest.approx(
        rows(apply_init(plain, "xavier_uniform"))["0.weight"].std
    )
    assert not report.left


@pytest.mark.parametrize("kdim", [None, 24])
def test_attention_is_drawn_in_three_blocks(kdim):
    """Packed, torch's own (3d, d) matrix would have fan_out 3d: xavier has to see d."""
    attention = nn.MultiheadAttention(64, 4, kdim=kdim, vdim=kdim)
    report = apply_init(attention, "xavier_normal")
    found = rows(report)
    names = [f"in_proj_weight[{x}]" if kdim is None else f"{x}_proj_weight" for x in "qkv"]
    for name, fan_in in zip(names, (64, kdim or 64, kdim or 64), strict=True):
        assert (found[name].fan_in, found[name].fan_out) == (fan_in, 64)
        std = (2 / (fan_in + 64)) ** 0.5
        assert found[name].std == pytest.approx(std, rel=5 / (2 * 64 * fan_in) ** 0.5)
    assert {"out_proj.weight", "out_proj.bias", "in_proj_bias[q]"} <= set(found)
    assert not report.left
    q, k, _ = attention.in_proj_weight.chunk(3) if kdim is None else (attention.q_proj_weight, 0, 0)
    assert kdim or not torch.equal(q, k)


def test_schemes_that_measure_use_the_batch():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8 * 36, 5)
    ).eval()
    x = 3 + 2 * batch(64, 3, 8, 8)
    apply_init(net, "lsuv", batch=x)
    for end in (1, 5):
        assert float(net[:end](x).std()) == pytest.approx(1, abs=0.02)
    for scheme in ("data_dependent", "data_weightnorm"):
        apply_init(net, scheme, batch=x)
        convolved, logits = net[:1](x).transpose(0, 1).flatten(1), net(x).T
        for units in (convolved, logits):
            assert torch.allclose(units.mean(1), torch.zeros(len(units)), atol=1e-4)
            assert torch.allclose(units.std(1, correction=0), torch.ones(len(units)), atol=1e-4)
    apply_init(net, "data_dependent", batch=x, beta=0.7)
    assert torch.allclose(net(x).mean(0), torch.full((5,), 0.7), atol=1e-4)


def test_a_measured_sequence_is_standardised_over_its_features():
    """nn.Linear on (B, T, D) has its units on the last axis."""
    net, x = nn.Linear(6, 9), batch(16, 11, 6)
    apply_init(net, "data_dependent", batch=x)
    assert torch.allclose(net(x).flatten(0, 1).std(0, correction=0), torch.ones(9), atol=1e-4)


@pytest.mark.parametrize("groups", [1, 3])
def test_the_units_of_a_transposed_convolution_are_standardised(groups):
    net, x = nn.ConvTranspose2d(6, 12, 3, groups=groups), batch(16, 6, 5, 5)
    apply_init(net, "data_weightnorm", batch=x)
    units = net(x).transpose(0, 1).flatten(1)
    assert torch.allclose(units.std(1, correction=0), torch.ones(12), atol=1e-4)
    assert torch.allclose(units.mean(1), torch.zeros(12), atol=1e-4)


def test_measuring_leaves_buffers_and_the_global_stream():
    net = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Dropout(), nn.Linear(9, 4))
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    apply_init(net, "lsuv", batch=batch(32, 6))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert bool((net[1].running_mean == 0).all())
    assert not any(module._forward_hooks for module in net.modules())


REFUSED = [
    ({"scheme": "kaimin_normal"}, nn.Linear(4, 4), "did you mean 'kaiming_normal'"),
    ({"activation": "rellu"}, nn.Linear(4, 4), "did you mean 'relu'"),
    ({"scheme": "normal", "std": -1.0}, nn.Linear(4, 4), "std: Input should be greater than 0"),
    ({"scheme": "normal", "sdt": 1.0}, nn.Linear(4, 4), "sdt"),
    ({"scheme": "normal", "gain": 2.0}, nn.Linear(4, 4), "no gain"),
    ({"scheme": "normal", "name": "zeros"}, nn.Linear(4, 4), "argument `scheme`"),
    ({}, nn.Sequential(nn.LazyLinear(4)), "lazy"),
    ({"scheme": "lsuv"}, nn.Linear(4, 4), "give `batch`"),
    (
        {"scheme": "lsuv", "batch": batch(8, 4)},
        torch.nn.utils.weight_norm(nn.Linear(4, 4)),
        "parametrizations",
    ),
    ({"scheme": "lsuv", "batch": batch(8, 4)}, nn.MultiheadAttention(4, 2), "MultiheadAttention"),
    ({"scheme": "data_dependent", "batch": batch(8, 4)}, nn.Linear(4, 4, bias=False), "bias"),
    ({"scheme": "looks_linear"}, nn.Linear(4, 4), "needs model.activation=crelu, not relu"),
    ({"scheme": "critical", "activation": "softplus"}, nn.Linear(4, 4), "no stable q"),
    ({"scheme": "critical", "activation": "gelu"}, nn.Linear(4, 4, bias=False), "bias"),
    ({"scheme": "identity"}, nn.Conv2d(4, 4, 3), "dirac"),
    ({"scheme": "delta_orthogonal"}, nn.Conv2d(4, 2, 3), "not 4 in and 2 out"),
    *[
        ({"scheme": s.name}, nn.Linear(4, 4), "residual")
        for s in INITS
        if s.needs is SchemeRequirement.MODEL_EDIT
    ],
]


@pytest.mark.parametrize(("arguments", "module", "said"), REFUSED, ids=lambda x: str(x)[:40])
def test_what_cannot_be_done_is_refused_in_one_sentence_and_changes_nothing(arguments, module, said):
    lazy = isinstance(module, nn.Sequential)
    before = [] if lazy else [p.detach().clone() for p in module.parameters()]
    with pytest.raises(UsageError) as caught:
        apply_init(module, **arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert lazy or all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_the_report_reads_as_a_table_and_as_data():
    net = nn.Sequential(nn.Linear(300, 400), nn.LayerNorm(400))
    report = apply_init(net, "orthogonal")
    assert str(report).splitlines()[0] == "orthogonal, activation relu, seed 0"
    assert "0.weight  300     400      –" in str(report)
    assert "1.weight    a norm layer keeps its scale and shift" in str(report)
    data = report.as_data()
    assert data["set"][0]["name"] == "0.weight"
    assert data["set"][0]["std"] == pytest.approx(1 / 400**0.5, rel=1e-5)  # 300 unit columns of 400
    assert data["left"][1] == {"name": "1.bias", "why": "a norm layer keeps its scale and shift"}
    assert str(apply_init(nn.ReLU())).startswith("kaiming_normal")


def test_weights_init_touches_the_classes_whose_names_it_has_and_no_other():
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 64))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    lower = apply_init(net, "weights_init", names=["conv", "linear"])
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
    assert [left.why for left in lower.left] == [
        f"the scheme touches no class called {name}" for name in ("Conv2d", "Conv2d", "Linear", "Linear")
    ]
    apply_init(net, "weights_init", names=["Conv"])
    assert torch.equal(net[3].weight, before["3.weight"])
    count = net[0].weight.numel()
    assert float(net[0].weight.std()) == pytest.approx(0.02, rel=4 / (2 * count) ** 0.5)
    assert float(net[0].bias.abs().max()) == 0.0


def test_in_a_config_weights_init_leaves_the_others_as_torch_makes_them():
    model = options_model(FAMILIES["mlp"], "family")(depth=3, width=16)

    def weights(**scheme):
        init = InitOptions.model_validate({"scheme": scheme})
        batch = torch.zeros(4, 8)
        return build(model, init, form=SampleShape((8,), 3), seed=0, batch=batch).state_dict()

    default, lower = weights(name="torch_default"), weights(name="weights_init", names=["linear"])
    assert all(torch.equal(default[name], lower[name]) for name in default)
    upper = weights(name="weights_init")
    assert not any(torch.equal(default[name], upper[name]) for name in default)
