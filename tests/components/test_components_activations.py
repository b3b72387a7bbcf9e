"""Every activation: the properties it declares against the behaviour of its module."""

import pytest
import torch
from activation_cases import (
    CHANNELS,
    ELEMENTWISE,
    MIXING,
    NAMES,
    default,
    normal,
    slope_by_autograd,
    variants,
)
from torch.nn import functional as F

from initbench.components.activation import ACTIVATIONS, bound
from initbench.probing.tensor_statistics import SATURATED_BELOW

SLOPE_RTOL = 1e-7
"""torch's hard sigmoid has the slope float32(1/6), in float64 too; no formula that is wrong comes so near."""


def grid(kinks):
    """[−12, 12] in steps of 0.01, shifted off the kinks; and far out, where slopes must underflow quietly."""
    x = torch.arange(-12, 12, 0.01, dtype=torch.float64) + 0.00371
    far = torch.tensor([-800.0, -100.0, -40.0, 40.0, 100.0, 800.0], dtype=torch.float64)
    x = torch.cat([x, far])
    for kink in kinks:
        x = x[(x - kink).abs() > 1e-3]
    return x


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_derivative_equals_autograd(name):
    for activation in variants(name):
        x = grid(activation.entry.kinks)
        expected = slope_by_autograd(activation, x)
        assert torch.allclose(activation.derivative(x), expected, rtol=SLOPE_RTOL, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in ELEMENTWISE if ACTIVATIONS[n].kinks])
def test_derivative_at_a_kink_equals_autograd(name):
    for activation in variants(name):
        x = torch.tensor(activation.entry.kinks, dtype=torch.float64)
        expected = slope_by_autograd(activation, x)
        assert torch.allclose(activation.derivative(x), expected, rtol=SLOPE_RTOL, atol=0.0)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_kinks_are_where_the_derivative_is_not_smooth_and_nowhere_else(name):
    """In steps of s = 1e-4 the second difference of φ′ is φ‴s² ≈ 1e-8 where φ is smooth; a jump J of φ″
    makes it J·s, one of φ′ more. An entry's kinks hold for
    all options, so each variant's are among them.
    """
    step, found = 1e-4, set()
    x = torch.arange(-100_000, 100_001, dtype=torch.float64) * step + 0.3 * step
    for activation in variants(name):
        bends = activation.derivative(x).diff(n=2).abs() > 1e-6
        for where in x[1:-1][bends].tolist():
            near = [kink for kink in activation.entry.kinks if abs(where - kink) < 2 * step]
            assert near, f"a kink at {where:.4f} is not declared"
            found.add(near[0])
    assert found == set(ACTIVATIONS[name].kinks)


@pytest.mark.parametrize("name", NAMES)
def test_bounded_says_whether_the_outputs_are(name):
    """A bounded one stays within its histogram's range however large x is; an unbounded one goes with x."""
    for activation in variants(name):
        reach = [float(activation.phi(size * normal(1000, CHANNELS)).abs().max()) for size in (1.0, 1e3, 1e6)]
        limit = max(abs(edge) for edge in activation.entry.histogram_range)
        assert activation.entry.bounded == (max(reach) <= limit)
        assert activation.entry.bounded or reach[2] > 100 * reach[1]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_saturates_says_whether_flatness_is_a_fault(name):
    """It is where less than half of N(0, 1) is on the flat part, and nearly all of N(0, 100²)."""
    for activation in variants(name):
        if not activation.entry.bounded:
            assert not activation.entry.saturates
            continue
        limit = SATURATED_BELOW * activation.max_derivative
        flat = [
            float((activation.derivative(s * normal(100_000)).abs() < limit).double().mean())
            for s in (1, 100)
        ]
        assert activation.entry.saturates == (flat[0] < 0.45 and flat[1] > 0.9), flat


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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(5, CHANNELS), (5, CHANNELS, 3, 4)])
def test_keeps_its_input_and_has_the_shape_and_precision_declared(name, shape):
    for activation in variants(name):
        entry, options = activation.entry, activation.options
        units = next(w for w in range(1, CHANNELS + 1) if entry.features_in(w, options) == CHANNELS)
        for dtype in (torch.float32, torch.float64):
            x = normal(*shape, dtype=dtype)
            before = x.clone()
            module = entry.build(options, CHANNELS).to(dtype)
            y = module(x)
            assert torch.equal(x, before)
            assert y.data_ptr() != x.data_ptr() or name == "linear"
            assert y.shape == (5, entry.features_out(units, options), *shape[2:])
            assert y.dtype == dtype
            if entry.elementwise:
                assert y.shape == activation.derivative(x).shape
                assert activation.derivative(x).dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_treated_place_by_place(name):
    """(N, C, H, W) → what the H·W columns of channels give one by one."""
    for activation in variants(name):
        module = activation.entry.build(activation.options, CHANNELS).double()
        for p in module.parameters():
            p.data.copy_(0.1 * normal(*p.shape, seed=1))  # every channel its own
        x = normal(5, CHANNELS, 3, 4)
        by_place = module(x.permute(0, 2, 3, 1).reshape(-1, CHANNELS))
        assert torch.equal(module(x), by_place.view(5, 3, 4, -1).permute(0, 3, 1, 2))


@pytest.mark.parametrize("name", NAMES)
def test_most_of_a_healthy_layer_lies_in_the_histogram(name):
    """Less than 1 % of φ(z), z ~ N(0, 1), falls outside the range; bounded outputs never do."""
    activation = default(name)
    low, high = activation.entry.histogram_range
    y = activation.phi(normal(10_000, CHANNELS))
    outside = float(((y < low) | (y > high)).double().mean())
    assert outside <= (0.0 if activation.entry.bounded else 0.01)


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
    x = grid(())
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
