"""Functions of `nets_of_tests` as `--model`, and experiments with the nets that they build."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import DataSource
from initbench.models.model_factory import load_factory
from initbench.runner.plan import RunContext
from initbench.store.store import Store

NETS = "tests.custom_models.nets_of_tests"


@pytest.fixture
def use() -> Iterator[Callable[[str], None]]:
    """Load a function of `nets_of_tests` until the end of the test."""
    yield lambda name: load_factory(f"{NETS}:{name}")
    load_factory(None)


@pytest.fixture
def experiment() -> Callable[..., ExperimentConfig]:
    """An experiment on digits with a net of the user; model options are keywords."""

    def make(
        init: dict[str, Any] | None = None, train: dict[str, Any] | None = None, **model: Any
    ) -> ExperimentConfig:
        return ExperimentConfig.model_validate(
            {
                "name": "mine",
                "data": {"name": "digits"},
                "model": {"family": "custom", **model},
                "init": init or {"scheme": "kaiming_normal"},
                "train": {"steps": 20, "batch_size": 128, "lr": 0.05, **(train or {})},
                "probe": {"batch": 64, "bins": 8},
            }
        )

    return make


@pytest.fixture
def place(tmp_path: Path) -> Callable[..., RunContext]:
    """A store of its own for each name, and workers."""

    def make(name: str, workers: int = 1) -> RunContext:
        source = DataSource(root=tmp_path / "data", offline=True, notify=print)
        return RunContext(
            store=Store(tmp_path / name), source=source, device=torch.device("cpu"), workers=workers
        )

    return make
