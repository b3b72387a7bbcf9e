"""Losses of the user: `--loss-from module:function`, in processes of their own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.plugins.processes import Call, run_python

LOSSES = """\
FACTOR = 1.0


def squared(outputs, targets):
    if outputs.isnan().any():  # a condition that vmap does not support
        raise ValueError("NaN")
    return FACTOR * (outputs - targets).square().mean()


def vector(outputs, targets):
    return (outputs - targets).square()


def constant(outputs, targets):
    return outputs.detach().mean()


def fails(outputs, targets):
    return outputs.reshape(7).mean()


def mse(outputs, targets):
    return (outputs - targets).square().mean()
"""
CONFIG = """\
kind: experiment
name: tiny
seeds: 2
data: {name: npz, path: data.npz, target_kind: real}
model: {family: mlp, depth: 2, width: 8}
train: {steps: 20, batch_size: 16, loss: mse}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 4))
    np.savez(tmp_path / "data.npz", x_train=x, y_train=x @ rng.normal(size=(4, 2)))
    (tmp_path / "losses.py").write_text(LOSSES, encoding="utf-8")
    (tmp_path / "tiny.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


@pytest.fixture
def initbench(place: Path, repository: Path) -> Call:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_python(place, repository, "-m", "initbench", *arguments)

    return run


def finals(result: subprocess.CompletedProcess[str]) -> dict[str, dict[str, float]]:
    assert result.returncode == 0, result.stderr
    return {run["run_id"]: run["final"] for run in json.loads(result.stdout)["runs"]}


@pytest.mark.slow
def test_a_function_gives_the_numbers_of_the_same_loss(place: Path, initbench: Call) -> None:
    built_in = finals(initbench("run", "tiny.yaml", "--json"))
    own = finals(initbench("run", "tiny.yaml", "--json", "--loss-from", "losses:squared", "--workers", "2"))
    assert not built_in.keys() & own.keys()
    for first, second in zip(built_in.values(), own.values(), strict=True):
        assert second == pytest.approx(first, rel=1e-5)
    run_json = json.loads((place / "runs" / next(iter(own)) / "run.json").read_text(encoding="utf-8"))
    assert run_json["config"]["train"]["loss"] == "squared"
    (plugin,) = run_json["plugins"]
    assert (plugin["kind"], plugin["name"], plugin["module"]) == ("loss", "squared", "losses")

    file = place / "losses.py"
    file.write_text(LOSSES.replace("FACTOR = 1.0", "FACTOR = 1.0  # of the mean"), encoding="utf-8")
    assert finals(initbench("run", "tiny.yaml", "--json", "--loss-from", "losses:squared")) == own
    file.write_text(LOSSES.replace("FACTOR = 1.0", "FACTOR = 2.0"), encoding="utf-8")
    assert (
        not finals(initbench("run", "tiny.yaml", "--json", "--loss-from", "losses:squared")).keys()
        & own.keys()
    )

    again = initbench("run", f"runs/{next(iter(own))}/config.yaml")
    assert again.returncode == 2
    assert "unknown loss 'squared'" in again.stderr
    assert "--loss-from losses:squared" in again.stderr


REFUSED = {
    "losses:squarde": "there is no attribute 'squarde'; did you mean 'squared'?",
    "losses:FACTOR": "FACTOR cannot be called; name a function that returns a scalar loss",
    "losses.py": "--loss-from takes module:function, as in losses:dice; got 'losses.py'",
    "nothing:f": "nothing cannot be imported: ModuleNotFoundError",
    "losses:vector": "train.loss=vector must return one number, a tensor (); found a tensor (2, 2)",
    "losses:constant": "train.loss=constant returns a number without a gradient",
    "losses:fails": "train.loss=fails fails for outputs (2, 2)",
    "losses:mse": "'mse' of losses is taken: it is a name of 'mse' of initbench.components.loss",
}


@pytest.mark.slow
def test_functions_that_are_no_losses_are_refused(initbench: Call) -> None:
    for path, message in REFUSED.items():
        result = initbench("run", "tiny.yaml", "--workers", "1", "--loss-from", path)
        assert result.returncode == 2, (path, result.stderr)
        assert message in result.stderr, (path, result.stderr)
        assert "Traceback" not in result.stderr
