"""Every activation in a net: config, training step, probe, and theory for those that mix channels."""

import math

import pytest
import torch
from activation_cases import MIXING, NAMES, normal, variants
from pydantic import ValidationError
from sklearn.datasets import load_digits
from slices import pairwise_fast

from initbench.components.activation import ACTIVATIONS, bound
from initbench.components.target import SampleShape
from initbench.config.loading import load_config, to_yaml
from initbench.config.schema import ExperimentConfig
from initbench.models.build import build
from initbench.models.init_weights import InitOptions
from initbench.models.network import FAMILIES
from initbench.probing.diagnosis import diagnose
from initbench.probing.layer_factors import predict_stack_factors
from initbench.probing.network_probe import probe
from initbench.probing.remedies import network_context
from initbench.probing.tensor_statistics import ProbeDetail
from initbench.registry_choice import options_model
from initbench.train.cohort import Cohort

CASES = [
    pytest.param(a, id=f"{a.entry.name}{'-other' * i}") for n in NAMES for i, a in enumerate(variants(n))
]
CPU = torch.device("cpu")


def mlp(activation, **model):
    options = {"depth": 4, "width": 16, "activation": activation.options, **model}
    return options_model(FAMILIES["mlp"], "family")(**options)


def net(activation, *, seed=0, init=None, features=64, **model):
    init = init or InitOptions()
    x = normal(64, features, dtype=torch.float32)
    return build(mlp(activation, **model), init, form=SampleShape((features,), 10), seed=seed, batch=x)


@pytest.mark.parametrize("activation", CASES)
def test_config_goes_through_yaml_and_back(activation, tmp_path, make_config):
    config = make_config(model={"activation": activation.options.model_dump()})
    assert config.model.activation == activation.options
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    again = load_config(path, [], ExperimentConfig)
    assert again == config
    assert type(again.model.activation) is type(activation.options)


@pytest.mark.parametrize("activation", CASES)
def test_a_training_step_at_depth_four_is_finite_and_moves_every_parameter(activation, make_config):
    digits = load_digits()
    x = torch.tensor(digits.data[:128] / 8 - 1, dtype=torch.float32)
    y = torch.tensor(digits.target[:128])
    network = net(activation)
    config = make_config(train={"batch_size": 128})
    cohort = Cohort([network], config.train, "vmap", CPU)
    before = {name: p.detach().clone() for name, p in cohort.parameters.items()}
    loss = cohort.gradients(x[None], y[None])
    assert bool(loss.isfinite())
    cohort.update(0.01)
    for name, p in cohort.parameters.items():
        assert bool(p.isfinite().all()), name
        assert not torch.equal(p, before[name]), name
    values = cohort.evaluate(x, y)
    assert math.isfinite(values["loss"][0])
    assert 0 <= values["accuracy"][0] <= 1


@pytest.mark.parametrize(
    ("activation", "placement", "norm"),
    pairwise_fast(
        [case.values[0] for case in CASES], ["before_activation", "after_activation"], ["none", "layer"]
    ),
)
def test_every_net_is_probed_and_diagnosed(activation, placement, norm):
    init = InitOptions()
    network = net(activation, norm=norm, norm_placement=placement)
    x, y = normal(64, 64, dtype=torch.float32), torch.arange(64) % 10
    state = dict(network.named_parameters()), dict(network.named_buffers())
    loss = torch.nn.functional.cross_entropy
    layers = probe(network, *state, x=x, y=y, loss=loss, bins=8, detail=ProbeDetail.FULL)
    entry, options = activation.entry, activation.options
    assert [layer["units"] for layer in layers] == [entry.features_in(16, options)] * 3 + [10]
    for layer in layers[:-1]:
        assert (layer["act"]["saturated_fraction"] is not None) == entry.saturates
        assert math.isfinite(layer["act"]["q"])
        assert math.isfinite(layer["jacobian"]["mean_sigma2"])
    model = mlp(activation, norm=norm, norm_placement=placement)
    situation = network_context(network, model, init, layers[0]["pre"]["q"])
    diagnose([{"when": "init", "layers": layers}], situation, None)
    assert (situation.prediction.forward is None) == (norm != "none")


def test_prelu_learns_one_slope_a_layer_or_one_a_channel():
    shared, own = net(bound("prelu")), net(bound("prelu", per_channel=True, init=0.5))
    for i in range(3):
        assert shared.blocks[i].activation.slope.tolist() == [0.25]
        assert own.blocks[i].activation.slope.tolist() == [0.5] * 16
    x = normal(8, 64, dtype=torch.float32)
    for network in (shared, own):
        network(x).square().sum().backward()
        assert all(bool((block.activation.slope.grad != 0).all()) for block in network.blocks)


