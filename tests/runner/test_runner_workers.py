"""Worker processes: the same numbers, nothing lost when one dies, and only where they pay."""

from __future__ import annotations

from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch

from initbench.data.dataset import DataSource
from initbench.errors import Terminated
from initbench.runner import runner, scheduler, worker_count
from initbench.runner.plan import RunContext
from initbench.runner.recorder import Cohort
from initbench.runner.workers import process_pool
from initbench.store.store import Store
from initbench.train.events import Evaluated, Released, RunEvent
from tests.runner import deadly
from tests.runner.driven import Silent, numbers, run_experiment


@pytest.fixture
def workplace(tmp_path: Path) -> RunContext:
    source = DataSource(root=tmp_path / "data", offline=True)
    return RunContext(store=Store(tmp_path / "runs"), source=source, device=torch.device("cpu"), workers=2)


def test_the_numbers_do_not_depend_on_workers(
    make_config: Any, workplace: RunContext, tmp_path: Path
) -> None:
    config = make_config(seeds=3, model={"norm": "batch"}, train={"optimizer": "adam"})
    watcher = Silent()
    execution = run_experiment(config, workplace, watcher, rerun=False)
    assert execution.errors == ()
    assert sorted(watcher.ends) == [("tiny", seed, "finished") for seed in range(3)]
    alone = replace(workplace, store=Store(tmp_path / "alone"), workers=1)
    run_experiment(config, alone, Silent(), rerun=False)
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


class Cohorts(Silent):
    """Keeps which runs trained together, and which left."""

    def __init__(self) -> None:
        super().__init__()
        self.released: list[tuple[int, ...]] = []
        self.batches: list[tuple[int, ...]] = []

    def receive(self, cohort: Cohort, event: RunEvent) -> None:
        super().receive(cohort, event)
        seeds = tuple(seed for _, seed in cohort)
        if isinstance(event, Evaluated) and seeds not in self.batches:
            self.batches.append(seeds)
        if isinstance(event, Released):
            self.released.append(tuple(seeds[run] for run in event.runs))


def test_an_idle_worker_takes_over_half_of_the_runs_of_another(
    make_config: Any, workplace: RunContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "MIN_SECONDS_SAVED", 0.0)
    monkeypatch.setattr(process_pool, "worker_main", deadly.slow)
    config = make_config(
        seeds=[deadly.SEED, 4, 5, 6, 7],
        model={"norm": "batch"},
        train={"steps": 200, "optimizer": "adam", "eval_every": 50},
    )
    watcher = Cohorts()
    execution = run_experiment(config, workplace, watcher, rerun=False)
    assert execution.errors == ()
    first, second = config.seeds[:3], config.seeds[3:]
    assert sorted(watcher.batches[:2]) == [tuple(first), tuple(second)]
    assert watcher.released[0] == (5,), "the smaller half of the batch that ends last"
    assert (5,) in watcher.batches[2:]
    assert sorted(watcher.ends) == [("tiny", seed, "finished") for seed in config.seeds]
    alone = replace(workplace, store=Store(tmp_path / "alone"), workers=1)
    run_experiment(config, alone, Silent(), rerun=False)
    assert numbers(workplace.store) == numbers(alone.store)
    assert active_children() == []


def test_runs_that_start_again_from_scratch_are_not_taken_over(
    make_config: Any, workplace: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "MIN_SECONDS_SAVED", 0.0)
    config = make_config(seeds=3, train={"steps": 600})
    for rerun in (False, True):
        watcher = Cohorts()
        run_experiment(config, workplace, watcher, rerun=rerun)
        assert sorted(watcher.ends) == [("tiny", seed, "finished") for seed in range(3)]
    assert watcher.released == []


def test_an_interrupt_ends_the_workers_and_marks_their_runs(make_config: Any, workplace: RunContext) -> None:
    def interrupt() -> None:
        raise Terminated(15)

    config = make_config(seeds=2, train={"steps": 5000})
    with pytest.raises(Terminated):
        run_experiment(config, workplace, Silent(interrupt), rerun=False)
    records = workplace.store.records()
    assert [record["status"] for record in records] == ["interrupted", "interrupted"]
    assert all(0 < workplace.store.checkpoint_step(record["run_id"]) < 5000 for record in records)
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
    monkeypatch: pytest.MonkeyPatch, cores: int, runs: int, seconds: float, mode: Any,
    expected: int,
) -> None:  # fmt: skip
    """100 updates of `seconds` each; 3 workers share 5 runs as well as 4 do."""
    monkeypatch.setattr(worker_count, "available_cores", lambda: cores)
    assert worker_count.optimal_worker_count(100 * seconds * runs, runs, mode) == expected


def test_workers_that_are_there_need_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_count, "available_cores", lambda: 2)
    assert worker_count.optimal_worker_count(1.0, 2, "vmap") == 1
    assert worker_count.optimal_worker_count(1.0, 2, "vmap", started=True) == 2


@pytest.mark.parametrize(
    ("most_per_second", "precision", "is_timed"),
    [(1e3, "fp32", False), (1e20, "fp32", True), (1e3, "bf16", True)],
)
def test_an_update_is_timed_only_if_the_number_of_workers_depends_on_it(
    make_config: Any,
    workplace: RunContext,
    monkeypatch: pytest.MonkeyPatch,
    most_per_second: float,
    precision: str,
    is_timed: bool,
) -> None:
    timed: list[int] = []

    def time_one_update(*_arguments: object) -> float:
        timed.append(1)
        return 1e-6

    monkeypatch.setattr(runner, "time_one_update", time_one_update)
    monkeypatch.setattr(runner, "MOST_PRODUCTS_PER_SECOND", most_per_second)
    monkeypatch.setattr(runner, "available_cores", lambda: 2)
    monkeypatch.setattr(worker_count, "available_cores", lambda: 2)
    config = make_config(seeds=2, train={"steps": 4, "precision": precision})
    execution = run_experiment(config, replace(workplace, workers=None), Silent(), rerun=False)
    assert execution.errors == ()
    assert bool(timed) == is_timed
