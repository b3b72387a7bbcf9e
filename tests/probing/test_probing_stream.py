"""The residual stream is judged at its sums, by how far the gradient may grow behind branches with a norm."""

import pytest
import torch
from torch import nn

import initbench
from initbench.probing.log_slopes import NORMED_GROWTH, VANISHING_RATIO
from initbench.probing.module_probe import probe_module

WIDTH = 32


class Block(nn.Module):
    """Three layers with batch norm and a shortcut, which the first block of a stage projects."""

    def __init__(self, *, projects: bool, ends_in_norm: bool) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(3):
            parts += [nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.ReLU()]
        self.branch = nn.Sequential(*parts[: -1 if ends_in_norm else -2])
        projection = nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH))
        self.shortcut = projection if projects else nn.Identity()

    def forward(self, x):
        return torch.relu(self.shortcut(x) + self.branch(x))


def staged_net(blocks, *, ends_in_norm=True):
    """Return a net of four stages of `blocks` blocks, initialised like residual nets with batch norm."""
    torch.manual_seed(0)
    parts = [
        Block(projects=place == 0, ends_in_norm=ends_in_norm) for _ in range(4) for place in range(blocks)
    ]
    net = nn.Sequential(
        nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), *parts, nn.Linear(WIDTH, 10)
    )
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    return net


@pytest.mark.parametrize(
    "blocks, ends_in_norm, explodes",
    [(4, True, False), (8, True, True), (6, False, True)],
)
def test_a_gradient_may_grow_further_where_every_branch_ends_in_a_norm(blocks, ends_in_norm, explodes):
    net = staged_net(blocks, ends_in_norm=ends_in_norm)
    batch = torch.randn(64, WIDTH), torch.randint(10, (64,))
    sums = [record["sum"] for record in probe_module(net, *batch).records if "sum" in record]
    grown = sums[0]["grad"]["pre_q"] / sums[-1]["grad"]["pre_q"]
    assert len(sums) == 4 * blocks
    assert (grown > NORMED_GROWTH) == (blocks == 8)
    assert grown > 1 / VANISHING_RATIO
    assert ("exploding_backward" in [f.code for f in initbench.probe(net, batch).findings]) == explodes
