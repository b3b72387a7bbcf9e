"""Test the shell completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from initbench.store.store import Store
from tests.store.records import RECORD


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    store = Store(tmp_path / "runs")
    for name in ("relu_kaiming", "tanh"):
        store.claim(f"{name}-s0-abc", {**RECORD, "experiment": name}, "").stop("interrupted")
    return store.root


def complete(line: str, folder: Path) -> list[str]:
    """Return the completions that bash gets for a command line with the cursor at its end."""
    words = line.split(" ")
    environment = {
        **os.environ,
        "_INITBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "INITBENCH_RUNS": str(folder / "runs"),
    }
    source = (
        "import sys; sys.argv = ['initbench']\n"
        "from initbench.cli.main import app\n"
        "try:\n    app(prog_name='initbench')\n"
        "finally:\n    sys.stderr.write('torch' if 'torch' in sys.modules else 'fast')"
    )
    done = subprocess.run(
        [sys.executable, "-c", source],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stderr == "fast", done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("initbench show re", ["relu_kaiming", "relu_kaiming-s0-abc"]),
        ("initbench rm tanh-", ["tanh-s0-abc"]),
        ("initbench ls x", []),
        ("initbench compare --metric test_acc", ["test_accuracy"]),
        ("initbench compare --columns n,test_acc", ["n,test_accuracy"]),
        ("initbench compare --sort steps_to", ["steps_to_target"]),
        ("initbench compare --sort -steps_to", ["-steps_to_target"]),
        ("initbench compare --sort -lab", ["-label"]),
        ("initbench compare --sort = -steps_to", ["-steps_to_target"]),
        ("initbench compare --plo", ["--plot"]),
        ("initbench ls --sort -val", ["-val", "-val_r2", "-val_loss"]),
        ("initbench compare --by model.nor", ["model.norm", "model.norm_placement"]),
        ("initbench compare --where init.scheme=kaiming_n", ["init.scheme=kaiming_normal"]),
        ("initbench run init.sc", ["init.scheme="]),
        ("initbench run relu_kaimi", ["relu_kaiming"]),
        ("initbench run a.yaml init.scheme=lsu", ["init.scheme=lsuv"]),
        ("initbench run a.yaml init.scheme = lsu", ["lsuv"]),
        ("initbench run a.yaml model.family=ml", ["model.family=mlp"]),
        ("initbench run mi", ["mine.yaml"]),
        ("initbench probe train.optimizer=sg", ["train.optimizer=sgd"]),
        ("initbench lesson l", ["ls"]),
        ("initbench explain layer", ["layer", "layer_scale"]),
        ("initbench ls --sort a", ["age"]),
        ("initbench ls --by st", ["status"]),
        ("initbench run --fail-u", ["--fail-unless"]),
        ("initbench lesson --ju", ["--junit-xml"]),
    ],
)
def test_names_are_completed_without_torch(line: str, expected: list[str], runs: Path) -> None:
    (runs.parent / "mine.yaml").touch()
    completed = complete(line, runs.parent)
    if line.endswith((" l", "layer")):
        assert expected[0] in completed
    else:
        assert completed == expected
