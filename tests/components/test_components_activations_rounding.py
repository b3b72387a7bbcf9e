"""`rounds_alike`: which activations round every entry of a tensor the same, wherever it lies in memory."""

import pytest
import torch
from activation_cases import NAMES, variants

from initbench.components.activation import ACTIVATIONS, bound

LONG, WIDE = 40_000, 12
"""Rows and channels of the reference: so large that torch splits the work among threads."""
ROWS = (1, 2, 3, 5, 7, 11, 21, 43, 85, 341)
STARTS = (0, 1, 3, 10)


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def values(rows, channels):
    """Many scales, so that every branch of an exponential is met; and weights for the way back."""
    generator = torch.Generator().manual_seed(5)
    scales = torch.tensor([0.01, 1.0, 1.0, 3.0, 8.0, 40.0, 1.0])
    x = torch.randn(rows, channels, generator=generator) * scales[torch.arange(rows) % 7, None]
    return x, torch.randn(rows, 2 * channels, generator=generator)


def both_ways(module, x, upstream):
    """φ(x) and the gradient at x, (N, channels) each."""
    x = x.detach().requires_grad_()
    y = module(x)
    (gradient,) = torch.autograd.grad(y, x, upstream[:, : y.shape[1]].clone())
    return y.detach(), gradient


def depends_on_place(module, channels):
    """Whether any entry, or its gradient, differs between tensors that hold it in different places."""
    torch.set_num_threads(1)
    x, upstream = values(LONG * WIDE // channels, channels)
    whole = both_ways(module, x, upstream)
    pieces = [slice(start, start + rows) for rows in ROWS for start in STARTS]
    pieces += [slice(start, len(x) - start) for start in STARTS]
    differ = False
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for piece in pieces:
            rows = x[piece]
            for laid in (rows, rows.clone(), rows.mT.contiguous().mT):
                found = both_ways(module, laid, upstream[piece])
                differ |= not all(torch.equal(f, w[piece]) for f, w in zip(found, whole, strict=True))
    return differ


@pytest.mark.parametrize("name", NAMES)
def test_who_claims_to_round_alike_does(name):
    """A claim of False may be over-careful on a CPU with other vectors; one of True may not be wrong."""
    for activation in variants(name):
        channels = 1 if activation.entry.elementwise else 6
        module = activation.entry.build(activation.options, channels)
        if activation.entry.rounds_alike:
            assert not depends_on_place(module, channels)


class LastAreOther(torch.nn.Module):
    """Stand-in for a vectorised exponential: the remaining entries at the end differ in the last digit."""

    def forward(self, x):
        flat = x.flatten()
        left_over = torch.arange(len(flat)) >= len(flat) - len(flat) % 16
        return torch.where(left_over, flat * (1 + 2e-7), flat).view(x.shape)


def test_the_experiment_finds_who_does_not():
    assert depends_on_place(LastAreOther(), 1)
    assert not depends_on_place(torch.nn.Identity(), 1)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("batch", "width"), [(50, 37), (64, 36), (257, 129)])
def test_the_gradient_of_a_learned_slope_does_not_depend_on_the_runs_beside_it(per_channel, batch, width):
    activation = bound("prelu", per_channel=per_channel)
    module = activation.entry.build(activation.options, width)
    x = torch.randn(5, width, batch, generator=torch.Generator().manual_seed(2)).mT  # as Linear lays it
    slopes = torch.full((5, *module.slope.shape), 0.25)

    def of_one(slope, h):
        return torch.func.functional_call(module, {"slope": slope}, (h,)).square().sum()

    def gradients(first, last, threads):
        torch.set_num_threads(threads)
        own = slopes[first:last].clone().requires_grad_()
        losses = torch.func.vmap(of_one)(own, x[first:last])
        return torch.autograd.grad(losses.sum(), own)[0]

    together = gradients(0, 5, 1)
    assert bool((together != 0).all())
    for first, last in ((0, 5), (0, 1), (4, 5), (1, 4)):
        for threads in (1, 2):
            assert torch.equal(gradients(first, last, threads), together[first:last])


def test_both_claims_are_made():
    assert {entry.rounds_alike for entry in ACTIVATIONS} == {True, False}
