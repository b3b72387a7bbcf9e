"""Inputs that users reported, one test of that name for each; what they share is tested elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import initbench as package

X = torch.randn(32, 32, generator=torch.Generator().manual_seed(1))


class Deep(nn.Module):
    """Equal layers of weights with σ_w² = gain2, a product and an activation of the user's own."""

    def __init__(
        self,
        act: Callable[[Tensor], Tensor],
        gain2: float,
        product: Callable[[Tensor, Tensor], Tensor] = F.linear,
        depth: int = 12,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(32, 32, bias=False) for _ in range(depth))
        self.head = nn.Linear(32, 5)
        for layer in self.layers:
            nn.init.normal_(layer.weight, 0.0, math.sqrt(gain2 / 32))
        self.functions = [act, product]

    def forward(self, x: Tensor) -> Tensor:
        act, product = self.functions
        for layer in self.layers:
            x = act(product(x, layer.weight))
        return self.head(x)


def softsign(z: Tensor) -> Tensor:
    """An activation that initbench does not know, written so."""
    return z / (1 + z.abs())


def codes(module: nn.Module, batch: Any = X, *, look: Any = package.probe) -> set[str]:
    return {finding.code for finding in look(module, batch).findings}


@pytest.mark.parametrize(
    "product",
    [
        lambda x, w: x @ w,
        lambda x, w: x @ w.T,
        lambda x, w: x @ (1.0 * w),
        torch.mm,
        lambda x, w: torch.addmm(x.new_zeros(32), x, w),
        lambda x, w: torch.einsum("bi,io->bo", x, w),
        F.linear,
    ],
)
def test_matmul_no_gradient(product: Callable[[Tensor, Tensor], Tensor]) -> None:
    net = Deep(lambda z: torch.sigmoid(z) - 0.5, 1.0, product)
    probed = package.probe(net, X)
    assert {"vanishing_forward", "vanishing_backward"} <= {finding.code for finding in probed.findings}
    layers = probed.as_data()["layers"]
    assert all(layer["measured"]["grad_ratio"]["mean"] > 0.0 for layer in layers[:-1])
    assert "no_gradient" not in codes(net, look=package.lint)


@pytest.mark.parametrize(
    ("act", "gain2"),
    [
        (lambda z: 0.5 * z * (1 + torch.erf(z / math.sqrt(2))), 0.3),
        (lambda z: 0.5 * z * (1 + torch.erf(z / math.sqrt(2))), 9.0),
        (lambda z: torch.where(z > 0, z, torch.zeros_like(z)), 0.3),
        (lambda z: torch.clip(z, min=0), 0.3),
        (lambda z: torch.maximum(z, 0.2 * z), 9.0),
        (lambda z: z * (z > 0), 0.3),
        (torch.special.expit, 0.3),
        (softsign, 0.2),
        (lambda z: F.relu(torch.cat([z[:, :16], -z[:, :16]], 1)), 9.0),
        (lambda z: z, 64.0),
        (lambda z: z, 0.2),
    ],
)
def test_healthy_without_known_activation(act: Callable[[Tensor], Tensor], gain2: float) -> None:
    expected = "exploding_forward" if gain2 > 1.0 else "vanishing_forward"
    assert expected in codes(Deep(act, gain2))


class Recurrent(nn.Module):
    def __init__(self, cell: str, *, spoilt: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.head = getattr(nn, cell)(8, 32, batch_first=True), nn.Linear(32, 10)
        for name, p in self.rnn.named_parameters():
            if spoilt:
                nn.init.constant_(p, -5.0) if "bias" in name else nn.init.normal_(p, 0, 1e-4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])  # type: ignore[no-any-return]


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_recurrent_unseen_healthy(cell: str) -> None:
    x = torch.randn(8, 30, 8, generator=torch.Generator().manual_seed(0))
    probed = package.probe(Recurrent(cell, spoilt=False), x)
    assert probed.survey.coverage.as_data()["seen"] == 3
    assert "vanishing_backward" in codes(Recurrent(cell, spoilt=True), x)
    with torch.no_grad():
        assert "vanishing_backward" in codes(Recurrent(cell, spoilt=True), x)


