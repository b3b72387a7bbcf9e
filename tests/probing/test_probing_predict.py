"""Theoretical predictions for a net, against well-known factors and a calculation by hand."""

import math

import pytest
import torch

from initbench.components.target import SampleShape
from initbench.models.build import build
from initbench.models.init_weights import InitOptions
from initbench.models.network import FAMILIES
from initbench.probing.layer_factors import predict_stack_factors
from initbench.registry_choice import options_model


def prediction(scheme, *, first_q=1.0, normed=False, gain=None, bias=None, model_bias=True, **model):
    init = InitOptions.model_validate({"scheme": scheme, "gain": gain, "bias": bias})
    options = options_model(FAMILIES["mlp"], "family")(
        **{"depth": 6, "width": 64, "bias": model_bias, **model}
    )
    network = build(options, init, form=SampleShape((7,), 3), seed=0, batch=torch.zeros(4, 7))
    return predict_stack_factors(network, init, first_q=first_q, normed=normed)


@pytest.mark.parametrize(
    ("scheme", "activation", "factor", "sigma_w2"),
    [
        ("kaiming_normal", "relu", 1.0, 2.0),
        ("kaiming_uniform", "relu", 1.0, 2.0),
        ("xavier_normal", "relu", 0.5, 1.0),
        ("lecun_normal", "linear", 1.0, 1.0),
        ("kaiming_misprint", "relu", 2.0, 4.0),
        ({"name": "normal", "std": 0.5}, "relu", 8.0, 16.0),
    ],
)
def test_factors_of_square_layers(scheme, activation, factor, sigma_w2):
    """relu and linear are homogeneous: the same factor at every q, forward and backward."""
    for first_q in (1e-3, 1.0, 50.0):
        found = prediction(scheme, activation=activation, first_q=first_q)
        assert found.forward == pytest.approx(factor, rel=1e-9)
        assert found.backward == pytest.approx(factor, rel=1e-9)
        assert found.sigma_w2 == pytest.approx(sigma_w2, rel=1e-12)


def test_selu_with_lecun_stays_at_its_fixed_point():
    assert prediction("lecun_normal", activation="selu").forward == pytest.approx(1.0, rel=1e-9)
    assert prediction("xavier_normal", activation="tanh", gain="auto").forward == pytest.approx(1.0, rel=1e-9)


def test_torch_default_has_a_floor_set_by_its_bias():
    """q ← q/6 + 1/(3n), n = 64, four times from the first hidden layer to the fifth."""
    q = 1.0
    for _ in range(4):
        q = q / 6 + 1 / (3 * 64)
    assert prediction("torch_default").forward == pytest.approx(q**0.25, rel=1e-9)
    assert prediction("torch_default").backward == pytest.approx(1 / 6, rel=1e-9)
    assert prediction("torch_default", bias=0.0).forward == pytest.approx(1 / 6, rel=1e-9)
    # The biases are not there, so they add nothing.
    assert prediction("torch_default", model_bias=False).forward == pytest.approx(1 / 6, rel=1e-9)


@pytest.mark.parametrize(
    "arguments",
    [
        {"scheme": "orthogonal"},
        {"scheme": "lsuv"},
        {"scheme": "zeros"},
        {"scheme": "kaiming_normal", "normed": True},
        {"scheme": "kaiming_normal", "depth": 2},
        {"scheme": "kaiming_normal", "depth": 1},
        {"scheme": "kaiming_normal", "first_q": 0.0},
        {"scheme": "kaiming_normal", "first_q": math.inf},
        {"scheme": "kaiming_normal", "first_q": math.nan},
        {"scheme": "kaiming_normal", "bias": -2.0},  # one value for all: h is no longer N(0, q)
        {"scheme": {"name": "normal", "std": 1e30}, "depth": 30},
    ],
)
def test_no_word_where_theory_has_none(arguments):
    found = prediction(**arguments)
    assert found.forward is None
    assert found.backward is None


def test_what_would_be_needed():
    assert prediction("xavier_normal").needed_sigma_w2 == pytest.approx(2.0, rel=1e-9)
    assert prediction("xavier_normal").chi_at_needed == pytest.approx(1.0, rel=1e-9)
    assert prediction("xavier_normal", activation="tanh").needed_sigma_w2 == pytest.approx(1.593**2, rel=1e-3)
    sigmoid = prediction("xavier_normal", activation="sigmoid")
    assert sigmoid.needed_sigma_w2 == pytest.approx(1.846**2, rel=1e-3)
    assert sigmoid.chi_at_needed < 0.2


def test_theory_holds_in_a_wide_net():
    """relu + xavier, width 512, 10 hidden layers, the mean of log(q_10/q_1) over 8 nets: by finite width it
    lies 5·9/(2·512) = 0.044 below theory with std √(5·9/512/8) = 0.105 (catalogue, pitfall 4).
    """
    options = options_model(FAMILIES["mlp"], "family")(depth=11, width=512)
    x = torch.randn(64, 512, generator=torch.Generator().manual_seed(5))
    logs = []
    for seed in range(8):
        init = InitOptions.model_validate({"scheme": "xavier_normal"})
        network = build(options, init, form=SampleShape((512,), 2), seed=seed, batch=x)
        h, q = x, []
        with torch.no_grad():
            for block in network.blocks:
                q.append(float(block.linear(h).square().mean()))
                h = block(h)
        logs.append(math.log(q[-1] / q[0]))
        factor = predict_stack_factors(network, init, first_q=q[0], normed=False).forward
    assert sum(logs) / 8 == pytest.approx(9 * math.log(factor) - 0.044, abs=4 * 0.105)
    assert 9 * math.log(1.1) > 4 * 0.105  # a factor off by 10 % a layer would show
