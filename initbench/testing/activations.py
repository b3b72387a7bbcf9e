"""Checks of activations: the properties that an entry declares against the behaviour of its module."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from scipy.integrate import quad
from torch import Tensor, nn

from initbench.components.activation import SATURATED_BELOW, Activation, BoundActivation
from initbench.testing.check import Check, check_of, expect_that, normal_draws, option_variants

CHANNELS = 12
"""Number of channels of the inputs; a multiple of every number of pieces of maxout up to 4."""
SLOPE_RTOL = 1e-7
"""torch's hard sigmoid has the slope float32(1/6), in float64 too."""
SIGMAS = 5.0
_QS = (0.25, 1.0, 16.0)


def activation_checks(entry: Activation) -> Iterator[Check]:
    """Yield the checks of an activation, each for its default options and for changed ones."""
    checks: list[tuple[str, Callable[[BoundActivation], None]]] = [
        ("keeps its input; shape and precision of its output", check_shapes),
        ("treats the positions of a map alike", check_positions),
        ("bounded", check_bounded),
        ("histogram_range", check_histogram_range),
    ]
    if entry.elementwise:
        checks += [
            ("derivative equals autograd", check_derivative),
            ("saturates", check_saturation),
            ("moments", check_moments),
        ]
    else:
        checks.append(("moments", check_mixed_moments))
    if entry.rounds_alike:
        checks.append(("rounds_alike", check_rounding))
    for title, function in checks:
        yield check_of(title, _check_variants, entry, function)
    if entry.elementwise:
        yield check_of("kinks", check_kinks, entry)


def activation_variants(entry: Activation) -> list[BoundActivation]:
    """Return the activation with its default options and, if it has options, with all of them changed."""
    return [entry.bind(options) for options in option_variants(entry)]


def _check_variants(entry: Activation, function: Callable[[BoundActivation], None]) -> None:
    for activation in activation_variants(entry):
        function(activation)


def argument_grid(kinks: Sequence[float]) -> Tensor:
    """Return [−12, 12] in steps of 0.01 off the kinks, and far values where slopes underflow."""
    x = torch.arange(-12, 12, 0.01, dtype=torch.float64) + 0.00371
    far = torch.tensor([-800.0, -100.0, -40.0, 40.0, 100.0, 800.0], dtype=torch.float64)
    x = torch.cat([x, far])
    for kink in kinks:
        x = x[(x - kink).abs() > 1e-3]
    return x


def slope_by_autograd(activation: BoundActivation, x: Tensor) -> Tensor:
    """Return φ′(x) by autograd."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(activation.phi(x).sum(), x)[0]


def check_derivative(activation: BoundActivation) -> None:
    """Check `derivative` against autograd on a grid, and at the kinks."""
    kinks = activation.entry.kinks
    for x in (argument_grid(kinks), torch.tensor(kinks, dtype=torch.float64)):
        expected, declared = slope_by_autograd(activation, x), activation.derivative(x)
        wrong = ~torch.isclose(declared, expected, rtol=SLOPE_RTOL, atol=1e-12)
        if bool(wrong.any()):
            at = int(wrong.nonzero()[0])
            raise AssertionError(
                f"the derivative at {float(x[at]):g} is {float(declared[at]):g}, but autograd gives"
                f" {float(expected[at]):g}"
            )


def check_kinks(entry: Activation) -> None:
    """Check that φ′ is smooth except at the declared kinks, which hold for all options.

    In steps of s = 1e-4 the second difference of φ′ is about s² = 1e-8 where φ is smooth. A jump J of φ″
    makes it J·s, and a jump of φ′ more.
    """
    step, bends_at = 1e-4, set()
    x = torch.arange(-100_000, 100_001, dtype=torch.float64) * step + 0.3 * step
    for activation in activation_variants(entry):
        is_bent = activation.derivative(x).diff(n=2).abs() > 1e-6
        for where in x[1:-1][is_bent].tolist():
            near = [kink for kink in entry.kinks if abs(where - kink) < 2 * step]
            expect_that(bool(near), f"a kink at {where:.4f} is not declared")
            bends_at.add(near[0])
    smooth = [kink for kink in entry.kinks if kink not in bends_at]
    expect_that(not smooth, f"the derivative has no kink at {', '.join(map(str, smooth))}")


def check_bounded(activation: BoundActivation) -> None:
    """Check that bounded outputs stay in the histogram's range, and that unbounded ones grow with x."""
    reach = [
        float(activation.phi(size * normal_draws(1000, CHANNELS)).abs().max()) for size in (1.0, 1e3, 1e6)
    ]
    limit = max(abs(edge) for edge in activation.entry.histogram_range)
    if activation.entry.bounded:
        expect_that(max(reach) <= limit, f"it is declared as bounded, but reaches {max(reach):g} > {limit:g}")
    else:
        expect_that(reach[2] > 100 * reach[1], f"it is not declared as bounded, but stays below {reach[2]:g}")


