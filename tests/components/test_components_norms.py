"""Every norm layer: against torch's own, and by the axes it states."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from initbench.components.norm import NORMS
from initbench.registry_choice import options_model

NAMES = NORMS.names()


def options_of(name, **options):
    return options_model(NORMS[name], "name")(**options)


def built(name, features, **options):
    return NORMS[name].build(features, options_of(name, **options))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2.5 + 0.7


def twins(torch_class, features, *, affine=True, momentum=0.1, eps=1e-5):
    """Our batch norm and torch's in float64, with the same scale and shift away from 1 and 0."""
    ours = built("batch", features, affine=affine, momentum=momentum, eps=eps)
    theirs = torch_class(features, affine=affine, momentum=momentum, eps=eps)
    if affine:
        scale, shift = noise(features, seed=8), noise(features, seed=9)
        with torch.no_grad():
            for module in (ours, theirs):
                module.weight.copy_(scale)
                module.bias.copy_(shift)
    return ours.double(), theirs.double()


def assert_close(ours, theirs):
    """Two float64 evaluations of one formula, of values around 1: thousands of roundings of 1e-16."""
    assert torch.allclose(ours, theirs, rtol=1e-11, atol=1e-11)


CASES = [(nn.BatchNorm1d, (16, 6)), (nn.BatchNorm1d, (3, 6)), (nn.BatchNorm2d, (4, 6, 5, 3))]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, 0.73, 1.0])
@pytest.mark.parametrize(("torch_class", "shape"), CASES)
def test_batch_norm_is_torchs(torch_class, shape, momentum, affine):
    """Outputs, gradients and running statistics in training, over three batches, then in evaluation."""
    ours, theirs = twins(torch_class, shape[1], affine=affine, momentum=momentum)
    for step in range(3):
        inputs = [noise(*shape, seed=step).requires_grad_() for _ in range(2)]
        outputs = [module(x) for module, x in zip((ours, theirs), inputs, strict=True)]
        assert_close(*outputs)
        upstream = noise(*shape, seed=20 + step)
        parameters = [[x, *module.parameters()] for module, x in zip((ours, theirs), inputs, strict=True)]
        gradients = [
            torch.autograd.grad((y * upstream).sum(), p) for y, p in zip(outputs, parameters, strict=True)
        ]
        for pair in zip(*gradients, strict=True):
            assert_close(*pair)
        assert_close(ours.running_mean, theirs.running_mean)
        assert_close(ours.running_var, theirs.running_var)
    ours.eval()
    theirs.eval()
    before = ours.running_mean.clone(), ours.running_var.clone()
    assert_close(ours(noise(*shape, seed=40)), theirs(noise(*shape, seed=40)))
    assert torch.equal(ours.running_mean, before[0])
    assert torch.equal(ours.running_var, before[1])


def test_batch_norm_eps_is_an_option():
    ours, theirs = twins(nn.BatchNorm1d, 4, eps=0.5)
    assert_close(ours(noise(8, 4)), theirs(noise(8, 4)))
    assert (twins(nn.BatchNorm1d, 4)[0](noise(8, 4)) - ours(noise(8, 4))).abs().max() > 1e-2


def test_batch_norm_has_torchs_names():
    ours, theirs = twins(nn.BatchNorm1d, 4)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert {n for n, _ in ours.named_buffers()} == {"running_mean", "running_var"}
    assert not list(built("batch", 4, affine=False).parameters())


@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm_is_torchs(affine):
    module, x = built("layer", 12, affine=affine, eps=1e-3).double(), noise(5, 12)
    assert torch.equal(module(x), F.layer_norm(x, (12,), module.weight, module.bias, eps=1e-3))
    assert bool(list(module.parameters())) == affine


@pytest.mark.parametrize("shape", [(5, 12), (5, 12, 4, 3)])
@pytest.mark.parametrize("affine", [True, False])
def test_group_norm_is_torchs(affine, shape):
    module, x = built("group", 12, num_groups=3, affine=affine, eps=1e-3).double(), noise(*shape)
    assert torch.equal(module(x), F.group_norm(x, 3, module.weight, module.bias, eps=1e-3))
    assert bool(list(module.parameters())) == affine


@pytest.mark.parametrize(
    ("shape", "groups", "fits"),
    [
        ((12,), 3, True),
        ((12,), 6, True),
        ((12,), 12, False),
        ((1,), 1, False),
        ((12,), 5, False),
        ((4,), 8, False),
        ((12, 2, 1), 12, True),
        ((12, 1, 1), 12, False),
        ((1, 1, 1), 1, False),
        ((1, 3, 3), 1, True),
        ((12, 3, 3), 5, False),
    ],
)
def test_groups_must_divide_the_features_and_hold_two_values(shape, groups, fits):
    problem = NORMS["group"].problem(shape, options_of("group", num_groups=groups))
    if fits:
        assert problem is None
    else:
        option, sentence = problem
        assert option == "num_groups"
        assert str(groups) in sentence
        assert str(shape[0]) in sentence


@pytest.mark.parametrize(
    ("shape", "fits"), [((2,), True), ((1,), False), ((1, 2, 1), True), ((1, 1, 1), False)]
)
def test_layer_norm_needs_two_values(shape, fits):
    problem = NORMS["layer"].problem(shape, options_of("layer"))
    assert (problem is None) == fits
    assert fits or problem[0] == ""


@pytest.mark.parametrize(("name", "groups"), [("layer", {}), ("group", {"num_groups": 1})])
def test_what_is_refused_would_be_0(name, groups):
    """Up to a rounding of 1e-15 in the mean, multiplied by 1/√ε = 316."""
    assert float(built(name, 1, **groups).double()(noise(16, 1)).detach().abs().max()) < 1e-12
