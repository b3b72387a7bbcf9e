"""Nothing is imported from the working directory, neither by a command nor by its workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slices import each_once_fast

EXPERIMENT = """\
kind: experiment
name: tiny
seeds: 2
data: {name: digits}
model: {family: mlp, depth: 2, width: 8}
train: {steps: 4, batch_size: 32}
"""
LIBRARIES = ("torch", "numpy", "typer", "click", "yaml", "rich", "pydantic", "safetensors")


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    """A directory with a file for every module of Python and some libraries, which tell that they ran."""
    here = tmp_path / "work"
    here.mkdir()
    (here / "tiny.yaml").write_text(EXPERIMENT, encoding="utf-8")
    for name in (*sys.stdlib_module_names, *LIBRARIES):
        trap = f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r} + chr(10))\n"
        (here / f"{name}.py").write_text(trap, encoding="utf-8")
    return here


LOCAL = ["run", "tiny.yaml", "--executor", "local", "--workers", "1"]
RAY = ["run", "tiny.yaml", "--executor", "ray"]


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        *each_once_fast([LOCAL, ["compare"]], [["-m"], ["-P", "-m"]]),
        pytest.param(RAY, ["-m"], marks=pytest.mark.slow),
    ],
)
def test_no_file_of_the_working_directory_is_run(
    trapped: Path, repository: Path, arguments: list[str], start: list[str]
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *start, "initbench", *arguments],
        cwd=trapped,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    ran = trapped.parent / "ran"
    assert not ran.exists(), ran.read_text(encoding="utf-8")
    assert done.returncode == 0, done.stderr