def check_histogram_range(activation: BoundActivation) -> None:
    """Check that less than 1 % of φ(z), z ~ N(0, 1), and no bounded output, is outside of the range.

    The range is for the default options.
    """
    if activation.options != next(option_variants(activation.entry)):
        return
    low, high = activation.entry.histogram_range
    y = activation.phi(normal_draws(10_000, CHANNELS))
    outside = float(((y < low) | (y > high)).double().mean())
    limit = 0.0 if activation.entry.bounded else 0.01
    expect_that(
        outside <= limit, f"{100 * outside:.2g} % of the outputs for N(0, 1) are outside of the range"
    )


def check_saturation(activation: BoundActivation) -> None:
    """Check that less than 45 % of N(0, 1) is on flat parts, and more than 90 % of N(0, 100²)."""
    if not activation.entry.bounded:
        expect_that(not activation.entry.saturates, "an unbounded activation does not saturate")
        return
    limit = SATURATED_BELOW * activation.max_derivative
    flat = [
        float((activation.derivative(scale * normal_draws(100_000)).abs() < limit).double().mean())
        for scale in (1.0, 100.0)
    ]
    saturates = flat[0] < 0.45 and flat[1] > 0.9
    words = f"{100 * flat[0]:.0f} % of N(0, 1) and {100 * flat[1]:.0f} % of N(0, 100²) are on flat parts"
    expect_that(activation.entry.saturates == saturates, f"saturates must be {saturates}: {words}")


def check_shapes(activation: BoundActivation) -> None:
    """Check that the input is not modified, and the shape and dtype of the output and the derivative."""
    entry, options = activation.entry, activation.options
    units = next((w for w in range(1, CHANNELS + 1) if entry.features_in(w, options) == CHANNELS), None)
    if units is None:
        return
    for shape in ((5, CHANNELS), (5, CHANNELS, 3, 4)):
        for dtype in (torch.float32, torch.float64):
            x = normal_draws(*shape, dtype=dtype)
            original = x.clone()
            y = entry.build(options, CHANNELS).to(dtype)(x)
            expect_that(torch.equal(x, original), "it modifies its input")
            expected = (5, entry.features_out(units, options), *shape[2:])
            expect_that(tuple(y.shape) == expected, f"{shape} gives {tuple(y.shape)}, not {expected}")
            expect_that(y.dtype == dtype, f"{dtype} gives {y.dtype}")
            if entry.elementwise:
                slope = activation.derivative(x)
                same = slope.shape == y.shape and slope.dtype == dtype
                expect_that(
                    same, f"the derivative of {shape}, {dtype}, has {tuple(slope.shape)}, {slope.dtype}"
                )


def check_positions(activation: BoundActivation) -> None:
    """Check that a map (N, C, H, W) gives what its H·W columns of channels give one by one."""
    module = activation.entry.build(activation.options, CHANNELS).double()
    for parameter in module.parameters():
        parameter.data.copy_(
            0.1 * normal_draws(*parameter.shape, seed=1)
        )  # a different value for each channel
    x = normal_draws(5, CHANNELS, 3, 4)
    by_position = module(x.permute(0, 2, 3, 1).reshape(-1, CHANNELS))
    expected = by_position.view(5, 3, 4, -1).permute(0, 3, 1, 2)
    expect_that(torch.equal(module(x), expected), "a position of a map gives another value than alone")


