"""The cuda executor on a real GPU: cohorts that fit, halves where one does not, a process for each GPU."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch

from initbench.data.dataset import DataSource
from initbench.runner import batching
from initbench.runner.plan import RunContext
from initbench.runner.runner import Runner
from initbench.runner.workers.process_pool import ProcessPool
from initbench.store.store import Store
from tests.runner.driven import Silent, run_all

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LARGE = {"model": {"depth": 6, "width": 1024}, "train": {"steps": 4, "eval_every": 2}}
"""About 4.3 million parameters: 70 MB a run in training."""


@pytest.fixture
def place(tmp_path: Path) -> RunContext:
    source = DataSource(root=tmp_path / "data", offline=True)
    return RunContext(
        store=Store(tmp_path / "runs"), source=source, device=torch.device("cuda", 0), workers=1
    )


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Limit the GPU memory to what some of the runs need, in addition to the memory in use."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(0) + 0.6e9) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def losses(store: Store) -> dict[str, list[float]]:
    return {
        record["run_id"]: [entry["val_loss"] for entry in store.read(record["run_id"]).convergence]
        for record in store.records()
    }


def test_all_runs_that_fit_are_one_cohort(make_config: Any, place: RunContext) -> None:
    run_all([make_config(seeds=40)], place)
    assert {record["cohort"] for record in place.store.records()} == {40}


@pytest.mark.usefixtures("little_memory")
def test_a_cohort_that_does_not_fit_is_halved(
    make_config: Any, place: RunContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "SHARE_OF_MEMORY", 1000.0)  # all at once, ignoring the estimate
    config = make_config(seeds=16, **LARGE)
    (execution,) = run_all([config], place)
    records = place.store.records()
    assert execution.errors == () and {record["status"] for record in records} == {"finished"}
    assert max(record["cohort"] for record in records) < 16
    assert all(len(entries) == 3 for entries in losses(place.store).values()), "nothing is there twice"
    torch.cuda.set_per_process_memory_fraction(1.0)
    whole = RunContext(store=Store(tmp_path / "whole"), source=place.source, device=place.device, workers=1)
    run_all([config], whole)
    assert {record["cohort"] for record in whole.store.records()} == {16}
    expected = losses(whole.store)
    for run_id, found in losses(place.store).items():
        assert found == pytest.approx(expected[run_id], rel=5e-3)


def test_a_process_of_its_own_for_a_gpu_and_its_death(
    make_config: Any, place: RunContext, tmp_path: Path
) -> None:
    """With several GPUs each has a process; here, one process on a single GPU is killed in the middle."""
    config = make_config(seeds=4, train={"steps": 3000, "eval_every": 1000})

    def kill() -> None:
        (child,) = active_children()
        os.kill(int(child.pid or 0), signal.SIGKILL)

    with Runner(place, Silent(kill)) as driver:
        driver._crews["cuda"] = ProcessPool(["cuda:0"], driver._datasets)
        (execution,) = driver.run([config])
    assert execution.errors == ()
    records = place.store.records()
    assert {record["status"] for record in records} == {"finished"}
    assert {record["cohort"] for record in records} == {2}, "tried again in halves"
    assert {record["device"] for record in records} == {"cuda:0"}
    assert [len(entries) for entries in losses(place.store).values()] == [4] * 4