@pytest.mark.parametrize(
    ("activation", "hidden", "head"),
    [
        (bound("crelu"), [(16, 64), (16, 32), (16, 32)], (10, 32)),
        (bound("maxout"), [(32, 64), (32, 16), (32, 16)], (10, 16)),
        (bound("maxout", pieces=5), [(80, 64), (80, 16), (80, 16)], (10, 16)),
    ],
)
def test_weights_are_as_wide_as_the_activation_makes_them(activation, hidden, head):
    network = net(activation)
    assert [tuple(layer.module.weight.shape) for layer in network.weight_layers()] == [*hidden, head]


@pytest.mark.parametrize("placement", ["before_activation", "after_activation"])
def test_groups_divide_the_channels_that_the_norm_sees(placement):
    """maxout with 3 pieces of width 10: 30 channels before it, 10 after."""
    for groups in (5, 4, 3):
        norm = {"name": "group", "num_groups": groups}
        channels = 30 if placement == "before_activation" else 10
        arguments = {"width": 10, "norm": norm, "norm_placement": placement}
        if channels % groups:
            with pytest.raises(ValidationError, match=f"{groups} groups do not divide {channels}"):
                mlp(bound("maxout", pieces=3), **arguments)
        else:
            mlp(bound("maxout", pieces=3), **arguments)


WIDE, DEEP, NETS = 256, 9, 8
MIXED = [a for name in MIXING for a in variants(name)]


@pytest.mark.parametrize("activation", MIXED, ids=lambda a: f"{a.entry.name}-{len(str(a.options))}")
@pytest.mark.parametrize("gain", ["auto", 1.2])
def test_theory_of_mixed_channels_holds_in_a_wide_net(activation, gain):
    """Means of log(q_8/q_1) and log(E[δ_1²]/E[δ_8²]) over 8 nets against theory, within 5 standard errors
    of the 8 values and the offset of finite width, at most half their variance, which is below 5·7/n.
    """
    init = InitOptions(gain=gain)
    logs, predicted = [], []
    for seed in range(NETS):
        network = net(activation, seed=seed, init=init, features=WIDE, depth=DEEP, width=WIDE)
        x = normal(64, WIDE, seed=seed, dtype=torch.float32)
        seen, h = [], x
        for block in network.blocks:
            seen.append(block.linear(h))
            h = block.activation(seen[-1])
        logits = network.head(h)
        deltas = torch.autograd.grad(logits, seen, normal(*logits.shape, seed=9, dtype=torch.float32))
        q, back = ([float(t.detach().double().square().mean()) for t in each] for each in (seen, deltas))
        logs.append([math.log(q[-1] / q[0]), math.log(back[0] / back[-1])])
        found = predict_stack_factors(network, init, first_q=q[0], normed=False)
        predicted.append([(DEEP - 2) * math.log(found.forward), (DEEP - 2) * math.log(found.backward)])
    measured, theory = torch.tensor(logs), torch.tensor(predicted).mean(0)
    error = measured.std(0) / math.sqrt(NETS)
    offset = 5 * (DEEP - 2) / WIDE / 2
    assert bool(((measured.mean(0) - theory).abs() < 5 * error + offset).all()), (
        measured.mean(0),
        theory,
        error,
    )
    assert float(error.max()) < 0.1  # so that a factor off by 15 % a layer, 7·log 1.15 = 0.98, shows


@pytest.mark.parametrize("name", MIXING)
def test_auto_keeps_both_signals_of_mixed_channels(name):
    """crelu with √2, maxout with 1/√E[max²]: q is kept; on the way back χ₁ = σ_w² of the pieces' share."""
    for activation in variants(name):
        init = InitOptions(gain="auto")
        found = predict_stack_factors(net(activation, init=init), init, first_q=3.0, normed=False)
        assert found.forward == pytest.approx(1.0, rel=1e-9)
        assert found.backward == pytest.approx(found.chi_at_needed, rel=1e-9)
        assert found.needed_sigma_w2 == pytest.approx(activation.preserving_gain**2, rel=1e-12)
    assert bound("crelu").preserving_gain == pytest.approx(math.sqrt(2), rel=1e-12)


def test_every_activation_of_the_catalogue_is_there():
    names = (
        "linear relu leaky_relu prelu relu6 elu selu celu gelu gelu_tanh silu mish softplus softsign tanh"
        " lecun_tanh sigmoid hard_tanh hard_sigmoid hard_swish squared_relu sin crelu maxout"
    )
    assert set(names.split()) <= set(ACTIVATIONS.names())