def test_trace_lost_unused() -> None:
    for function in (torch.jit.script(silu), torch.vmap(lambda row: row.relu())):
        net = Deep(function, 2.0, depth=4)
        probed = package.probe(net, X)
        assert not probed.healthy or len(probed.survey.layers) == 5
        assert "unused" not in codes(net, look=package.lint)


def silu(z: Tensor) -> Tensor:
    return z.mul(z.sigmoid())


class LanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wte, self.ln, self.lm_head = nn.Embedding(50, 32), nn.LayerNorm(32), nn.Linear(32, 50)
        nn.init.normal_(self.lm_head.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lm_head(self.ln(self.wte(tokens)))  # type: ignore[no-any-return]


def test_head_scale_silent() -> None:
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))
    nn.init.normal_(classifier[2].weight)
    y, tokens = torch.arange(32) % 10, torch.arange(96).reshape(8, 12) % 50
    for arguments in (((X, y),), ((X, y), F.cross_entropy), ((X, y), nn.CrossEntropyLoss())):
        assert "head_scale" in {finding.code for finding in package.lint(classifier, *arguments).findings}
    flat = package.lint(
        LanguageModel(), (tokens, tokens), lambda out, y: F.cross_entropy(out.flatten(0, 1), y.flatten())
    )
    for linted in (package.lint(LanguageModel(), tokens), flat):
        assert "head_scale" in {finding.code for finding in linted.findings}


class ActorCritic(nn.Module):
    """Heads mu and v on one trunk; where `is_right` is false, mu was never drawn."""

    def __init__(self, *, is_right: bool, value_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.mu, self.v = (nn.Linear(*s) for s in ((32, 64), (64, 64), (64, 6), (64, 1)))
        for layer, gain in ((self.a, 1.4), (self.b, 1.4), (self.mu, 0.01), (self.v, 1.0)):
            if is_right or layer is not self.mu:
                nn.init.orthogonal_(layer.weight, gain)
        self.value_first = value_first

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.b(torch.tanh(self.a(x))))
        return (self.v(h), self.mu(h)) if self.value_first else (self.mu(h), self.v(h))


@pytest.mark.parametrize("value_first", [True, False])
def test_two_heads(value_first: bool) -> None:
    assert codes(ActorCritic(is_right=True, value_first=value_first), look=package.lint) == set()
    linted = package.lint(ActorCritic(is_right=False, value_first=value_first), X)
    assert [(finding.code, finding.message.layers) for finding in linted.findings] == [("untouched", ("mu",))]


def test_raw_inputs() -> None:
    column = X.clone()
    column[:, 3] *= 1e4
    for batch in (1000.0 * X, X + 1000.0, column, 255.0 * X.abs()):
        assert codes(Deep(softsign, 1.0, depth=4), batch) == {"input_scale"}
    inside = nn.Sequential(Scaling(), Deep(softsign, 1.0, depth=4))  # as in a net that takes millimetres
    assert codes(inside) == codes(inside, look=package.lint) == {"input_scale"}


class Scaling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 1000.0 * x


@pytest.mark.parametrize(
    ("value", "where"), [(math.nan, "weight"), (math.inf, "weight"), (math.nan, "bias"), (3e38, "weight")]
)
def test_nan_weights(value: float, where: str) -> None:
    net = Deep(softsign, 1.0, depth=3)
    layer = net.head if where == "bias" else net.layers[1]
    getattr(layer, where).data.view(-1)[0] = value
    name = f"head.{where}" if where == "bias" else f"layers.1.{where}"
    finding = next(f for f in package.lint(net, X).findings if f.code == "not_finite")
    assert name in finding.message.sentence
    assert name in package.probe(net, X).findings[0].message


