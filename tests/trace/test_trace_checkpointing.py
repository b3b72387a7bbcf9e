"""Activation checkpointing changes neither what is measured nor what is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction, checkpoint, checkpoint_sequential

import initbench
from initbench.probing.module_probe import ModuleProbe, probe_module

Body = Callable[[Tensor], Tensor]


class Gated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class Net(nn.Module):
    """A layer, a body that `call(body, x)` runs, and a head."""

    def __init__(self, call: Callable[[nn.Sequential, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head, self.call = nn.Linear(8, 32), nn.Linear(32, 5), [call]
        self.body = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32), Gated())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.call[0](self.body, self.first(x)))  # type: ignore[no-any-return]


class OwnCheckpoint(torch.autograd.Function):
    """Checkpointing as many repositories write it: the weights are given as arguments."""

    @staticmethod
    def forward(ctx: Any, body: Body, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.body, ctx.x, ctx.weights = body, x.detach(), weights
        with torch.no_grad():
            return body(x)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Any:  # type: ignore[override]
        x = ctx.x.requires_grad_()
        with torch.enable_grad():
            output = ctx.body(x.view_as(x))
        return None, *torch.autograd.grad(output, (x, *ctx.weights), delta, allow_unused=True)


class Accumulating(OwnCheckpoint):
    """The weights get their gradients on the side."""

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Any:  # type: ignore[override]
        x = ctx.x.requires_grad_()
        with torch.enable_grad():
            ctx.body(x.view_as(x)).backward(delta)
        return None, x.grad


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, 8, generator=generator), torch.randint(5, (16,), generator=generator)


def passed(call: Callable[[nn.Sequential, Tensor], Tensor]) -> ModuleProbe:
    return probe_module(Net(call), *batch())


TORCHS: dict[str, Callable[[nn.Sequential, Tensor], Tensor]] = {
    "reentrant": lambda body, x: checkpoint(body, x, use_reentrant=True),
    "not reentrant": lambda body, x: checkpoint(body, x, use_reentrant=False),
    "sequential": lambda body, x: checkpoint_sequential(body, 2, x, use_reentrant=True),
    "sequential, not reentrant": lambda body, x: checkpoint_sequential(body, 2, x, use_reentrant=False),
    "nested": lambda body, x: checkpoint(
        lambda z: checkpoint(body, z, use_reentrant=True), x, use_reentrant=True
    ),
    "layer by layer": lambda body, x: checkpoint(
        body[1:], checkpoint(body[0], x, use_reentrant=True), use_reentrant=True
    ),
    "the function itself": lambda body, x: CheckpointFunction.apply(body, True, x),
}


@pytest.mark.parametrize("name", TORCHS)
def test_a_checkpoint_shows_what_the_plain_net_does(name: str) -> None:
    expected, shown = passed(lambda body, x: body(x)), passed(TORCHS[name])
    assert shown.records == expected.records
    assert shown.coverage == expected.coverage
    assert [use.activation for use in shown.trace.uses] == [use.activation for use in expected.trace.uses]
    assert "apply" not in vars(CheckpointFunction)


@pytest.mark.parametrize("function", [OwnCheckpoint, Accumulating])
def test_a_checkpoint_of_the_users_own_is_partly_seen_and_reaches_its_weights(function: Any) -> None:
    def call(body: nn.Sequential, x: Tensor) -> Tensor:
        weights = tuple(body.parameters()) if function is OwnCheckpoint else ()
        return function.apply(body, x, *weights)  # type: ignore[no-any-return]

    net = Net(call)
    shown = probe_module(net, *batch())
    assert (shown.coverage.measured, shown.coverage.with_gradient, shown.coverage.without_gradient) == (
        4,
        2,
        0,
    )
    assert "no_gradient" not in [finding.code for finding in initbench.lint(net, batch()[0]).findings]
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_reentrant_checkpoint_of_the_bare_input_lets_no_gradient_through() -> None:
    net = Net(lambda body, x: body(x))
    net.forward = lambda x: net.head(net.body(checkpoint(net.first, x, use_reentrant=True)))  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="requires_grad"):
        net(batch()[0]).sum().backward()
    assert net.first.weight.grad is None
    (finding,) = [one for one in initbench.lint(net, batch()[0]).findings if one.code == "no_gradient"]
    assert finding.message.layers == ("first",)
