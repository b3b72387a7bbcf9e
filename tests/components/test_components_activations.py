"""Every activation: what it states of itself against what its module does."""

import pytest
import torch

from initbench.choice import options_model
from initbench.components.activation import ACTIVATIONS, bind, bound

NAMES = ACTIVATIONS.names()


def variants(name):
    """The activation with its default options, and with others where it has any."""
    own = [bind(options_model(ACTIVATIONS[name], "name")())]
    return own + ([bound("leaky_relu", negative_slope=0.3)] if name == "leaky_relu" else [])


def grid(kinks):
    """[−12, 12] in steps of 0.01, shifted off the kinks; and far out, where slopes must underflow quietly."""
    x = torch.arange(-12, 12, 0.01, dtype=torch.float64) + 0.00371
    far = torch.tensor([-800.0, -100.0, -40.0, 40.0, 100.0, 800.0], dtype=torch.float64)
    x = torch.cat([x, far])
    for kink in kinks:
        x = x[(x - kink).abs() > 1e-3]
    return x


@pytest.mark.parametrize("name", NAMES)
def test_derivative_equals_autograd(name):
    for activation in variants(name):
        x = grid(activation.entry.kinks).requires_grad_()
        (gradient,) = torch.autograd.grad(activation.phi(x).sum(), x)
        assert torch.allclose(activation.derivative(x.detach()), gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_derivative_at_a_kink_is_zero_where_autograd_gives_zero(name):
    for activation in variants(name):
        for kink in activation.entry.kinks:
            x = torch.tensor([kink], dtype=torch.float64, requires_grad=True)
            (gradient,) = torch.autograd.grad(activation.phi(x).sum(), x)
            if float(gradient) == 0.0:
                assert float(activation.derivative(x.detach())) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_kinks_are_where_the_derivative_jumps_and_nowhere_else(name):
    for activation in variants(name):
        kinks = activation.entry.kinks
        for kink in kinks:
            sides = torch.tensor([kink - 1e-9, kink + 1e-9], dtype=torch.float64)
            left, right = activation.derivative(sides)
            assert abs(float(left - right)) > 0.1
        x = torch.linspace(-10, 10, 200_001, dtype=torch.float64)  # a smooth φ′ moves by φ″·1e-4 a step
        jumps = activation.derivative(x).diff().abs() > 0.01
        where = x[:-1][jumps]
        assert (
            all(min(abs(float(w) - kink) for kink in kinks) < 1e-3 for w in where)
            if kinks
            else not len(where)
        )


@pytest.mark.parametrize("name", NAMES)
def test_bounded_says_whether_the_outputs_are(name):
    """A bounded one does not move between 1e3 and 1e6; an unbounded one moves on at least one side."""
    for activation in variants(name):
        near, far = (activation.phi(torch.tensor([-x, x], dtype=torch.float64)) for x in (1e3, 1e6))
        grows = float((far - near).abs().max()) > 1.0
        assert activation.entry.bounded == (not grows)


@pytest.mark.parametrize("name", NAMES)
def test_max_derivative(name):
    """Against a grid in steps of 5e-5: beside a kink its largest slope is missed by so much at most."""
    for activation in variants(name):
        x = torch.linspace(-25, 25, 1_000_003, dtype=torch.float64)
        exact = float(activation.derivative(x).abs().max())
        assert activation.max_derivative == pytest.approx(exact, rel=1e-4)


KNOWN = {"linear": 1.0, "relu": 1.0, "leaky_relu": 1.0, "tanh": 1.0, "sigmoid": 0.25}


@pytest.mark.parametrize(("name", "slope"), KNOWN.items())
def test_known_largest_slopes(name, slope):
    assert bound(name).max_derivative == pytest.approx(slope, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_does_not_write_in_place_and_keeps_shape_and_precision(name):
    for activation in variants(name):
        for dtype in (torch.float32, torch.float64):
            x = torch.randn(5, 7, dtype=dtype, generator=torch.Generator().manual_seed(0))
            before = x.clone()
            y = activation.phi(x)
            assert torch.equal(x, before)
            assert y.shape == x.shape
            assert y.dtype == activation.derivative(x).dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_most_of_a_healthy_layer_lies_in_the_histogram(name):
    """Of φ(z), z ~ N(0, 1), less than 1 % falls outside; bounded outputs never do."""
    for activation in variants(name):
        low, high = activation.entry.histogram_range
        y = activation.phi(
            torch.randn(100_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        )
        outside = float(((y < low) | (y > high)).double().mean())
        assert outside <= (0.0 if activation.entry.bounded else 0.01)


@pytest.mark.parametrize("name", NAMES)
def test_kaiming_gain_is_torchs(name):
    for activation in variants(name):
        slope = activation.options.negative_slope if name == "leaky_relu" else 0.0
        expected = torch.nn.init.calculate_gain("leaky_relu", slope)
        assert activation.kaiming_gain == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "torch_function"),
    [
        ("relu", torch.relu),
        ("tanh", torch.tanh),
        ("sigmoid", torch.sigmoid),
        ("gelu", torch.nn.functional.gelu),
        ("selu", torch.selu),
        ("linear", lambda x: x),
        ("leaky_relu", torch.nn.functional.leaky_relu),
    ],
)
def test_is_the_function_it_is_named_after(name, torch_function):
    x = grid(())
    assert torch.equal(bound(name).phi(x), torch_function(x))