def mlp(act: Callable[[], nn.Module]) -> nn.Sequential:
    return nn.Sequential(nn.Linear(32, 256), act(), nn.Linear(256, 256), act(), nn.Linear(256, 64))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.o = nn.MultiheadAttention(32, 4, batch_first=True), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None].expand(-1, 6, -1) * torch.arange(1, 7)[:, None]
        return self.o(self.a(x, x, x)[0]).mean(1)  # type: ignore[no-any-return]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.h = nn.Linear(32, 64, bias=False), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.h(torch.tanh(self.e(x)))), self.e.weight.T)


@pytest.mark.parametrize(
    ("make", "scheme", "gain", "activation"),
    [
        (lambda: mlp(nn.Tanh), "lecun_normal", "auto", "tanh"),
        (lambda: mlp(nn.GELU), "lecun_normal", "auto", "gelu"),
        (Attention, "xavier_uniform", None, None),
        (Tied, "kaiming_normal", None, "tanh"),
        (lambda: mlp(lambda: nn.LeakyReLU(0.2)), "kaiming_normal", None, "leaky_relu"),
    ],
)
def test_lint_contradicts_apply_init(
    make: Callable[[], nn.Module], scheme: str, gain: str | None, activation: str | None
) -> None:
    net = make()
    arguments = {key: word for key, word in (("gain", gain), ("activation", activation)) if word}
    package.apply_init(net, scheme, **arguments)
    linted = package.lint(net, X, scheme=scheme, gain=gain)
    assert "variance" not in {finding.code for finding in linted.findings}
    for weight in net.parameters():
        weight.data.mul_(1.5)
    linted = package.lint(net, X, scheme=scheme, gain=gain)
    assert "variance" in {finding.code for finding in linted.findings}


@pytest.mark.parametrize(
    ("act", "gain2", "cure"),
    [
        (lambda z: torch.sin(30.0 * z), 2.0, {"activation": "sin", "omega": 30}),
        (lambda z: math.sqrt(2) * F.relu(z), 2.0, {"output_scale": 1.41421}),
        (lambda z: 0.1 * F.relu(z), 2.0, {"output_scale": 0.1}),
        (lambda z: torch.tanh(z / 10), 1.0, {"activation": "tanh", "input_scale": 0.1}),
        (lambda z: torch.sigmoid(z) - 0.5, 1.0, {"activation": "sigmoid", "output_shift": -0.5}),
        (lambda z: F.softplus(z, beta=5.0), 0.3, {"activation": "softplus", "beta": 5}),
        (
            lambda z: z * torch.sigmoid(1.702 * z),
            0.5,
            {"activation": "silu", "input_scale": 1.702, "output_scale": 0.587544},
        ),
    ],
)
def test_scaled_activation_advice(
    act: Callable[[Tensor], Tensor], gain2: float, cure: dict[str, Any]
) -> None:
    net = Deep(act, gain2, depth=24)
    slopes = [f for f in package.probe(net, X).findings if f.code.endswith(("_forward", "_backward"))]
    assert slopes
    options = ", ".join(
        f'{key}="{word}"' if key == "activation" else f"{key}={word}" for key, word in cure.items()
    )
    for finding in slopes:
        assert options in finding.message
        assert "checked: " in finding.message


@pytest.mark.parametrize("command", ["run", "probe", "lint"])
def test_cnn_on_features(initbench: Any, tmp_path: Path, repository: Path, command: str) -> None:
    x, y = np.random.default_rng(0).random((60, 6), "f4"), np.arange(60) % 3
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    data = f"data={{name: npz, path: {tmp_path / 'd.npz'}}}"
    model = "model={family: cnn, depth: 4, width: 2}"
    config = repository / "configs" / "relu_kaiming.yaml"
    said = initbench(command, config, data, model, "train.batch_size=8")
    assert said.code == 2
    assert "cnn needs images, and a sample of this data (data.name, data.whiten) is a list of 6" in said.err
