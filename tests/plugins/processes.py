"""A plug-in, a config that uses it, and Python in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

SCHEME = """\
from initbench.components.init_scheme import INITS, Scheme


def fill(weight, *, fan_in, generator, **_):
    weight.normal_(0.0, (2.0 / fan_in) ** 0.5, generator=generator)


INITS.add(Scheme(name="mine", summary="He's variance.", source="-", fill=fill))
"""
CONFIG = """\
kind: experiment
name: tiny
seeds: 2
data: {name: digits}
model: {family: mlp, depth: 3, width: 16}
init: {scheme: mine}
train: {steps: 20, batch_size: 32}
"""
Call = Callable[..., subprocess.CompletedProcess[str]]


def run_python(
    folder: Path, repository: Path, *arguments: str, python: str = sys.executable, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder and return its output."""
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        [python, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
