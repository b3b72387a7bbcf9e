"""Every activation: the properties it declares against the behaviour of its module."""

import pytest
import torch
from activation_cases import (
    ELEMENTWISE,
    MIXING,
    default,
    variants,
)
from torch.nn import functional as F

from initbench.components.activation import ACTIVATIONS, bound
from initbench.testing.activations import argument_grid


@pytest.mark.parametrize("name", [n for n in ELEMENTWISE if ACTIVATIONS[n].bounded])
def test_max_derivative(name):
    """Compare with a grid in steps of 5e-5, which bounds the error of the largest slope next to a kink."""
    for activation in variants(name):
        x = torch.linspace(-25, 25, 1_000_003, dtype=torch.float64)
        exact = float(activation.derivative(x).abs().max())
        assert activation.max_derivative == pytest.approx(exact, rel=1e-4)


LARGEST_SLOPES = {"tanh": 1.0, "sigmoid": 0.25, "softsign": 1.0, "hard_tanh": 1.0, "hard_sigmoid": 1 / 6}


@pytest.mark.parametrize(("name", "slope"), LARGEST_SLOPES.items())
def test_known_largest_slopes(name, slope):
    assert bound(name).max_derivative == pytest.approx(slope, rel=1e-12)


FUNCTIONS = {
    "linear": lambda x: x,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "prelu": lambda x: F.prelu(x, torch.tensor([0.25], dtype=x.dtype)),
    "relu6": lambda x: x.clamp(0, 6),
    "elu": F.elu,
    "selu": torch.selu,
    "celu": F.celu,
    "gelu": lambda x: x * torch.special.ndtr(x),
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "silu": lambda x: x * torch.sigmoid(x),
    "mish": lambda x: x * torch.tanh(torch.logaddexp(x, torch.zeros_like(x))),
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "softsign": lambda x: x / (1 + x.abs()),
    "tanh": torch.tanh,
    "lecun_tanh": lambda x: 1.7159 * torch.tanh(2 * x / 3),
    "sigmoid": lambda x: (1 + torch.tanh(x / 2)) / 2,
    "hard_tanh": lambda x: x.clamp(-1, 1),
    "hard_sigmoid": lambda x: (x / 6 + 0.5).clamp(0, 1),
    "hard_swish": lambda x: x * (x / 6 + 0.5).clamp(0, 1),
    "squared_relu": lambda x: x.clamp(min=0) ** 2,
    "sin": torch.sin,
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_is_the_function_it_is_named_after(name):
    """Up to the 2e-9 at which torch's softplus turns into a line."""
    x = argument_grid(())
    assert torch.allclose(default(name).phi(x), FUNCTIONS[name](x), rtol=1e-9, atol=3e-9)


def test_channels_are_mixed_as_written():
    x = torch.tensor([[1.0, -2.0, 3.0, 0.5, 7.0, -1.0]])
    assert bound("crelu").phi(x).tolist() == [[1, 0, 3, 0.5, 7, 0, 0, 2, 0, 0, 0, 1]]
    assert bound("maxout").phi(x).tolist() == [[1, 3, 7]]
    assert bound("maxout", pieces=3).phi(x).tolist() == [[3, 7]]


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_channels_has_no_derivative(name):
    with pytest.raises(TypeError, match=f"{name} is not elementwise"):
        default(name).derivative(torch.zeros(3))
