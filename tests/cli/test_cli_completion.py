"""Test the shell completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from initbench.store.store import Store
from tests.store.records import RECORD

EXPECTED = {
    "initbench show re": ["relu_kaiming", "relu_kaiming-s0-abc"],
    "initbench rm tanh-": ["tanh-s0-abc"],
    "initbench ls x": [],
    "initbench compare --metric test_acc": ["test_accuracy"],
    "initbench compare --columns n,test_acc": ["n,test_accuracy"],
    "initbench compare --sort steps_to": ["steps_to_target"],
    "initbench compare --sort -steps_to": ["-steps_to_target"],
    "initbench compare --sort -lab": ["-label"],
    "initbench compare --sort = -steps_to": ["-steps_to_target"],
    "initbench compare --plo": ["--plot"],
    "initbench ls --sort -val": ["-val", "-val_r2", "-val_loss"],
    "initbench compare --by model.nor": ["model.norm", "model.norm_placement"],
    "initbench compare --where init.scheme=kaiming_n": ["init.scheme=kaiming_normal"],
    "initbench run init.sc": ["init.scheme="],
    "initbench run relu_kaimi": ["relu_kaiming"],
    "initbench run a.yaml init.scheme=lsu": ["init.scheme=lsuv"],
    "initbench run a.yaml init.scheme = lsu": ["lsuv"],
    "initbench run a.yaml model.family=ml": ["model.family=mlp"],
    "initbench run mi": ["mine.yaml"],
    "initbench probe train.optimizer=sg": ["train.optimizer=sgd"],
    "initbench lesson l": ["ls"],
    "initbench sweep --executor ": ["auto", "cuda", "inprocess", "local", "ray"],
    "initbench explain layer": ["layer", "layer_scale"],
    "initbench ls --sort a": ["age"],
    "initbench ls --by st": ["status"],
    "initbench run --fail-u": ["--fail-unless"],
    "initbench lesson --ju": ["--junit-xml"],
}
"""Completions of each command line with the cursor at its end."""

SOURCE = """
import contextlib, io, json, os, sys
from initbench.cli.main import app

sys.argv, lines, found = ["initbench"], json.load(sys.stdin), {}
for line in lines:
    os.environ |= {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        app(prog_name="initbench")
    found[line] = [printed.getvalue().split(), "torch" in sys.modules]
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[str], bool]]:
    """The completions that bash gets for each line, and whether torch was loaded, all from one process."""
    folder = tmp_path_factory.mktemp("completion")
    store = Store(folder / "runs")
    for name in ("relu_kaiming", "tanh"):
        store.claim(f"{name}-s0-abc", {**RECORD, "experiment": name}, "").stop("interrupted")
    (folder / "mine.yaml").touch()
    done = subprocess.run(
        [sys.executable, "-c", SOURCE],
        env={**os.environ, "_INITBENCH_COMPLETE": "complete_bash", "INITBENCH_RUNS": str(store.root)},
        cwd=folder,
        input=json.dumps(list(EXPECTED)),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode, done.stderr) == (0, "")
    result: dict[str, tuple[list[str], bool]] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("line", EXPECTED)
def test_names_are_completed_without_torch(line: str, completed: dict[str, tuple[list[str], bool]]) -> None:
    completions, has_torch = completed[line]
    assert not has_torch
    if line.endswith((" l", "layer")):
        assert EXPECTED[line][0] in completions
    else:
        assert completions == EXPECTED[line]
