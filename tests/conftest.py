"""Shared helpers of the tests: a clean environment, small configs, and the command line."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported, and for subprocesses as well. Two workers of pytest share the machine, and a
# second thread in each only waits: a test then takes up to twenty times as long.
os.environ["OMP_NUM_THREADS"] = "1"

_VARIABLES = (
    "INITBENCH_RUNS",
    "INITBENCH_DATA",
    "INITBENCH_PLUGINS",
    "INITBENCH_LOSS",
    "NO_COLOR",
    "FORCE_COLOR",
    "COLUMNS",
    "LINES",
    "TTY_COMPATIBLE",
)


def pytest_collection_finish() -> None:
    """Spare the garbage collector ten thousand tests: some libraries have it run at every call."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables that the user may have set."""
    for variable in _VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `changes`, mappings merged at every depth."""
    result = dict(base)
    for key, value in changes.items():
        inner = result.get(key)
        both = isinstance(value, dict) and isinstance(inner, dict)
        # Options belong to one entry: another name brings its own.
        named = both and any(value.get(tag, inner.get(tag)) != inner.get(tag) for tag in ("name", "family"))
        result[key] = merged(inner, value) if both and not named else value
    return result


TINY = {
    "name": "tiny",
    "data": {"name": "digits"},
    "model": {"family": "mlp", "depth": 3, "width": 16},
    "train": {"steps": 20, "batch_size": 32, "lr": 0.05},
    "probe": {"batch": 64, "bins": 8},
}


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Any]:
    """A small experiment on digits, with the given sections merged in."""
    from initbench.config.schema import ExperimentConfig

    def make(**changes: Any) -> ExperimentConfig:
        return ExperimentConfig.model_validate(merged(TINY, changes))

    return make


@dataclass(frozen=True)
class Said:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def initbench(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Call the command line in this process."""
    from initbench.cli.main import run_command

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        code = run_command([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parents[1]
