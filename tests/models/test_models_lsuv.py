"""lsuv by its defining property: on the batch it saw, every layer's output has std 1."""

import pytest
import torch
from slices import pairwise_fast

from initbench.components.activation import ACTIVATIONS
from initbench.components.norm import NORMS
from initbench.components.target import SampleShape
from initbench.models.build import build
from initbench.models.init_weights import InitOptions
from initbench.models.network import FAMILIES
from initbench.registry_choice import options_model

RESCALED = [
    entry.name
    for entry in NORMS
    if entry.problem((32,), options_model(entry, "name")()) is None and not entry.scale_free
]


def net(init, x, **model):
    options = options_model(FAMILIES["mlp"], "family")(**{"depth": 6, "width": 32, **model})
    init = InitOptions.model_validate(init)
    return build(options, init, form=SampleShape(tuple(x.shape[1:]), 5), seed=0, batch=x)


def batch(samples=128):
    return 0.2 + 3 * torch.randn(samples, 20, generator=torch.Generator().manual_seed(1))


def output_stds(network, x):
    """std of each weight layer's output in a training-mode pass, by layer name."""
    stds = {}
    for layer in network.weight_layers():

        def hook(_module, _inputs, output, name=layer.name):
            stds[name] = float(output.detach().double().std(correction=0))

        layer.module.register_forward_hook(hook)
    network(x)
    return stds


@pytest.mark.parametrize(
    ("activation", "norm", "placement"),
    pairwise_fast(ACTIVATIONS.names(), RESCALED, ["before_activation", "after_activation"]),
)
def test_every_layer_has_unit_std_on_the_batch_head_included(activation, norm, placement):
    x = batch()
    network = net({"scheme": "lsuv"}, x, activation=activation, norm=norm, norm_placement=placement)
    stds = output_stds(network, x)
    assert len(stds) == 6
    assert all(abs(std - 1) < 0.01 for std in stds.values()), stds


def test_other_schemes_fail_the_same_test():
    x = batch()
    for scheme in ("orthogonal", "kaiming_normal"):
        stds = output_stds(net({"scheme": scheme}, x), x)
        assert any(abs(std - 1) > 0.1 for std in stds.values())


def test_the_batch_is_untouched_and_no_hook_stays():
    x = batch()
    before = x.clone()
    network = net({"scheme": "lsuv"}, x)
    assert torch.equal(x, before)
    assert not any(module._forward_hooks for module in network.modules())


def test_measuring_leaves_running_statistics_as_they_start():
    network = net({"scheme": "lsuv"}, batch(), norm="batch")
    for block in network.blocks:
        assert bool((block.norm.running_mean == 0).all())
        assert bool((block.norm.running_var == 1).all())
    assert network.training


def test_weights_are_scaled_orthogonal_ones_of_the_same_draw():
    x = batch()
    scaled, plain = net({"scheme": "lsuv"}, x), net({"scheme": "orthogonal"}, x)
    for a, b in zip(scaled.weight_layers(), plain.weight_layers(), strict=True):
        ratio = a.module.weight / b.module.weight
        assert torch.allclose(ratio, ratio.median(), rtol=1e-4)


def test_a_constant_bias_is_kept():
    x = batch()
    network = net({"scheme": "lsuv", "bias": 0.7}, x)
    assert all(bool((layer.module.bias == 0.7).all()) for layer in network.weight_layers())
    assert all(abs(std - 1) < 0.01 for std in output_stds(network, x).values())


def test_another_head_is_not_calibrated():
    x = batch()
    network = net({"scheme": "lsuv", "head": "zeros"}, x)
    stds = output_stds(network, x)
    assert stds.pop("head") == 0.0
    assert all(abs(std - 1) < 0.01 for std in stds.values())


@pytest.mark.parametrize("scheme", ["lsuv", "kaiming_normal"])
def test_a_head_that_asks_for_it_is_calibrated_whatever_the_body_is(scheme):
    x = batch()
    tight = options_model_of_lsuv(tol=1e-4)
    network = net({"scheme": scheme, "head": tight}, x)
    assert abs(output_stds(network, x)["head"] - 1) < 1e-4


def options_model_of_lsuv(**options):
    return {"name": "lsuv", **options}


def test_a_layer_that_does_not_vary_is_left_alone():
    network = net({"scheme": "lsuv"}, torch.zeros(8, 20))
    assert all(bool(layer.module.weight.isfinite().all()) for layer in network.weight_layers())


def test_the_tolerance_is_an_option():
    """With tol 0.5 layers stop early: some stay off by more than the default 0.01, none by more than 0.5."""
    x = torch.randn(128, 20, generator=torch.Generator().manual_seed(1))
    loose = output_stds(net({"scheme": {"name": "lsuv", "tol": 0.5}}, x, activation="linear"), x)
    assert all(abs(std - 1) < 0.5 for std in loose.values())
    assert any(abs(std - 1) > 0.01 for std in loose.values())


@pytest.mark.parametrize("scheme", ["data_dependent", "data_weightnorm"])
def test_layers_whose_bias_a_norm_took_away_get_their_scale_alone(scheme):
    """Each unit then puts out variance 1, about the mean that it has; the norm takes that away."""
    options = options_model(FAMILIES["resnet_mlp"], "family")(depth=4, width=16, norm="batch")
    x = torch.randn(64, 10, generator=torch.Generator().manual_seed(3))
    init = InitOptions.model_validate({"scheme": scheme})
    network = build(options, init, form=SampleShape((10,), 3), seed=0, batch=x)
    first = network.weight_layers()[0].module
    assert first.bias is None
    assert torch.allclose(first(x).std(0, correction=0), torch.ones(16), rtol=1e-5)
