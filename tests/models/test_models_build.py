"""Networks and the streams their parameters draw from."""

import pytest
import torch
from pydantic import ValidationError
from scipy.stats import kstest
from torch import nn

from initbench.components.activation import ACTIVATIONS, bound
from initbench.components.init_scheme import INITS
from initbench.components.norm import NORMS
from initbench.components.target import SampleShape
from initbench.models.build import build
from initbench.models.init_weights import InitOptions, rule_for_layer
from initbench.models.linear import Linear
from initbench.models.network import FAMILIES
from initbench.registry_choice import options_model

FITTING = [entry.name for entry in NORMS if entry.problem((16,), options_model(entry, "name")()) is None]
# Those that serve a relu mlp without norm layers.
SCHEMES = [s.name for s in INITS if s.edit is None and s.name not in ("looks_linear", "pretrained")]


def model_of(**options):
    return options_model(FAMILIES["mlp"], "family")(**{"depth": 4, "width": 16, **options})


def batch_of(features=12, samples=64):
    return torch.randn(samples, features, generator=torch.Generator().manual_seed(99))


def net(init=None, *, seed=0, features=12, classes=5, **model):
    init = InitOptions.model_validate(init or {})
    x = batch_of(features)
    return build(model_of(**model), init, form=SampleShape((features,), classes), seed=seed, batch=x)


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class TestStreams:
    @pytest.mark.parametrize("norm", FITTING)
    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_build_is_deterministic_and_leaves_the_global_state(self, scheme, norm):
        torch.manual_seed(1)
        before = torch.random.get_rng_state()
        first = state(net({"scheme": scheme}, norm=norm))
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.manual_seed(2)
        assert same(state(net({"scheme": scheme}, norm=norm)), first)

    def test_seeds_differ(self):
        a, b = state(net(seed=0)), state(net(seed=1))
        assert not any(torch.equal(a[name], b[name]) for name in a if name.endswith("weight"))

    def test_layers_of_one_shape_differ(self):
        weights = [layer.module.weight for layer in net(depth=6).weight_layers()[1:-1]]
        correlations = torch.corrcoef(torch.stack([w.detach().flatten() for w in weights]))
        # Between independent draws of N = 256 the correlation has the standard error 1/16.
        assert float((correlations - torch.eye(len(weights))).abs().max()) < 5 / 16

    def test_depth_adds_layers_and_changes_none(self):
        shallow, deep = state(net(depth=4)), state(net(depth=9))
        assert len(deep) > len(shallow)
        for name, tensor in shallow.items():
            assert torch.equal(tensor, deep[name]), name

    def test_the_draw_of_a_layer_does_not_depend_on_what_its_neighbours_are(self):
        narrow, other = state(net(classes=5)), state(net(classes=9, norm="batch", activation="tanh"))
        for i in range(3):
            name = f"blocks.{i}.linear.weight"
            assert torch.equal(narrow[name], other[name])

    def test_changing_the_head_changes_the_head_alone(self):
        for head in ("zeros", "torch_default", "orthogonal"):
            plain, changed = state(net()), state(net({"head": head}))
            names = {name for name in plain if not torch.equal(plain[name], changed[name])}
            assert "head.weight" in names
            assert names <= {"head.weight", "head.bias"}

    @pytest.mark.parametrize("kind", ["normal", "uniform"])
    def test_schemes_of_one_distribution_draw_the_same_numbers(self, kind):
        """A scheme is a scale: the stream behind it is the same to float32's last digits."""
        names = [n for n in SCHEMES if n.endswith(kind) and n != "trunc_normal"] + ["torch_default"] * (
            kind == "uniform"
        )
        first, *others = [net({"scheme": name}).weight_layers() for name in names]
        for layers in others:
            for a, b in zip(first, layers, strict=True):
                ratio = a.module.weight / b.module.weight
                assert torch.allclose(ratio, ratio.median(), rtol=1e-5)

    @pytest.mark.parametrize("scheme", [n for n in SCHEMES if INITS[n].default_gain is not None])
    def test_gain_is_a_factor_of_the_same_draw(self, scheme):
        one, three = net({"scheme": scheme, "gain": 1.0}), net({"scheme": scheme, "gain": 3.0})
        for a, b in zip(one.weight_layers(), three.weight_layers(), strict=True):
            assert torch.allclose(3 * a.module.weight, b.module.weight, rtol=1e-5)


