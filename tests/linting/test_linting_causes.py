"""Lint codes for causes beyond a layer's scale: inputs, not finite numbers, copies, frozen layers."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import initbench
from initbench.probing.loss import Loss


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def net(*, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    behind = [nn.BatchNorm1d(32)] if norm else []
    parts = [nn.Linear(8, 32), *behind, nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5)]
    module = nn.Sequential(*parts)
    initbench.apply_init(module)
    return module


def codes(module: nn.Module, batch: object, loss: Loss | None = None, **more: float) -> set[str]:
    return {finding.code for finding in initbench.lint(module, batch, loss, **more).findings}  # type: ignore[arg-type]


def both(module: nn.Module, batch: object) -> tuple[set[str], set[str]]:
    """The codes of lint and of probe."""
    return codes(module, batch), {f.code for f in initbench.probe(module, batch).findings}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "place", "words"),
    [
        (math.nan, "weight", "2.weight: of 1,024 entries 1 is NaN (layer 2)"),
        (math.inf, "weight", "2.weight: of 1,024 entries 1 is infinite (layer 2)"),
        (-math.inf, "bias", "2.bias: of 32 entries 1 is infinite"),
        (3e38, "weight", "2.weight: of 1,024 entries 1 is beyond 1e+18"),
    ],
)
def test_what_is_not_finite_is_named_and_counted(value: float, place: str, words: str) -> None:
    module = net()
    getattr(module[2], place).data.view(-1)[0] = value
    (finding,) = [f for f in initbench.lint(module, noise(16, 8)).findings if f.code == "not_finite"]
    assert words in finding.message.sentence
    assert finding.message.layers == ("2",)
    (found,) = initbench.probe(module, noise(16, 8)).findings
    assert (found.code, found.layer) == ("not_finite", 2)
    assert words in found.message


def test_buffers_and_inputs_that_are_not_finite_are_named() -> None:
    module = net(norm=True)
    module[1].running_var[:3] = math.nan
    (found,) = [f for f in initbench.lint(module, noise(16, 8)).findings if f.code == "not_finite"]
    assert "1.running_var: of 32 entries 3 are NaN" in found.message.sentence
    x = noise(16, 8)
    x[0, 0] = math.nan
    assert "the input: of 128 entries 1 is NaN" in str(initbench.lint(net(), x))


def test_a_mask_of_minus_infinity_is_no_fault() -> None:
    module = net()
    module.register_buffer("mask", torch.full((4, 4), -math.inf).triu(1))
    assert "not_finite" not in codes(module, noise(16, 8))


class Function(nn.Module):
    def __init__(self, function: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(8, 32), nn.Linear(32, 4), nn.Linear(4, 5)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(torch.relu(self.first(x)))
        made: Tensor = {
            "exp": lambda: torch.exp(2000.0 * h),
            "log": lambda: torch.log(h),
            "sqrt": lambda: (-h.abs() - 1.0).sqrt(),
            "division": lambda: h / (h * 0.0),
            "pow": lambda: (1e4 * h) ** 21,
            "exp in place": lambda: (2000.0 * h).exp_(),
        }[self.function]()
        return self.last(made)


@pytest.mark.parametrize("function", ["exp", "log", "sqrt", "division", "pow", "exp in place"])
def test_an_operation_that_overflows_is_named_where_it_stands(function: str) -> None:
    found = initbench.probe(Function(function), noise(16, 8)).findings
    assert [f.code for f in found if f.level == "warning"] == ["not_finite"]
    assert found[0].layer == 2
    assert f"{function.split()[0]} after layer second" in found[0].message
    assert "not_finite" in codes(Function(function), noise(16, 8))


def test_an_overflow_in_the_loss_is_said_to_be_there() -> None:
    def loss(output: Tensor) -> Tensor:
        return (output * 0.0).log().mean()

    (found,) = initbench.probe(net(), noise(16, 8), loss).findings
    assert "log in the loss" in found.message


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.out = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.q(x)
        scores = (h @ h.mT).masked_fill(torch.eye(len(x)).bool(), -math.inf)
        return self.out(scores.softmax(-1) @ h)


def test_masked_attention_is_finite() -> None:
    assert "not_finite" not in both(Masked(), noise(16, 8))[1]


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (255.0 * torch.rand(64, 8, generator=torch.Generator().manual_seed(0)), "values 0"),
        (noise(64, 8) + 1000.0, "most of it an offset of 1000"),
        (noise(64, 8) * torch.tensor([1.0, 1, 1, 1e4, 1, 1, 1, 1]), "most of it from column 3"),
        (noise(64, 8) * 1e-3, "E[x²] = 1"),
    ],
)
def test_inputs_that_were_not_scaled_are_the_only_finding(x: Tensor, words: str) -> None:
    linted, probed = both(net(), x)
    assert linted == {"input_scale"}
    assert probed == {"input_scale"}
    (found,) = initbench.probe(net(), x).findings
    assert words in found.message
    assert "inputs scaled to mean 0" in found.message or "every column scaled" in found.message
    assert "apply_init" not in found.message


def test_images_and_what_a_net_scales_itself() -> None:
    images = 255.0 * torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    class Image(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.factor = factor
            self.net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 5))
            initbench.apply_init(self.net)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(self.factor * x)

    assert both(Image(1.0), images) == ({"input_scale"}, {"input_scale"})
    assert "input_scale" not in both(Image(1 / 255), images)[1]
    assert "the inputs of layer 1 have" in str(initbench.probe(Image(1e4), images / 255.0))


@pytest.mark.parametrize(
    "x", [noise(64, 8), torch.rand(64, 8), torch.eye(8).repeat(8, 1), 5.0 * noise(64, 8)]
)
def test_inputs_of_ordinary_size_are_no_finding(x: Tensor) -> None:
    assert "input_scale" not in both(net(), x)[0] | both(net(), x)[1]


def test_a_norm_behind_the_first_layer_takes_the_scale_of_the_input_away() -> None:
    assert "input_scale" not in both(net(norm=True), 255.0 * noise(64, 8))[1]


@pytest.mark.parametrize("x", [torch.zeros(16, 8), torch.ones(16, 8), noise(1, 8).repeat(16, 1)])
def test_samples_that_are_all_alike(x: Tensor) -> None:
    linted, probed = both(net(), x)
    assert "samples_alike" in linted
    assert [code for code in probed if code.startswith(("vanishing", "exploding"))] == []
    assert "samples_alike" in probed


def test_tokens_that_are_all_alike() -> None:
    module = nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(32, 5))
    assert "samples_alike" in codes(module, torch.full((8, 4), 3))
    assert "samples_alike" not in codes(module, torch.randint(20, (8, 4)))


def test_identical_layers_are_copies_and_no_tied_or_constant_ones() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(8, 8)
    copies = nn.Sequential(layer, nn.Tanh(), copy.deepcopy(layer), nn.Tanh(), nn.Linear(8, 3))
    (found,) = [f for f in initbench.lint(copies, noise(16, 8)).findings if f.code == "identical_layers"]
    assert found.message.layers == ("2",)
    tied = nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(8, 3))
    assert "identical_layers" not in codes(tied, noise(16, 8))
    eyes = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)), nn.Linear(8, 3))
    for one in eyes[:3]:
        nn.init.eye_(one.weight)
    assert "identical_layers" not in codes(eyes, noise(16, 8))
    cloned = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 3)
    assert "identical_layers" in codes(cloned, noise(4, 6, 16))


@pytest.mark.parametrize(
    ("end", "loss", "found"),
    [
        (nn.Softmax(dim=1), None, True),
        (nn.Softmax(dim=1), F.cross_entropy, True),
        (nn.ReLU(), None, True),
        (nn.ReLU(), nn.CrossEntropyLoss(), True),
        (nn.Softmax(dim=1), lambda p, y: F.nll_loss(p.log(), y), False),
        (nn.LogSoftmax(dim=1), F.nll_loss, False),
        (nn.Identity(), F.cross_entropy, False),
    ],
)
def test_activation_on_logits(end: nn.Module, loss: Loss | None, found: bool) -> None:
    module = nn.Sequential(*net(), end)
    batch = (noise(64, 8), torch.randint(5, (64,)))
    assert ("activation_on_logits" in codes(module, batch, loss)) is found


def test_frozen_layers_are_named() -> None:
    module = net()
    module[2].requires_grad_(False)
    (found,) = [f for f in initbench.lint(module, noise(16, 8)).findings if f.code == "frozen"]
    assert found.message.layers == ("2",)
    assert "frozen" not in codes(net(), noise(16, 8))


def test_norm_scale_drawn_around_zero_not_around_one() -> None:
    module = net(norm=True)
    nn.init.normal_(module[1].weight, 0.0, 0.02)
    assert "norm_scale" in codes(module, noise(16, 8))
    for mean, std in ((1.0, 0.02), (0.0, 0.0), (1.0, 0.0)):
        nn.init.normal_(module[1].weight, mean, std)
        assert "norm_scale" not in codes(module, noise(16, 8))


@pytest.mark.parametrize(("inputs", "outputs"), [(49, 256), (50, 250), (64, 320), (100, 500)])
def test_mixer_false_untouched_xavier_is_not_what_the_constructors_draw(inputs: int, outputs: int) -> None:
    """At five times as many outputs as inputs, the two bounds are the same to the last digit."""

    def make(*, touch: bool) -> nn.Module:
        sizes = (inputs, outputs, inputs, outputs, 10)
        parts: list[nn.Module] = []
        for before, after in pairwise(sizes):
            parts += [nn.Linear(before, after), nn.GELU()]
        for layer in parts[2::2] if not touch else parts[::2]:
            nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        return nn.Sequential(*parts[:-1])

    for seed in range(5):
        torch.manual_seed(seed)
        assert not {"untouched", "torch_default"} & codes(make(touch=True), noise(16, inputs))
        assert "untouched" in codes(make(touch=False), noise(16, inputs))


def test_untouched_layers_before_a_norm_are_no_finding() -> None:
    module = net(norm=True)
    module[0].reset_parameters()
    assert "untouched" not in codes(module, noise(16, 8))
    module = net()
    module[2].reset_parameters()
    assert "untouched" in codes(module, noise(16, 8))


def test_the_output_map_of_torchs_attention_counts_as_drawn() -> None:
    """nn.MultiheadAttention leaves out_proj as nn.Linear does, and transformers ship it so."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
            self.mlp = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))
            self.head = nn.Linear(64, 10)
            for layer in (self.mlp[0], self.mlp[2], self.head):
                nn.init.xavier_uniform_(layer.weight)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.attention(x, x, x, need_weights=False)[0]
            return self.head((x + self.mlp(x)).mean(1))

    report = initbench.lint(Attention(), torch.randn(16, 6, 64))
    assert "untouched" not in {finding.code for finding in report.findings}
