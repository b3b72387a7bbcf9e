"""The command line in processes of its own, because plug-ins are imported once per process."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.plugins.processes import CONFIG, SCHEME, Call, run_python
from tests.processes import run_forked


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a plug-in next to a config that uses it."""
    (tmp_path / "my_scheme.py").write_text(SCHEME, encoding="utf-8")
    (tmp_path / "tiny.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


@pytest.fixture
def call(folder: Path, repository: Path) -> Call:
    """Run the command line in the folder: arguments, and variables of the environment as keywords."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run_python(folder, repository, "-m", "initbench", *arguments, **variables)

    return run


@pytest.fixture
def forked(folder: Path) -> Call:
    """Run the command line in the folder like `call`, but in a forked process."""
    return partial(run_forked, folder)
