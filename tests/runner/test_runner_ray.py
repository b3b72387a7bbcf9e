"""Actors in a Ray cluster: the same numbers as in this process, and no run lost or doubled when one dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from initbench.data.dataset import DataSource
from initbench.errors import DeviceError, Terminated
from initbench.runner import runner, scheduler
from initbench.runner.plan import RunContext
from initbench.runner.workers.training_session import CodeVersions, NodeFacts
from initbench.store.store import Store
from initbench.train.events import Advanced, Released, RunEvent
from tests.runner.driven import Silent, files_with_numbers, numbers, run_all

ray: Any = pytest.importorskip("ray")
from initbench.runner.workers import ray_pool  # noqa: E402
from initbench.runner.workers.ray_pool import RayPool  # noqa: E402

Places = Callable[..., RunContext]
OPTIONS = {"include_dashboard": False, "object_store_memory": 200 * 2**20}


@pytest.fixture(scope="module")
def two_cpus() -> Iterator[None]:
    """Ray in this process, as in a notebook that uses it for other things, too."""
    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level="ERROR", **OPTIONS)
    yield
    assert ray.is_initialized(), "initbench did not end it"
    ray.shutdown()


@pytest.fixture
def places(tmp_path: Path) -> Places:
    def make(name: str = "runs", executor: str = "inprocess", **more: Any) -> RunContext:
        source = DataSource(root=tmp_path / "data", offline=True)
        store, device = Store(tmp_path / name), torch.device("cpu")
        return RunContext(store=store, source=source, device=device, executor=executor, **more)

    return make


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> list[NodeFacts]:
    """Return the reports of the actors about themselves, in the order in which they start."""
    seen: list[NodeFacts] = []
    check = RayPool._check_code
    monkeypatch.setattr(RayPool, "_check_code", lambda self, new: (seen.append(new), check(self, new)))
    return seen


def test_the_numbers_do_not_depend_on_actors(
    make_config: Any, places: Places, two_cpus: None, facts: list[NodeFacts]
) -> None:
    configs = [
        make_config(name="a", seeds=3, model={"norm": "batch"}, train={"optimizer": "adam"}),
        make_config(name="b", seeds=2, data={"order": "sorted"}, init={"scheme": "zeros"}),
        make_config(name="c", seeds=1, init={"scheme": {"name": "autoencoder", "steps": 5}}),
    ]
    whole, other = places("whole"), places("other", "ray")
    run_all(configs, whole)
    outcomes = run_all(configs, other)
    assert [outcome.errors for outcome in outcomes] == [(), (), ()]
    assert numbers(other.store) == numbers(whole.store)
    files = files_with_numbers(whole.store)
    assert len(files) == 6 and files_with_numbers(other.store) == files
    assert len({fact.pid for fact in facts}) in (1, 2), (
        "one, if it has done everything before the other starts"
    )


@pytest.mark.slow
def test_a_killed_actor_costs_its_cohort_a_second_try_and_nothing_else(
    make_config: Any, places: Places, two_cpus: None, facts: list[NodeFacts]
) -> None:
    configs = [
        make_config(name=name, seeds=4, train={"steps": 2000, "eval_every": 100}) for name in ("a", "b")
    ]
    place, whole = places("runs", "ray"), places("whole")
    watcher = Silent(lambda: os.kill(facts[0].pid, signal.SIGKILL))
    outcomes = run_all(configs, place, watcher)
    assert [outcome.errors for outcome in outcomes] == [(), ()]
    assert sorted(watcher.ends) == [(name, seed, "finished") for name in ("a", "b") for seed in range(4)]
    run_all(configs, whole)
    assert numbers(place.store) == numbers(whole.store)


class Interrupter(Silent):
    """Stops the command after a number of updates, and keeps which runs were released."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step
        self.released: list[tuple[int, ...]] = []

    def receive(self, cohort: Any, event: RunEvent) -> None:
        super().receive(cohort, event)
        if isinstance(event, Advanced) and event.step >= self.step:
            raise Terminated(15)
        if isinstance(event, Released):
            self.released.append(event.runs)


@pytest.mark.slow
def test_interrupted_runs_resume_elsewhere(make_config: Any, places: Places, two_cpus: None) -> None:
    config = make_config(seeds=2, train={"steps": 3000})
    place = places("runs", "ray", workers=1)
    with pytest.raises(Terminated):
        run_all([config], place, Interrupter(50))
    records = place.store.records()
    assert [record["status"] for record in records] == ["interrupted", "interrupted"]
    steps = [place.store.checkpoint_step(record["run_id"]) for record in records]
    assert all(0 < step < 3000 for step in steps)
    whole = places("whole")
    run_all([config], whole)
    run_all([config], places("runs"))
    assert numbers(place.store) == numbers(whole.store)


@pytest.mark.slow
def test_an_idle_actor_takes_over_half_of_the_runs_of_another(
    make_config: Any, places: Places, two_cpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "MIN_SECONDS_SAVED", 0.0)
    monkeypatch.setattr(runner, "choose_cohort_sizes", lambda items, _workers: [5 for _ in items])
    config = make_config(seeds=5, train={"steps": 5000})
    place, whole, watcher = places("runs", "ray"), places("whole"), Interrupter(10**9)
    run_all([config], place, watcher)
    assert watcher.released
    run_all([config], whole)
    assert numbers(place.store) == numbers(whole.store)


@pytest.mark.slow
def test_a_node_with_another_version_is_refused(
    make_config: Any, places: Places, two_cpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool, "code_versions", lambda: CodeVersions("0", {"torch": "1.0"}))
    place = places("runs", "ray")
    with pytest.raises(DeviceError, match="install the same versions on all nodes"):
        run_all([make_config()], place)
    assert {record["status"] for record in place.store.records()} == {"interrupted"}
