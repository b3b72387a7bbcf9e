"""A module of the user as a net: its layers, their names, the init and what is passed to the function."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from initbench.components.target import SampleShape
from initbench.models.apply_init import apply_init
from initbench.models.build import build
from initbench.models.custom_network import CustomNetwork
from initbench.models.freezing import layer_tensors
from initbench.models.init_weights import InitOptions
from tests.custom_models import nets_of_tests

SHAPE = (1, 8, 8)


@pytest.fixture
def net(use, experiment):
    """The net that a function builds, with its weights drawn."""

    def make(name: str, init: dict | None = None, seed: int = 0, **model) -> CustomNetwork:
        use(name)
        options = InitOptions.model_validate(init or {})
        batch = torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(1))
        config = experiment(**model)
        network = build(config.model, options, form=SampleShape(SHAPE, 10), seed=seed, batch=batch)
        assert isinstance(network, CustomNetwork)
        return network

    return make


def test_names_are_those_of_the_module(net):
    network = net("functional")
    names = {"mixed", "hidden.weight", "hidden.bias", "out.weight", "out.bias"}
    assert {name for name, _ in network.named_parameters()} == names
    assert network.get_submodule("out") is network.module.out
    assert network.module.training


def test_layers_are_in_the_order_of_the_pass_with_the_head_last(net):
    layers = net("functional").weight_layers()
    assert [layer.name for layer in layers] == ["hidden", "mixed", "out"]
    assert [layer.index for layer in layers] == [1, 2, 3]
    assert [layer.is_head for layer in layers] == [False, False, True]
    assert [layer.activation is not None for layer in layers] == [True, True, False]
    assert layer_tensors(net("functional"))[-1].tensors == ["out.weight", "out.bias"]


@pytest.mark.parametrize(
    "init",
    [
        {"scheme": "xavier_uniform", "bias": 0.5},
        {"scheme": "torch_default"},
        {"scheme": "lsuv"},
        {"scheme": "sparse"},
    ],
)
def test_weights_are_those_of_apply_init(net, init):
    network = net("functional", init, seed=3)
    batch = torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(1))
    module = nets_of_tests.functional(SHAPE, 10)
    mixed = network.module.mixed.detach().clone()
    with torch.no_grad():
        module.mixed.copy_(mixed)
    apply_init(module, init["scheme"], bias=init.get("bias"), seed=3, batch=batch)
    for name, tensor in network.named_parameters():
        assert torch.equal(tensor, module.get_parameter(name)), name


def test_the_scheme_of_the_head_applies_to_the_logits(net):
    network = net("functional", {"scheme": "ones", "head": "zeros"})
    assert bool((network.module.out.weight == 0).all())
    assert bool((network.module.hidden.weight == 1).all())
    kept = net("functional", {"scheme": "as_built", "head": "zeros"})
    assert bool((kept.module.out.weight == 0).all())
    assert float(kept.module.hidden.weight.detach().std()) > 0


def test_the_activation_of_gains_is_traced(net):
    """Kaiming's gain is for relu; a gain of 1/√E[φ²] is that of the activation in the module."""
    weight = net("stateful", {"scheme": "lecun_normal", "gain": "auto"}).module.stages[0].weight
    relu = net("mlp", {"scheme": "lecun_normal", "gain": "auto"}).module.blocks[0].linear.weight
    assert float(weight.detach().std()) * 8 == pytest.approx(1.5925, rel=0.1)
    assert float(relu.detach().std()) * 8 == pytest.approx(2**0.5, rel=0.1)


def test_norm_and_activation_are_exchanged(net):
    modules = [type(module).__name__ for module in net("exchangeable").module]
    assert modules == ["Flatten", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    modules = [type(module).__name__ for module in net("exchangeable", norm="none", activation="tanh").module]
    assert modules == ["Flatten", "Linear", "Identity", "Tanh", "Linear"]
    norm = net("exchangeable", norm={"name": "group", "num_groups": 4}).module[2]
    assert isinstance(norm, nn.GroupNorm) and norm.num_groups == 4


def test_keywords_reach_a_function_that_takes_any(net):
    assert net("any_option", options={"width": 24}).module.head.weight.shape == (10, 24)


def test_the_pass_that_finds_the_layers_changes_nothing(net):
    network = net("stateful")
    assert float(network.module.count) == 0
    assert float(network.module.stages[1].running_mean.abs().sum()) == 0