class TestMlp:
    def test_weight_layers(self):
        network = net(depth=4)
        layers = network.weight_layers()
        assert [layer.index for layer in layers] == [1, 2, 3, 4]
        assert [layer.name for layer in layers] == [f"blocks.{i}.linear" for i in range(3)] + ["head"]
        modules = dict(network.named_modules())
        assert all(modules[layer.name] is layer.module for layer in layers)
        assert [tuple(layer.module.weight.shape) for layer in layers] == [
            (16, 12),
            (16, 16),
            (16, 16),
            (5, 16),
        ]
        assert [layer.activation is None for layer in layers] == [False, False, False, True]

    def test_depth_one_is_a_head(self):
        network = net(depth=1)
        (layer,) = network.weight_layers()
        assert (layer.index, layer.name, layer.activation) == (1, "head", None)
        x = batch_of()
        assert torch.equal(network(x), network.head(x))

    def test_forward_is_the_formula(self):
        """h_l = W_l φ(h_{l−1}) + b_l in float64, for pictures too."""
        network = build(
            model_of(activation="tanh"),
            InitOptions(bias=0.25),
            form=SampleShape((2, 3, 2), 5),
            seed=0,
            batch=batch_of(12).reshape(-1, 2, 3, 2),
        ).double()
        x = batch_of(12).double().reshape(-1, 2, 3, 2)
        h = x.reshape(len(x), -1)
        *hidden, head = [layer.module for layer in network.weight_layers()]
        for module in hidden:
            h = torch.tanh(h @ module.weight.T + 0.25)
        assert torch.allclose(network(x), h @ head.weight.T + 0.25, rtol=1e-12)

    @pytest.mark.parametrize("placement", ["before_activation", "after_activation"])
    def test_where_the_norm_stands(self, placement):
        network = net(norm="layer", norm_placement=placement, depth=2).double()
        x, block = batch_of().double(), network.blocks[0]
        h = x @ block.linear.weight.T
        norm = lambda t: torch.nn.functional.layer_norm(t, (16,))  # noqa: E731
        expected = torch.relu(norm(h)) if placement == "before_activation" else norm(torch.relu(h))
        assert torch.allclose(block(x), expected, rtol=1e-10, atol=1e-12)

    def test_no_bias(self):
        network = net({"scheme": "torch_default"}, bias=False, depth=3)
        assert not any(name.endswith("linear.bias") or name == "head.bias" for name in state(network))
        assert bool((network(torch.zeros(4, 12)) == 0).all())

    @pytest.mark.parametrize("norm", FITTING)
    @pytest.mark.parametrize("activation", ACTIVATIONS.names())
    def test_every_activation_and_norm_builds(self, activation, norm):
        network = net(activation=activation, norm=norm)
        logits = network(batch_of())
        assert logits.shape == (64, 5)
        assert bool(logits.isfinite().all())
        assert network.activation.entry.name == activation

    def test_groups_that_do_not_divide_the_width_are_refused_naming_both_keys(self):
        with pytest.raises(ValidationError) as caught:
            model_of(width=100, norm=options_model(NORMS["group"], "name")(num_groups=8))
        (error,) = caught.value.errors()
        assert error["ctx"]["at"] == "norm.num_groups"
        assert "8 groups do not divide 100" in error["msg"]
        assert "model.width=100" in error["msg"]

    @pytest.mark.parametrize(
        ("width", "norm", "at"),
        [
            (8, {"name": "group", "num_groups": 8}, "norm.num_groups"),
            (1, {"name": "group", "num_groups": 1}, "norm.num_groups"),
            (1, "layer", "norm"),
        ],
    )
    def test_a_norm_over_one_feature_is_refused_naming_both_keys(self, width, norm, at):
        with pytest.raises(ValidationError) as caught:
            model_of(width=width, norm=norm)
        (error,) = caught.value.errors()
        assert error["ctx"]["at"] == at
        assert "group norm" in error["msg"] or "layer norm" in error["msg"]
        assert f"model.width={width}" in error["msg"]


