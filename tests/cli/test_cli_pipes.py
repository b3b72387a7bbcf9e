"""A reader of stdout or stderr that goes away changes no exit code: what was decided stays decided."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from initbench.cli.main import run_command
from initbench.cli.output_streams import LossTolerantFile
from initbench.store.store import Store
from tests.slices import each_once_fast

TINY = """\
kind: experiment
name: tiny
seeds: 2
data: {name: digits}
model: {family: mlp, depth: 2, width: 4}
train: {steps: 4, batch_size: 32}
"""
SWEEP = """\
kind: sweep
name: swept
base: tiny.yaml
grid: {model.depth: [2, 3]}
gates: ["max(final_val_accuracy) < 2"]
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the two configs and the runs of the experiment."""
    place = tmp_path_factory.mktemp("pipes")
    (place / "tiny.yaml").write_text(TINY, encoding="utf-8")
    (place / "swept.yaml").write_text(SWEEP, encoding="utf-8")
    arguments = ["run", str(place / "tiny.yaml"), "-q", "--runs-dir", str(place / "runs")]
    assert run_command([*arguments, "--executor", "inprocess"]) == 0
    return place


def _call(place: Path, repository: Path, words: str) -> int:
    """The exit code of the command, the first of the pipeline `words`."""
    paths = os.pathsep.join(filter(None, [str(repository), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    line = f'"{sys.executable}" -m initbench {words}; exit "${{PIPESTATUS[0]}}"'
    return subprocess.run(
        ["bash", "-c", line], cwd=place, env=environment, capture_output=True, timeout=600, check=False
    ).returncode


GONE_STDOUT, GONE_STDERR, BOTH_GONE = "| true", "2>&1 >/dev/null | true", "2>&1 | true"
CODES = {
    "compare --fail-if 'max(final_val_accuracy) < 2'": 1,
    "compare --json --fail-if 'mean(final_val_accuracy) < 0'": 0,
    "compare nothing-of-that-name": 2,
}


@pytest.mark.parametrize(
    ("words", "gone"), each_once_fast(list(CODES), [BOTH_GONE, GONE_STDOUT, GONE_STDERR])
)
def test_broken_pipe_exit_code_outlives_the_reader(
    trained: Path, repository: Path, words: str, gone: str
) -> None:
    assert _call(trained, repository, f"{words} {gone}") == CODES[words]


def test_verify_ends_with_3_without_a_reader(trained: Path, repository: Path, tmp_path: Path) -> None:
    assert _call(trained, repository, f"merge runs --into '{tmp_path}/copy' | true") == 0
    (metrics, *_) = sorted((tmp_path / "copy").glob("tiny-s0-*/metrics.jsonl"))
    metrics.write_bytes(metrics.read_bytes().replace(b"0", b"1", 1))
    assert _call(trained, repository, f"ls --verify --runs-dir '{tmp_path}/copy' | true") == 3


@pytest.mark.parametrize("gone", [pytest.param(GONE_STDERR, marks=pytest.mark.slow), BOTH_GONE])
def test_training_goes_on_without_a_reader(
    trained: Path, repository: Path, tmp_path: Path, gone: str
) -> None:
    assert _call(trained, repository, f"sweep swept.yaml --runs-dir '{tmp_path}/runs' {gone}") == 1
    statuses = [record["status"] for record in Store(tmp_path / "runs").records()]
    assert statuses == ["finished"] * 4


def test_what_the_reader_takes_is_whole() -> None:
    """Bytes are lost only after the reader has gone."""
    reading, writing = os.pipe()
    stream: Any = LossTolerantFile(writing, "wb")
    assert stream.write(b"read") == 4
    assert os.read(reading, 10) == b"read"
    os.close(reading)
    assert stream.write(b"lost") == 4
    stream.close()
