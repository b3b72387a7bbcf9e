"""Worker processes: the same numbers, nothing lost when one dies, and only where they pay."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch

from initbench.data.dataset import Source
from initbench.errors import Terminated
from initbench.execute import experiment, pace
from initbench.execute.experiment import Workplace
from initbench.store.store import Store
from tests.execute.driven import run_experiment


class Watcher:
    """An Observer that may act on the first progress it hears of."""

    def __init__(self, act: Any = None) -> None:
        self.act = act
        self.ends: list[tuple[int, str]] = []

    def planned(self, config: Any, to_train: int, stored: int, steps: int | None) -> None:
        pass

    def advanced(self, config: Any, seeds: tuple[int, ...], step: int, losses: Any) -> None:
        act, self.act = self.act, None
        if act is not None:
            act()

    def evaluated(self, config: Any, seed: int, entry: dict[str, Any]) -> None:
        pass

    def ended(self, config: Any, seed: int, status: str) -> None:
        self.ends.append((seed, status))


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    source = Source(root=tmp_path / "data", offline=True)
    return Workplace(store=Store(tmp_path / "runs"), source=source, device=torch.device("cpu"), workers=2)


def test_the_numbers_do_not_depend_on_workers(make_config: Any, workplace: Workplace, tmp_path: Path) -> None:
    config = make_config(seeds=3, model={"norm": "batch"}, train={"optimizer": "adam"})
    watcher = Watcher()
    execution = run_experiment(config, workplace, watcher, rerun=False)
    assert execution.errors == ()
    assert sorted(watcher.ends) == [(0, "finished"), (1, "finished"), (2, "finished")]
    alone = replace(workplace, store=Store(tmp_path / "alone"), workers=1)
    run_experiment(config, alone, Watcher(), rerun=False)
    for run_id in execution.run_ids:
        one, other = workplace.store.read(run_id), alone.store.read(run_id)
        assert one.convergence == other.convergence
        assert one.snapshots == other.snapshots
        assert one.record["final"] == other.record["final"]
        weights = [
            (store.root / run_id / "weights.safetensors").read_bytes()
            for store in (workplace.store, alone.store)
        ]
        assert weights[0] == weights[1]
    assert [workplace.store.read(run_id).record["cohort"] for run_id in execution.run_ids] == [2, 2, 1]
    assert active_children() == [], "no worker outlives its experiment"


def test_a_killed_worker_takes_down_its_own_runs_alone(make_config: Any, workplace: Workplace) -> None:
    killed = []

    def kill_one() -> None:
        killed.append(active_children()[0].pid)
        os.kill(int(killed[0] or 0), signal.SIGKILL)

    config = make_config(seeds=4, train={"steps": 3000, "eval_every": 1000})
    execution = run_experiment(config, workplace, Watcher(kill_one), rerun=False)
    statuses = sorted(str(workplace.store.status(run_id)) for run_id in execution.run_ids)
    assert statuses == ["failed", "failed", "finished", "finished"]
    assert [str(error) for error in execution.errors] == ["its worker process ended with exit code -9"]
    again = run_experiment(config, workplace, Watcher(), rerun=False)
    assert again.errors == ()
    assert {workplace.store.status(run_id) for run_id in again.run_ids} == {"finished"}


def test_what_fails_in_a_worker_is_stored_with_the_traceback_there(
    make_config: Any, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = experiment.train_in_workers

    def other_data(jobs: Any, resolved: Any, opened: Any, *, workers: int) -> Any:
        missing = replace(resolved, located=replace(resolved.located, load=dict))  # no RawData
        return order(jobs, missing, opened, workers=workers)

    monkeypatch.setattr(experiment, "train_in_workers", other_data)
    execution = run_experiment(make_config(seeds=2), workplace, Watcher(), rerun=False)
    assert len(execution.errors) == 2
    error = workplace.store.read(execution.run_ids[0]).record["error"]
    assert "AttributeError: 'dict' object has no attribute" in error
    assert "in prepare" in error, "the frames of the worker"


def test_an_interrupt_ends_the_workers_and_marks_their_runs(make_config: Any, workplace: Workplace) -> None:
    def interrupt() -> None:
        raise Terminated(15)

    config = make_config(seeds=2, train={"steps": 5000})
    with pytest.raises(Terminated):
        run_experiment(config, workplace, Watcher(interrupt), rerun=False)
    assert [record["status"] for record in workplace.store.records()] == ["interrupted", "interrupted"]
    assert active_children() == []


@pytest.mark.parametrize(
    ("cores", "runs", "seconds", "mode", "expected"),
    [
        (2, 1, 1.0, "single", 1),
        (1, 8, 1.0, "single", 1),
        (2, 2, 1.0, "single", 2),
        (2, 2, 0.001, "single", 1),
        (8, 4, 1.0, "single", 4),
        (2, 2, 1.0, "vmap", 2),
        (2, 3, 1.0, "vmap", 2),
        (4, 5, 1.0, "single", 3),
    ],
)
def test_workers_are_used_where_they_pay(
    make_config: Any, monkeypatch: pytest.MonkeyPatch, cores: int, runs: int, seconds: float, mode: Any,
    expected: int,
) -> None:  # fmt: skip
    """100 updates of `seconds` each; 3 workers share 5 runs as well as 4 do."""
    monkeypatch.setattr(pace, "cores", lambda: cores)
    monkeypatch.setattr(pace, "seconds_per_update", lambda *_: seconds)
    assert pace.workers_that_pay(make_config(), None, mode, runs, 100) == expected  # type: ignore[arg-type]
