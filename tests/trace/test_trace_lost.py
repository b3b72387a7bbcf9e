"""Operations that the trace cannot follow: later layers are found again, or reported as not traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import initbench
from initbench.errors import UsageError


class Deep(nn.Module):
    """Layers with σ_w² = `sigma_w2` and a head; `step(layer, x)` is what a layer does."""

    def __init__(
        self, step: Callable[[nn.Module, Tensor], Tensor], sigma_w2: float = 2.0, depth: int = 6
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(depth))
        self.head = nn.Linear(32, 5)
        for layer in self.layers:
            nn.init.normal_(layer.weight, 0.0, (sigma_w2 / 32) ** 0.5)
            nn.init.zeros_(layer.bias)
        self.step = [step]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.step[0](layer, x)
        return self.head(x)  # type: ignore[no-any-return]


@torch.jit.script
def scripted(x: Tensor) -> Tensor:
    return x.mul(x.sigmoid())


class Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return delta * (x > 0)


def with_derivative(layer: nn.Module, x: Tensor) -> Tensor:
    h = layer(x)
    return torch.func.jvp(torch.tanh, (h,), (torch.ones_like(h),))[0]  # type: ignore[no-any-return]


STEPS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "a scripted function": lambda layer, x: scripted(layer(x)),
    "vmap": lambda layer, x: torch.vmap(lambda row: row.relu())(layer(x)),
    "jvp": with_derivative,
    "an autograd function": lambda layer, x: Relu.apply(layer(x)),
    "where": lambda layer, x: (lambda z: torch.where(z > 0, z, torch.zeros_like(z)))(layer(x)),
    "maximum": lambda layer, x: (lambda z: torch.maximum(z, 0.2 * z))(layer(x)),
    "mask": lambda layer, x: (lambda z: z * (z > 0))(layer(x)),
    "masked_fill": lambda layer, x: (lambda z: z.masked_fill(z < 0, 0.0))(layer(x)),
    "a gelu written out": lambda layer, x: (lambda z: 0.5 * z * (1 + torch.erf(z / 2**0.5)))(layer(x)),
    "its tanh": lambda layer, x: (lambda z: 0.5 * z * (1 + torch.tanh(0.8 * (z + 0.0447 * z**3))))(layer(x)),
    "softsign": lambda layer, x: (lambda z: z / (1 + z.abs()))(layer(x)),
    "snake": lambda layer, x: (lambda z: z + torch.sin(z) ** 2)(layer(x)),
    "crelu": lambda layer, x: (lambda z: F.relu(torch.cat([z[:, :16], -z[:, :16]], 1)))(layer(x)),
    "none": lambda layer, x: layer(x),
}


def test_a_scripted_function_is_named_as_such() -> None:
    shown = initbench.probe(Deep(STEPS["a scripted function"]), torch.randn(64, 32))
    later = {layer["activation"] for layer in shown.as_data()["layers"][2:-1]}
    assert later == {"a custom function (TorchScript)"}


@pytest.mark.parametrize("name", STEPS)
def test_what_lies_behind_is_seen_and_judged(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 32)
    shown = initbench.probe(Deep(STEPS[name], 0.05, 12), x)
    assert [finding.code for finding in shown.findings] == ["vanishing_forward", "vanishing_backward"]
    assert shown.survey.coverage.is_complete
    assert len(shown.survey.layers) == 13
    grown = initbench.probe(Deep(STEPS["none"], 64.0, 12), x).findings
    assert {"exploding_forward", "exploding_backward"} <= {finding.code for finding in grown}
    assert "unused" not in [finding.code for finding in initbench.lint(Deep(STEPS[name]), x).findings]


class Within(nn.Module):
    def __init__(self, manner: Callable[[], Any], inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.head, self.manner = inner, nn.Linear(5, 3), [manner]

    def forward(self, x: Tensor) -> Tensor:
        with self.manner[0]():
            return self.inner(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("manner", [torch.no_grad, torch.inference_mode])
def test_a_pass_without_gradient_is_not_called_healthy(manner: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    net = Within(manner, Deep(lambda layer, x: layer(x).relu()))
    net.head = nn.Identity()  # type: ignore[assignment]
    shown = initbench.probe(net, torch.randn(64, 32))
    assert shown.findings == []
    assert not shown.healthy
    assert "torch.no_grad" in str(shown)
    assert "healthy" not in str(shown)
    assert (shown.survey.coverage.measured, shown.survey.coverage.with_gradient) == (7, 0)


def test_a_caller_in_inference_mode_gets_gradients_all_the_same() -> None:
    torch.manual_seed(0)
    net, x = Deep(lambda layer, x: layer(x).relu()), torch.randn(64, 32)
    with torch.inference_mode():
        shown = initbench.probe(net, x)
    assert shown.healthy


class PerSample(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(32, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.vmap(lambda row: torch.relu(self.first(row)))(x))  # type: ignore[no-any-return]


def test_a_weight_that_cannot_be_looked_at_is_neither_unused_nor_healthy() -> None:
    scripted_layer = nn.Sequential(nn.Linear(32, 32), torch.jit.script(nn.Linear(32, 32)), nn.Linear(32, 5))
    for net, name, share in ((PerSample(), "first.weight", "1 of 2"), (scripted_layer, "1.weight", "2 of 3")):
        shown, linted = initbench.probe(net, torch.randn(64, 32)), initbench.lint(net, torch.randn(64, 32))
        assert f"{share} weights" in str(shown)
        assert name in str(shown)
        assert not shown.healthy
        assert "unused" not in [finding.code for finding in linted.findings]


ZEROS: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": lambda x: torch.zeros(len(x), 32),
    "new_zeros": lambda x: x.new_zeros(len(x), 32),
    "zeros_like": torch.zeros_like,
    "times 0": lambda x: x * 0.0,
    "minus itself": lambda x: x - x,
    "filled": lambda x: torch.empty(len(x), 32).zero_(),
    "overwritten": lambda x: x.clone().zero_(),
    "a constant": lambda x: torch.full_like(x, 0.3),
}


class Recurrent(nn.Module):
    def __init__(self, start: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.x, self.h, self.head = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 5)
        self.start = [start]

    def forward(self, x: Tensor) -> Tensor:
        state = self.start[0](x)
        for step in x.view(len(x), 4, 8).unbind(1):
            state = torch.tanh(self.x(step) + self.h(state))
        return self.head(state)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ZEROS)
def test_what_was_constant_at_the_start_is_no_lost_signal(name: str) -> None:
    torch.manual_seed(0)
    assert initbench.probe(Recurrent(ZEROS[name]), torch.randn(64, 32)).findings == []


def test_a_layer_that_makes_its_input_constant_loses_the_signal() -> None:
    torch.manual_seed(0)
    net = Deep(lambda layer, x: layer(x).relu())
    nn.init.constant_(net.layers[2].bias, -1e3)
    codes = [finding.code for finding in initbench.probe(net, torch.randn(64, 32)).findings]
    assert codes == ["dead"] or "vanishing_forward" in codes


def test_nothing_that_was_seen_is_refused_with_the_reason() -> None:
    class Unseen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(32, 5))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cdist(x, self.weight.mT)

    with pytest.raises(UsageError, match="cdist uses it"):
        initbench.probe(Unseen(), torch.randn(8, 32))