class TestInitOptions:
    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_biases_are_zero_unless_the_scheme_says_otherwise(self, scheme):
        for layer in net({"scheme": scheme}).weight_layers():
            assert bool((layer.module.bias == 0).all()) == (
                scheme not in ("torch_default", "as_built", "data_weightnorm", "data_dependent")
            )

    @pytest.mark.parametrize("scheme", ["kaiming_normal", "torch_default"])
    def test_bias_number(self, scheme):
        for layer in net({"scheme": scheme, "bias": 0.25}).weight_layers():
            assert bool((layer.module.bias == 0.25).all())

    def test_torch_default_has_a_uniform_bias_of_torchs_bound(self):
        """KS over 2,000 biases: p > 1e-4 under a fixed seed; half the bound would give p = 0."""
        network = net({"scheme": "torch_default"}, width=2000, depth=3, features=50)
        for module, n in ((network.blocks[0].linear, 50), (network.blocks[1].linear, 2000)):
            bound_ = n**-0.5
            assert kstest(module.bias.detach().numpy(), "uniform", args=(-bound_, 2 * bound_)).pvalue > 1e-4
            assert float(module.weight.detach().abs().max()) == pytest.approx(bound_, rel=1e-3)

    def test_norm_layers_keep_scale_one_shift_zero(self):
        network = net({"scheme": "torch_default", "bias": 0.5}, norm="batch")
        assert bool((network.blocks[0].norm.weight == 1).all())
        assert bool((network.blocks[0].norm.bias == 0).all())

    @pytest.mark.parametrize(
        ("asked", "activation", "gain"),
        [
            (None, "relu", 2**0.5),
            (None, "tanh", 2**0.5),
            (1.7, "tanh", 1.7),
            ("auto", "tanh", 1.5925),
            ("auto", "sigmoid", 1.8462),
        ],
    )
    def test_gain_of_kaiming(self, asked, activation, gain):
        network = net(depth=3, activation=activation)
        init = InitOptions(gain=asked)
        for layer in network.weight_layers():
            rule = rule_for_layer(layer, init, network.activation)
            assert rule.gain == pytest.approx(gain, abs=1e-4)
            assert rule.sigma_w2 == pytest.approx(gain**2, rel=1e-4)

    def test_the_gain_reaches_the_weights(self):
        """std of N = 16,384 normals: standard error 1/√(2N) = 0.55 %; five of them."""
        for gain, expected in ((None, 1.0), (1.7, 1.7), ("auto", bound("tanh").preserving_gain)):
            weight = net({"scheme": "xavier_normal", "gain": gain}, width=128, activation="tanh", depth=3)
            std = float(weight.blocks[1].linear.weight.detach().std())
            assert std * 128**0.5 == pytest.approx(expected, rel=5 / (2 * 128**2) ** 0.5)

    def test_leaky_slope_sets_the_kaiming_gain(self):
        network = net(
            depth=3, activation=options_model(ACTIVATIONS["leaky_relu"], "name")(negative_slope=0.5)
        )
        rule = rule_for_layer(network.weight_layers()[0], InitOptions(), network.activation)
        assert rule.gain == pytest.approx((2 / 1.25) ** 0.5, rel=1e-12)

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_a_gain_without_a_use_is_refused_at_its_key(self, scheme):
        if INITS[scheme].default_gain is not None:
            assert InitOptions.model_validate({"scheme": scheme, "gain": 2.0}).gain == 2.0
            return
        with pytest.raises(ValidationError) as caught:
            InitOptions.model_validate({"scheme": scheme, "gain": 2.0})
        (error,) = caught.value.errors()
        assert error["ctx"]["at"] == "gain"
        assert f"init.scheme={scheme} has no gain" in error["msg"]

    def test_a_gain_is_for_whichever_of_body_and_head_has_one(self):
        plain, changed = (
            net({"scheme": "lsuv", "head": "xavier_normal", "gain": gain}).weight_layers()
            for gain in (1.0, 2.0)
        )
        for one, other in zip(plain[:-1], changed[:-1], strict=True):
            assert torch.equal(one.module.weight, other.module.weight)
        assert torch.allclose(2 * plain[-1].module.weight, changed[-1].module.weight, rtol=1e-6)
        assert (
            InitOptions.model_validate({"scheme": "xavier_normal", "head": "lsuv", "gain": 2.0}).gain == 2.0
        )
        with pytest.raises(ValidationError) as caught:
            InitOptions.model_validate({"scheme": "lsuv", "head": "zeros", "gain": 2.0})
        assert "init.scheme=lsuv has no gain" in str(caught.value)
        assert "init.head=zeros has no gain" in str(caught.value)

    @pytest.mark.parametrize("gain", [0.0, -1.0, "automatic", float("inf")])
    def test_a_gain_that_is_none_is_refused(self, gain):
        with pytest.raises(ValidationError):
            InitOptions(gain=gain)

    def test_options_of_the_scheme_reach_the_draw(self):
        narrow = net({"scheme": {"name": "normal", "std": 0.5}}).blocks[0].linear.weight
        wide = net({"scheme": "normal"}).blocks[0].linear.weight
        assert torch.allclose(narrow / wide, torch.tensor(50.0), rtol=1e-5)
        fan_in = net({"scheme": "kaiming_normal"}, width=48).blocks[0].linear.weight
        fan_out = (
            net({"scheme": {"name": "kaiming_normal", "mode": "fan_out"}}, width=48).blocks[0].linear.weight
        )
        assert torch.allclose(fan_in / fan_out, torch.tensor(2.0), rtol=1e-5)


class TestLinear:
    @pytest.mark.parametrize("bias", [True, False])
    def test_is_nn_linear(self, bias):
        """float64, so that only roundings of 1e-16 may differ."""
        ours, theirs = Linear(7, 4, bias=bias).double(), nn.Linear(7, 4, bias=bias).double()
        theirs.load_state_dict(ours.state_dict())
        inputs = [batch_of(7, 9).double().requires_grad_() for _ in range(2)]
        outputs = [module(x) for module, x in zip((ours, theirs), inputs, strict=True)]
        assert torch.allclose(*outputs, rtol=1e-12, atol=1e-14)
        upstream = batch_of(4, 9).double()
        gradients = [
            torch.autograd.grad((y * upstream).sum(), [x, *m.parameters()])
            for y, x, m in zip(outputs, inputs, (ours, theirs), strict=True)
        ]
        assert len(gradients[0]) == 2 + bias
        for a, b in zip(*gradients, strict=True):
            assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)

    def test_draws_what_nn_linear_draws(self):
        torch.manual_seed(3)
        ours = Linear(7, 4)
        torch.manual_seed(3)
        theirs = nn.Linear(7, 4)
        assert torch.equal(ours.weight, theirs.weight)
        assert torch.equal(ours.bias, theirs.bias)
