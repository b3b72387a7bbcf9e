"""`rounds_alike`: which activations round every entry of a tensor the same, wherever it lies in memory."""

import pytest
import torch

from initbench.components.activation import ACTIVATIONS, bound
from initbench.testing.activations import depends_on_position


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class LastAreOther(torch.nn.Module):
    """Stand-in for a vectorised exponential: the remaining entries at the end differ in the last digit."""

    def forward(self, x):
        flat = x.flatten()
        left_over = torch.arange(len(flat)) >= len(flat) - len(flat) % 16
        return torch.where(left_over, flat * (1 + 2e-7), flat).view(x.shape)


def test_the_experiment_finds_who_does_not():
    assert depends_on_position(LastAreOther(), 1)
    assert not depends_on_position(torch.nn.Identity(), 1)


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
