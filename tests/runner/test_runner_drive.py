"""Many experiments at once: numbers do not depend on the workers; failures lose or duplicate no run."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch

from initbench.data.dataset import DataSource
from initbench.errors import StoreError, Terminated
from initbench.runner import batching, runner
from initbench.runner.batching import choose_cohort_sizes, makespan, program_key, work_item
from initbench.runner.pending import RunLimits
from initbench.runner.plan import RunContext
from initbench.runner.runner import Runner, dependency_waves
from initbench.runner.scheduler import MAX_DEATHS, MAX_LOST_MACHINES, Scheduler
from initbench.runner.workers import base, process_pool, task
from initbench.runner.workers.base import EXECUTORS, Died, Failed, Finished, Reported
from initbench.runner.workers.in_process import InProcessWorkers
from initbench.runner.workers.task import WorkerTask
from initbench.store.store import Store
from initbench.train.events import Advanced, RunEvent
from tests.runner import deadly
from tests.runner.driven import Silent, numbers, run_all

Places = Callable[..., RunContext]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    def make(name: str = "runs", executor: str = "inprocess", **more: Any) -> RunContext:
        source = DataSource(root=tmp_path / "data", offline=True)
        store, device = Store(tmp_path / name), torch.device("cpu")
        return RunContext(store=store, source=source, device=device, executor=executor, **more)

    return make


@pytest.fixture
def several(make_config: Any) -> list[Any]:
    """Stacked, trained one by one, and pre-trained; of different lengths."""
    return [
        make_config(name="a", seeds=5, model={"norm": "batch"}, train={"optimizer": "adam"}),
        make_config(name="b", seeds=3, model={"width": 17, "activation": "sigmoid"}, train={"steps": 40}),
        make_config(name="c", seeds=2, init={"scheme": {"name": "autoencoder", "steps": 5}}),
        make_config(name="d", seeds=1, init={"scheme": "zeros"}),
    ]


@pytest.fixture
def inits(make_config: Any) -> list[Any]:
    """Five runs that differ in their draw alone."""
    net = {"norm": "batch", "activation": "gelu"}
    return [
        make_config(name="kaiming", seeds=2, model=net),
        make_config(name="zeros", seeds=[1, 4], model=net, init={"scheme": "zeros"}),
        make_config(name="lsuv", seeds=[2], model=net, init={"scheme": "lsuv"}),
    ]


def test_order_and_cohorts_change_no_number(
    several: list[Any], places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, other = places("whole"), places("other")
    run_all(several, whole)
    cohorts = {record["cohort"] for record in whole.store.records()}
    monkeypatch.setitem(batching.MAX_STACKED, "cpu", 2)
    run_all(several[::-1], other)
    assert cohorts != {record["cohort"] for record in other.store.records()}
    assert len(numbers(whole.store)) == 11
    assert numbers(whole.store) == numbers(other.store)


def test_experiments_of_one_program_are_trained_together(
    inits: list[Any], make_config: Any, places: Places
) -> None:
    other = make_config(name="other", seeds=2, train={"lr": 0.01})
    together, apart = places("together"), places("apart")
    watcher = Silent()
    run_all([*inits, other], together, watcher)
    assert {r["experiment"]: r["cohort"] for r in together.store.records()} == {
        "kaiming": 5, "zeros": 5, "lsuv": 5, "other": 2
    }  # fmt: skip
    assert watcher.together == {("kaiming", 0, 1), ("zeros", 1, 4), ("lsuv", 2)} | {("other", 0, 1)}
    for config in (*inits, other):
        run_all([config], apart)
    assert max(record["cohort"] for record in apart.store.records()) == 2
    assert numbers(together.store) == numbers(apart.store)


def test_what_can_be_one_program(make_config: Any) -> None:
    base = program_key(make_config())
    assert program_key(make_config(name="b", seeds=9, notes="why", init={"scheme": "zeros"})) == base
    for other in (
        {"train": {"lr": 0.01}},
        {"model": {"activation": "tanh"}},
        {"data": {"label_noise": 0.1}},
        {"probe": {"bins": 4}},
    ):
        assert program_key(make_config(**other)) != base
    for scheme in ({"name": "autoencoder"}, {"name": "pretrained", "from": "source"}):
        alone = [program_key(make_config(name=name, init={"scheme": scheme})) for name in "ab"]
        assert len({base, *alone}) == 3


def test_a_fault_of_one_experiment_takes_no_other_down(
    inits: list[Any], places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = task.build_networks

    def failing(config: Any, *rest: Any) -> Any:
        if config.name == "zeros":
            raise RuntimeError("boom")
        return draw(config, *rest)

    monkeypatch.setattr(task, "build_networks", failing)
    place, whole = places("runs"), places("whole")
    watcher = Silent()
    errors = [execution.errors for execution in run_all(inits, place, watcher)]
    assert errors == [(), ("RuntimeError: boom",), ()]
    statuses = {(name, status) for name, _, status in watcher.ends}
    assert statuses == {("kaiming", "finished"), ("zeros", "failed"), ("lsuv", "finished")}
    monkeypatch.setattr(task, "build_networks", draw)
    run_all(inits, whole)
    expected = numbers(whole.store)
    finished = {i: found for i, found in numbers(place.store).items() if found[0]["status"] == "finished"}
    assert len(finished) == 3 and finished == {i: expected[i] for i in finished}


def test_experiments_of_one_program_go_on_together_from_their_checkpoints(
    inits: list[Any], places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "CHECKPOINT_SECONDS", 0.0)
    whole, place = places("whole"), places("runs")
    run_all(inits, whole)

    class Stopper(Silent):
        def advanced(self, step: int) -> None:
            if step == 13:
                raise Terminated(15)

    with pytest.raises(Terminated):
        run_all(inits, place, Stopper())
    assert {r["status"] for r in place.store.records()} == {"interrupted"}
    run_all(inits, place)
    assert numbers(place.store) == numbers(whole.store)


@pytest.mark.parametrize("workers", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))])
def test_workers_change_no_number(several: list[Any], places: Places, workers: int) -> None:
    whole, other = places("whole"), places("other", "local", workers=workers)
    run_all(several, whole)
    run_all(several[::-1], other)
    assert numbers(whole.store) == numbers(other.store)
    assert active_children() == []


def test_the_longest_begin_first_and_side_by_side(make_config: Any, places: Places) -> None:
    watcher = Silent()
    short, long, longest = (
        make_config(name=f"steps{steps}", train={"steps": steps}) for steps in (10, 20, 40)
    )
    run_all([short, longest, long], places(), watcher)
    assert watcher.begun == ["steps40", "steps20", "steps10"]


def test_a_killed_worker_costs_its_cohort_a_second_try_and_nothing_else(
    make_config: Any, places: Places
) -> None:
    killed: list[int] = []

    def kill_one() -> None:
        killed.append(int(active_children()[0].pid or 0))
        os.kill(killed[0], signal.SIGKILL)

    configs = [
        make_config(name=name, seeds=4, train={"steps": 400, "eval_every": 100}) for name in ("a", "b")
    ]
    place, whole = places("runs", "local", workers=2), places("whole")
    watcher = Silent(kill_one)
    executions = run_all(configs, place, watcher)
    assert killed and [execution.errors for execution in executions] == [(), ()]
    assert sorted(watcher.ends) == [(name, seed, "finished") for name in ("a", "b") for seed in range(4)]
    cohorts = sorted((r["experiment"], r["cohort"]) for r in place.store.records())
    split = {name for name, cohort in cohorts if cohort == 2}
    assert len(split) == 1 and sum(cohort == 4 for _, cohort in cohorts) == 4, "the other was not disturbed"
    run_all(configs, whole)
    assert numbers(place.store) == numbers(whole.store)


def test_a_run_that_kills_its_worker_takes_none_of_its_neighbours_down(
    make_config: Any, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_pool, "worker_main", deadly.killed)
    place, whole = places("runs", "local", workers=1), places("whole")
    config = make_config(seeds=[2, 3])
    watcher = Silent()
    (execution,) = run_all([config], place, watcher)
    assert execution.errors == ("its worker process ended with exit code -9",)
    assert sorted(watcher.ends) == [("tiny", 2, "finished"), ("tiny", 3, "failed")]
    failed = place.store.read(execution.run_ids[1]).record
    assert (failed["status"], failed["error"]) == ("failed", "its worker process ended with exit code -9")
    run_all([config], whole)
    found, expected = numbers(place.store), numbers(whole.store)
    assert {i: found[i] for i in execution.run_ids[:1]} == {i: expected[i] for i in execution.run_ids[:1]}


def test_lost_machines_are_no_fault_of_the_runs_up_to_a_limit(
    make_config: Any, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    poll, losses = InProcessWorkers.poll, 0

    def lose(self: InProcessWorkers, deliver: Any, seconds: float) -> None:
        nonlocal losses
        if losses == most:
            poll(self, deliver, seconds)
        elif self._task is not None:
            task, self._task, losses = self._task, None, losses + 1
            deliver(Died(task.number, "lost", is_machine_lost=True))

    monkeypatch.setattr(InProcessWorkers, "poll", lose)
    for most, statuses in ((MAX_LOST_MACHINES, {"finished"}), (100, {"failed"})):
        place, losses = places(f"runs{most}"), 0
        run_all([make_config(seeds=2)], place)
        records = place.store.records()
        assert {record["status"] for record in records} == statuses
        assert most == 100 or {record["cohort"] for record in records} == {2}, "it is not split"
    assert losses == MAX_LOST_MACHINES + 1 + 2 * MAX_DEATHS, "a pair is split, and each run dies twice"


def test_what_fails_in_a_worker_is_stored_with_the_traceback_there(
    make_config: Any, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_pool, "worker_main", deadly.failing)
    place = places("runs", "local", workers=1)
    (execution,) = run_all([make_config(seeds=[3])], place)
    assert execution.errors == ("RuntimeError: out of luck",)
    error = place.store.read(execution.run_ids[0]).record["error"]
    assert error.endswith("RuntimeError: out of luck\n") and "deadly.py" in error, "the frames of the worker"


def test_a_worker_that_takes_too_much_memory_is_ended(
    make_config: Any, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_pool, "worker_main", deadly.greedy)
    place = places("runs", "local", workers=1, worker_bytes=1.5e9)
    (execution,) = run_all([make_config(seeds=[2, 3])], place)
    statuses = [place.store.status(run_id) for run_id in execution.run_ids]
    assert statuses == ["finished", "failed"]
    (error,) = execution.errors
    assert error.startswith("its worker process took ") and error.endswith(", and 1.50 GB are allowed")


def test_a_cohort_that_does_not_fit_into_memory_is_halved(
    make_config: Any, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, tried = base.train, []

    def small(task: WorkerTask, data: Any, emit: Any, *_rest: Any) -> None:
        tried.append(len(task.seeds))
        train(task, data, emit if len(task.seeds) <= 2 else _full)

    monkeypatch.setattr(base, "train", small)
    place, whole = places(), places("whole")
    monkeypatch.setitem(batching.MAX_STACKED, "cpu", 8)
    config = make_config(seeds=13)
    (execution,) = run_all([config], place)
    assert execution.errors == ()
    assert tried == [8, 4, 2, 2, 2, 2, 2, 2, 1], "what did not fit once is not tried again"
    monkeypatch.setattr(base, "train", train)
    run_all([config], whole)
    assert numbers(place.store) == numbers(whole.store)


def _full(event: RunEvent) -> None:
    if isinstance(event, Advanced):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_a_single_run_that_does_not_fit_has_failed(
    make_config: Any, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = base.train
    monkeypatch.setattr(base, "train", lambda task, data, _emit, *_rest: train(task, data, _full))
    place = places()
    (execution,) = run_all([make_config(seeds=2)], place)
    assert [place.store.status(run_id) for run_id in execution.run_ids] == ["failed", "failed"]
    assert len(execution.errors) == 2 and "OutOfMemoryError" in execution.errors[0]


def test_fail_fast_interrupts_what_runs_beside(
    make_config: Any, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_pool, "worker_main", deadly.failing)
    place = places("runs", "local", workers=2)
    long = make_config(name="long", seeds=[0], train={"steps": 100_000})
    run_all([long, make_config(name="bad", seeds=[3])], place, fail_fast=True)
    statuses = {record["experiment"]: record["status"] for record in place.store.records()}
    assert statuses == {"long": "interrupted", "bad": "failed"}
    assert active_children() == []


def test_the_limit_and_the_time_are_for_all_calls(make_config: Any, places: Places) -> None:
    place = places()
    with Runner(place, Silent(), RunLimits(limit=3)) as driver:
        first = driver.run([make_config(name="a", seeds=2), make_config(name="b", seeds=2)])
        (second,) = driver.run([make_config(name="c")])
    assert [len(execution.run_ids) for execution in first] == [2, 2] and second.run_ids == ()
    assert sorted(record["run_id"][:4] for record in place.store.records()) == ["a-s0", "a-s1", "b-s0"]
    place = places("timed")
    (execution,) = run_all([make_config(train={"steps": 100_000})], place, max_seconds=1.0)
    assert place.store.status(execution.run_ids[0]) == "interrupted"


def test_what_others_start_from_comes_first(make_config: Any, places: Places) -> None:
    def after(name: str, source: str) -> Any:
        return make_config(name=name, init={"scheme": {"name": "pretrained", "from": source}})

    configs = [after("c", "b"), after("b", "a"), make_config(name="a"), after("d", "a-s7-0123456789")]
    assert list(dependency_waves(configs)) == [[2], [1, 3], [0]]
    assert list(dependency_waves([after("x", "y"), after("y", "x")])) == [[0, 1]], (
        "told by the plan of either"
    )
    place = places()
    executions = run_all(configs[:3], place)
    assert all(execution.errors == () and len(execution.run_ids) == 1 for execution in executions)
    record = place.store.read(executions[0].run_ids[0]).record
    assert record["transfer"]["source"] == executions[1].run_ids[0]


def test_a_full_disk_ends_everything_and_is_no_failure_of_a_run(
    make_config: Any, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    from initbench.store.writer import RunWriter

    def full(self: RunWriter, entry: Any) -> None:
        raise StoreError("no space left")

    monkeypatch.setattr(RunWriter, "append_snapshot", full)
    place = places()
    with pytest.raises(StoreError, match="no space left"):
        run_all([make_config(seeds=2)], place)
    assert {record["status"] for record in place.store.records()} == {"interrupted"}


def test_what_travels_can_be_pickled(
    make_config: Any, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    receive, submit = Scheduler._handle_event, InProcessWorkers.submit
    monkeypatch.setattr(
        Scheduler, "_handle_event", lambda self, event: (seen.append(event), receive(self, event))
    )
    monkeypatch.setattr(
        InProcessWorkers, "submit", lambda self, task: (seen.append(task), submit(self, task))
    )
    run_all([make_config(seeds=2)], places())
    seen += [Failed(0, "error", "traceback"), Died(0, "reason")]
    assert {type(one) for one in seen} == {WorkerTask, Reported, Finished, Failed, Died}
    for one in seen:
        assert isinstance(pickle.loads(pickle.dumps(one)), type(one))


def test_a_worker_that_dies_when_all_is_done_changes_nothing(
    make_config: Any, places: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not how many are trained together afterwards either."""
    receive, submit, together = Scheduler._handle_event, InProcessWorkers.submit, []

    def die(self: Scheduler, event: Any) -> None:
        is_end = isinstance(event, Finished)
        receive(self, Died(event.task, "too much memory", out_of_memory=True) if is_end else event)

    monkeypatch.setattr(Scheduler, "_handle_event", die)
    monkeypatch.setattr(
        InProcessWorkers, "submit", lambda self, task: (together.append(len(task.runs)), submit(self, task))
    )
    place = places(executor="inprocess")
    (done,) = run_all([make_config(seeds=20)], place)
    assert not done.errors and together == [16, 4]
    assert {record["status"] for record in place.store.records()} == {"finished"}


def test_groups_can_end_together(make_config: Any) -> None:
    lot = work_item(make_config(), 8, torch.device("cpu"))
    assert choose_cohort_sizes([lot], 1) == [8] and choose_cohort_sizes([lot], 2) == [4]
    assert choose_cohort_sizes([lot] * 4, 2) == [8] * 4, "two for each worker as they are"
    assert choose_cohort_sizes([lot] * 3, 2) == [4] * 3, "else one worker would wait"
    assert choose_cohort_sizes([replace(lot, most=1)], 2) == [1]
    assert choose_cohort_sizes([replace(lot, missing=40)], 1) == [16]
    assert choose_cohort_sizes([replace(lot, missing=40)], 2) == [10], "two for each worker"
    assert makespan([3.0, 3.0, 2.0, 2.0, 2.0], 2) == 7.0


def test_the_executors() -> None:
    assert EXECUTORS.names() == ["cuda", "inprocess", "local", "ray"]
