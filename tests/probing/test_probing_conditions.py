"""Causes beyond the layers: a config's input, a training that learned nothing, residual streams, notes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import initbench as package
from benchmarks.probe_predicts_training import severity_of
from initbench.probing.diagnosis import diagnose
from initbench.probing.learning_progress import Guess, Progress, guess_of, progress_finding

GUESS = Guess(loss=math.log(10.0), score=0.1)


def progress(
    end_loss: float, *, start_loss: float = 2.31, accuracy: float = 0.1, updates: int = 500
) -> Progress:
    return Progress(updates=updates, start_loss=start_loss, end_loss=end_loss, score=accuracy, guess=GUESS)


def test_a_guess_is_told_from_the_labels() -> None:
    guess = guess_of(torch.tensor([0, 0, 0, 2]), "cross_entropy")
    assert guess.score == 0.75
    assert guess.loss == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert guess_of(torch.zeros(8, dtype=torch.long), "cross_entropy").loss == 0.0


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (progress(2.309), "the loss did not change"),
        (progress(2.29), "the loss did not change"),
        (progress(40.0), "training was unstable"),
        (progress(2.303, start_loss=9.0), "training was unstable"),
        (progress(1.9), None),
        (progress(2.309, accuracy=0.5), None),
        (progress(2.309, updates=49), None),
        (progress(math.nan), None),
    ],
)
def test_a_training_that_ends_no_better_than_a_guess(seen: Progress, words: str | None) -> None:
    found = list(progress_finding(seen))
    assert len(found) == (words is not None)
    if words is not None:
        assert words in found[0].message
        assert "the net did not learn" in found[0].message
        assert "train.lr" in found[0].message


def test_what_else_is_wrong_comes_before_the_learning_rate() -> None:
    assert [f.code for f in diagnose([], None, None, progress=progress(2.309))] == ["not_learned"]
    warned = diagnose([], None, (3, None), progress=progress(2.309))
    assert [f.code for f in warned] == ["diverged"]


@pytest.fixture
def raw(tmp_path: Path) -> str:
    stream = np.random.default_rng(0)
    x = stream.uniform(0, 255, (480, 16)).astype("f4")
    y = (x @ stream.normal(size=(16, 4))).argmax(1)
    np.savez(tmp_path / "raw.npz", x_train=x[:400], y_train=y[:400], x_test=x[400:], y_test=y[400:])
    config = tmp_path / "raw.yaml"
    config.write_text(
        f"kind: experiment\nname: raw\nseeds: 1\ndata: {{name: npz, path: {tmp_path / 'raw.npz'},"
        " normalize: none}\nmodel: {family: mlp, depth: 5, width: 32}\ntrain: {steps: 60, batch_size: 16}\n"
    )
    return str(config)


def test_raw_inputs_of_a_config_are_named_by_every_command(initbench: Any, raw: str, tmp_path: Path) -> None:
    said = initbench("probe", raw, "seeds=2")
    assert "input_scale" in said.out
    assert "data.normalize=global" in said.out
    assert "healthy" not in said.out
    lint = initbench("lint", raw, "--fail-on", "any")
    assert (lint.code, "input_scale" in lint.out, "head_scale" in lint.out) == (1, True, False)
    run = initbench("run", raw, "-q", "--runs-dir", tmp_path / "runs", "train.lr=1e-6")
    assert "input_scale" in run.out
    for mended in ("data.normalize=global", "model.norm=batch"):
        assert "input_scale" not in initbench("probe", raw, "seeds=2", mended).out


def test_a_training_that_does_not_move_is_no_healthy_one(initbench: Any, raw: str, tmp_path: Path) -> None:
    said = initbench(
        "run", raw, "-q", "--runs-dir", tmp_path / "runs", "train.lr=1e-9", "data.normalize=global"
    )
    assert "not_learned" in said.out
    assert "check train.lr" in said.out.replace("\n", " ").lower()


class Block(nn.Module):
    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.down(F.gelu(self.up(self.norm(x))))


def residual(scale: float, blocks: int = 12, width: int = 32) -> nn.Module:
    torch.manual_seed(0)
    body = [Block(width, scale) for _ in range(blocks)]
    head = [nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 10)]
    return nn.Sequential(nn.Linear(64, width), *body, *head)


@pytest.mark.parametrize("scale", [1.0, 0.1, 1e-2, 1e-3, 1e-5, 0.0])
def test_probe_small_branches_are_no_lost_signal(scale: float) -> None:
    assert package.probe(residual(scale), torch.randn(64, 64)).healthy


class Doubling(nn.Module):
    """A stream that is scaled by a factor, and a branch without a norm."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.inner, self.outer = factor, nn.Linear(32, 32), nn.Linear(32, 32)
        nn.init.normal_(self.inner.weight, 0.0, 0.1 / math.sqrt(32))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x + self.outer(torch.relu(self.inner(x)))


@pytest.mark.parametrize(("factor", "code"), [(2.0, "exploding_forward"), (0.4, "vanishing_forward")])
def test_a_stream_that_grows_or_falls_itself_is_found(factor: float, code: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 32), *(Doubling(factor) for _ in range(12)), nn.Linear(32, 10))
    (found,) = [f for f in package.probe(module, torch.randn(64, 64)).findings if f.code == code]
    assert "residual stream" in found.message


def test_saturation_alone_is_a_note_and_the_net_healthy() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 5))
    nn.init.normal_(module[0].weight, 0.0, 2.0)
    found = package.probe(module, torch.randn(64, 16))
    assert [(f.code, f.level) for f in found.findings] == [("saturated", "note")]
    assert found.healthy
    assert "healthy, with a note" in str(found)


def test_severity_of_zeros_ranks_worst() -> None:
    assert severity_of([], ("symmetric",)) == 10.0
