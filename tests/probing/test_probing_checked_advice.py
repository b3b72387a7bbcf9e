"""Advice on a module is applied to it and probed again: what is printed cures, and it is left as it was."""

import math
import re
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

import initbench
from initbench.components.activation import bound
from initbench.errors import UsageError


class Chain(nn.Module):
    def __init__(self, act, variance, width=100, depth=30):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head, self.act = nn.Linear(width, 10), [act]
        for layer in self.layers:
            nn.init.normal_(layer.weight, 0, math.sqrt(variance / width))
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        for layer in self.layers:
            x = self.act[0](layer(x))
        return self.head(x)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.last = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.last(torch.relu(self.first(x)))


X = torch.randn(48, 100, generator=torch.Generator().manual_seed(1))
SCALED = {
    "sin(30)": (lambda z: torch.sin(30 * z), 2.0),
    "1.414·relu": (lambda z: math.sqrt(2) * functional.relu(z), 2.0),
    "0.1·relu": (lambda z: functional.relu(z) / 10, 2.0),
    "tanh(0.1x)": (lambda z: torch.tanh(z / 10), 1.0),
    "softplus(5)": (lambda z: functional.softplus(z, beta=5.0), 0.3),
    "elu(0.5)": (lambda z: functional.elu(z, alpha=0.5), 0.2),
    "celu(2)": (lambda z: functional.celu(z, alpha=2.0), 0.2),
    "leaky_relu(0.3)": (lambda z: functional.leaky_relu(z, 0.3), 0.2),
    "0.5875·silu(1.702x)": (lambda z: z * torch.sigmoid(1.702 * z), 0.5),
    "2·tanh(0.5x)": (lambda z: torch.tanh(z / 2) * 2, 0.1),
}


def advised(message):
    """Every call of apply_init that a message advises, as a function of the module."""
    calls = re.findall(
        r"initbench\.(apply_init\(module, .*?\))( with a start at 0 for the head)? \(checked", message
    )

    def apply(module, call, head):
        eval(call, {"apply_init": initbench.apply_init, "module": module})
        if head:
            nn.init.zeros_(module.head.weight)

    return [partial(apply, call=call, head=head) for call, head in calls]


FAST = ("sin(30)", "0.1·relu", "tanh(0.1x)", "elu(0.5)", "0.5875·silu(1.702x)")
"""One of each kind: a factor of the inputs, a factor of the outputs, an option, and both factors."""


@pytest.mark.parametrize(
    "label", [pytest.param(label, marks=() if label in FAST else pytest.mark.slow) for label in SCALED]
)
def test_factors_and_options_are_part_of_the_activation_and_the_advice_cures(label):
    act, variance = SCALED[label]
    net = Chain(act, variance)
    probed = initbench.probe(net, X)
    assert probed.survey.trace.uses[3].activation.label == label
    assert probed.findings
    for finding in probed.findings:
        calls = advised(finding.message)
        assert calls, finding.message
        for call in calls:
            again = Chain(act, variance)
            call(again)
            assert finding.code not in [f.code for f in initbench.probe(again, X).findings]


def test_a_scaled_activation_is_what_it_says():
    """c·φ(a·x): values, slope, kinks and moments, against the function written out."""
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    scaled = bound("elu", alpha=0.5).scaled(input_scale=2.0, output_scale=-0.3)
    torch.testing.assert_close(scaled.phi(x), -0.3 * functional.elu(2 * x, alpha=0.5))
    y = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad((-0.3 * functional.elu(2 * y, alpha=0.5)).sum(), y)
    torch.testing.assert_close(scaled.derivative(x), slope)
    assert bound("relu6").scaled(input_scale=2.0).kinks == (0.0, 3.0)
    wave = bound("sin").scaled(input_scale=30.0, output_scale=2.0)
    assert wave.length_map(0.01, sigma_w2=1.0) == pytest.approx(4 * (1 - math.exp(-18)) / 2)
    assert wave.scaled(output_scale=0.5).label == "sin(30)"
    assert bound("sin", omega=30.0).natural_sigma_w2 == pytest.approx(2.3130 / 900, rel=1e-4)


def test_a_constant_after_an_activation_belongs_to_it():
    """c·φ(a·x) + s: sigmoid(x) − ½ = tanh(x/2)/2, which has other moments than sigmoid."""
    shifted, twin = (
        bound("sigmoid").scaled(output_shift=-0.5),
        bound("tanh").scaled(input_scale=0.5, output_scale=0.5),
    )
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    torch.testing.assert_close(shifted.phi(x), twin.phi(x))
    torch.testing.assert_close(shifted.derivative(x), twin.derivative(x))
    assert shifted.preserving_gain == pytest.approx(twin.preserving_gain)
    assert shifted.label == "sigmoid - 0.5"
    relu = bound("relu").scaled(output_scale=2.0, output_shift=-0.4)
    # E[(2·relu(z) − 0.4)²] = 4·½ − 1.6·E[relu(z)] + 0.16
    assert relu.length_map(1.0, sigma_w2=1.0) == pytest.approx(2.16 - 1.6 / math.sqrt(2 * math.pi))
    assert relu.scaled(output_scale=0.5, output_shift=0.2).changed_options == {}


def test_apply_init_takes_options_and_factors_of_the_activation():
    def std(*args, **kwargs):
        return (
            initbench.apply_init(nn.Linear(10_000, 4), "lecun_normal", gain="auto", **kwargs).set[0].std_asked
            * 100
        )

    assert std(activation="softplus", beta=5.0) == pytest.approx(bound("softplus", beta=5.0).preserving_gain)
    assert std(activation="relu", output_scale=0.1) == pytest.approx(10 * math.sqrt(2))
    assert std(activation={"name": "elu", "alpha": 0.5}) == std(activation="elu", alpha=0.5)
    assert std(activation="sin(30)") == std(activation="sin", omega=30)
    assert std(activation="leaky_relu", negative_slope=0.2) == pytest.approx(math.sqrt(2 / 1.04))
    assert std(activation="sigmoid", output_shift=-0.5) == pytest.approx(
        std(activation="tanh", input_scale=0.5, output_scale=0.5)
    )
    for wrong in ({"omega": 3}, {"output_scale": 0}, {"activation": "softplus", "beta": -1.0}):
        with pytest.raises(UsageError):
            std(**wrong)


def test_residual_sums_are_the_cause_and_the_module_is_left_as_it_was():
    net = nn.Sequential(nn.Linear(100, 64), *(Block(64) for _ in range(24)), nn.Linear(64, 10))
    initbench.apply_init(net, "kaiming_normal")
    state = {name: value.clone() for name, value in net.state_dict().items()}
    (first, *_) = initbench.probe(net, X).findings
    assert first.code == "exploding_forward"
    assert "The branches are as large as the residual stream" in first.message
    assert "start at 0 for the last weight of every residual branch" in first.message
    assert "checked: q per layer" in first.message
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
