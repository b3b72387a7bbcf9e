"""A layer whose units all have the same weights is named, unless its weights are meant to be equal."""

import pytest
import torch
from torch import nn

import initbench


class Shortcut(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.last = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.last(torch.relu(self.first(x)))


def mlp():
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def convolutions(groups=1):
    first = nn.Conv2d(3, 3, 3, padding=1, groups=groups)
    return nn.Sequential(first, nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))


def residual():
    return nn.Sequential(nn.Linear(8, 8), Shortcut(8), Shortcut(8), nn.Linear(8, 4))


def fill(value):
    return lambda weight: weight.fill_(value)


def repeat_row(weight):
    weight.copy_(weight[:1].clone().expand_as(weight))


MISTAKES = {
    "all 0.1": (mlp, "2", fill(0.1)),
    "first layer": (mlp, "0", fill(-0.3)),
    "one row repeated": (mlp, "2", repeat_row),
    "convolution": (convolutions, "0", fill(0.1)),
    "last of a branch": (residual, "1.last", fill(0.1)),
}
MEANT = {
    "branches that start at 0": (residual, "1.last", fill(0.0)),
    "blur of each channel": (lambda: convolutions(groups=3), "0", fill(1 / 9)),
    "one feature for all": (lambda: nn.Sequential(nn.Linear(1, 8), *mlp()[1:]), "0", fill(1.0)),
    "frozen mean": (lambda: mlp().requires_grad_(False), "0", fill(1 / 8)),
    "head": (mlp, "4", fill(0.1)),
    "distinct": (mlp, "2", lambda weight: None),
}


@pytest.mark.parametrize("label", [*MISTAKES, *MEANT])
def test_units_with_the_same_weights_are_named_and_the_advice_cures(label):
    make, layer, change = (MISTAKES | MEANT)[label]
    torch.manual_seed(0)
    net = make()
    net[-1].requires_grad_(True)
    with torch.no_grad():
        change(net.get_submodule(layer).weight)
    is_convolution = isinstance(net[0], nn.Conv2d)
    # Three equal channels, as of a grey image: a blur of each channel puts out the same three times.
    x = torch.randn(16, 1, 6, 6).repeat(1, 3, 1, 1) if is_convolution else torch.randn(16, net[0].in_features)
    batch = x, torch.randint(4, (16,))
    found = [f for f in initbench.probe(net, batch).findings if f.code == "symmetric"]
    assert bool(found) == (label in MISTAKES)
    if found:
        assert "have the same weights at init" in found[0].message
        initbench.apply_init(net, "kaiming_normal")
        assert not any(f.code == "symmetric" for f in initbench.probe(net, batch).findings)