def check_moments(activation: BoundActivation) -> None:
    """Check E[φ(h)²] and E[φ′(h)²], h ~ N(0, q), against scipy's adaptive quadrature."""
    for q in _QS:
        forward = gaussian_mean(lambda h: activation.phi(h).square(), q, activation.entry.kinks)
        backward = gaussian_mean(lambda h: activation.derivative(h).square(), q, activation.entry.kinks)
        for name, declared, expected in (
            ("E[φ(h)²]", activation.length_map(q, sigma_w2=1.0), forward),
            ("E[φ′(h)²]", activation.chi(q, sigma_w2=1.0), backward),
        ):
            same = math.isclose(declared, expected, rel_tol=1e-6)
            expect_that(
                same, f"{name} for h ~ N(0, {q:g}) is {declared:.7g}, but quadrature gives {expected:.7g}"
            )


def check_mixed_moments(activation: BoundActivation) -> None:
    """Check the moments of an activation that mixes channels by sampling, forward and backward.

    An upstream gradient of independent ±1 makes E[δ²] the sum of squared slopes, since the products of
    different outputs have mean 0.
    """
    for q in _QS:
        h = (math.sqrt(q) * normal_draws(40_000, CHANNELS)).requires_grad_()
        y = activation.phi(h)
        (delta,) = torch.autograd.grad(y, h, normal_draws(*y.shape, seed=1).sign())
        for name, values, declared in (
            ("forward", y.detach(), activation.length_map(q, sigma_w2=1.0)),
            ("backward", delta, activation.chi(q, sigma_w2=1.0)),
        ):
            squares = values.square().mean(1)
            mean, error = float(squares.mean()), float(squares.std()) / math.sqrt(len(squares))
            same = abs(mean - declared) <= SIGMAS * error + 1e-12
            expect_that(
                same, f"the {name} moment for q = {q:g} is {declared:.5g}, but sampling gives {mean:.5g}"
            )


def gaussian_mean(function: Callable[[Tensor], Tensor], q: float, kinks: Sequence[float]) -> float:
    """Return E[function(h)], h ~ N(0, q), by scipy's adaptive quadrature."""
    std = math.sqrt(q)

    def integrand(z: float) -> float:
        value = float(function(torch.tensor([std * z], dtype=torch.float64)))
        return value * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    cuts = sorted({0.0, *(kink / std for kink in kinks if abs(kink) < 12 * std)})
    return float(quad(integrand, -12, 12, points=cuts, epsabs=1e-11, epsrel=1e-9, limit=400)[0])


_ROWS = (1, 2, 3, 5, 7, 11, 21, 43, 85, 341)
_STARTS = (0, 1, 3, 10)


def check_rounding(activation: BoundActivation) -> None:
    """Check that entries and gradients are rounded alike at all positions, with 1 and 2 threads."""
    channels = 1 if activation.entry.elementwise else 6
    module = activation.entry.build(activation.options, channels)
    expect_that(
        not depends_on_position(module, channels),
        "the rounding of an entry depends on its position",
    )


def depends_on_position(module: nn.Module, channels: int) -> bool:
    """Return whether any entry, or its gradient, differs between tensors that hold it at different positions.

    The reference is so large that torch splits its work among threads.
    """
    threads_in_use = torch.get_num_threads()
    rows = 480_000 // channels
    generator = torch.Generator().manual_seed(5)
    scales = torch.tensor([0.01, 1.0, 1.0, 3.0, 8.0, 40.0, 1.0])  # for every branch of an exponential
    x = torch.randn(rows, channels, generator=generator) * scales[torch.arange(rows) % 7, None]
    upstream = torch.randn(rows, 2 * channels, generator=generator)
    pieces = [slice(start, start + count) for count in _ROWS for start in _STARTS]
    pieces += [slice(start, len(x) - start) for start in _STARTS]
    try:
        torch.set_num_threads(1)
        whole = _value_and_gradient(module, x, upstream)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for piece in pieces:
                part = x[piece]
                for layout in (part, part.clone(), part.mT.contiguous().mT):
                    values = _value_and_gradient(module, layout, upstream[piece])
                    if not all(torch.equal(f, w[piece]) for f, w in zip(values, whole, strict=True)):
                        return True
    finally:
        torch.set_num_threads(threads_in_use)
    return False


def _value_and_gradient(module: nn.Module, x: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    y = module(x)
    (gradient,) = torch.autograd.grad(y, x, upstream[:, : y.shape[1]].clone())
    return y.detach(), gradient
