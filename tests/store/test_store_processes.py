"""One store, several processes: who may write, and what the others see meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from records import RECORD, line

from initbench.errors import StoreError
from initbench.store.locks import acquire_lock, is_locked
from initbench.store.store import Store

RUN_ID = "relu-s0-abc"
CONFIG = "name: relu\n"
PATIENCE, LEAST_ATTEMPTS = 120.0, 3
"""Seconds to wait until this many attempts have been seen; a few are enough on slow machines."""


class Child:
    """A forked process that runs `act(say)`; what it says can be read line by line."""

    def __init__(self, act: Callable[[Callable[[str], None]], None]) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                act(lambda word: os.write(writing, f"{word}\n".encode()) and None)
            except BaseException as error:
                os.write(writing, f"{type(error).__name__} {error}\n".encode())
            finally:
                os._exit(0)
        os.close(writing)
        self.pipe = os.fdopen(reading)

    def hear(self) -> str:
        return self.pipe.readline().strip()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        os.waitpid(self.pid, 0)
        self.pipe.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def holder(store: Store) -> Iterator[Child]:
    """A live process that has claimed the run and stored one line."""

    def hold(say: Callable[[str], None]) -> None:
        run = store.claim(RUN_ID, RECORD, CONFIG)
        run.append_convergence(line(0))
        say("holding")
        time.sleep(60)

    child = Child(hold)
    assert child.hear() == "holding"
    yield child
    if not child.pipe.closed:
        child.kill()


def test_a_live_run_is_running_to_others_and_refused(store: Store, holder: Child) -> None:
    assert store.status(RUN_ID) == "running"
    assert store.is_busy(RUN_ID)
    for act in (
        lambda: store.claim(RUN_ID, RECORD, CONFIG),
        lambda: store.claim(RUN_ID, RECORD, CONFIG, rerun=True),
        lambda: store.remove(RUN_ID),
    ):
        with pytest.raises(StoreError, match=rf"running in process {holder.pid} on "):
            act()
    assert store.read(RUN_ID).convergence == [line(0)]
    assert store.status(RUN_ID) == "running"


def test_a_killed_run_is_crashed_and_its_place_free(store: Store, holder: Child) -> None:
    holder.kill()
    assert store.status(RUN_ID) == "crashed"
    assert [record["status"] for record in store.records()] == ["crashed"]
    assert store.read(RUN_ID).convergence == [line(0)]
    with store.claim(RUN_ID, RECORD, CONFIG) as run:
        assert store.read(RUN_ID).convergence == []
        run.finish({})
    assert store.status(RUN_ID) == "finished"


def test_readers_in_the_owning_process_do_not_release_the_lock(store: Store) -> None:
    with store.claim(RUN_ID, RECORD, CONFIG) as run:
        assert store.status(RUN_ID) == "running"
        store.records()
        store.read(RUN_ID)
        store.verify(RUN_ID)
        store.find(["relu"])
        assert acquire_lock(run.directory / ".lock") is None
        with pytest.raises(StoreError, match="running"):
            store.claim(RUN_ID, RECORD, CONFIG)
        with pytest.raises(StoreError, match="running"):
            store.remove(RUN_ID)
        child = Child(lambda say: say(str(is_locked(run.directory / ".lock"))))
        assert child.hear() == "True"
        child.wait()
        run.finish({})
    assert not is_locked(run.directory / ".lock")


def test_a_forked_child_has_no_locks_of_its_parent(tmp_path: Path) -> None:
    lock = acquire_lock(tmp_path / "lock")
    ready_read, ready_write = os.pipe()

    def look(say: Callable[[str], None]) -> None:
        os.read(ready_read, 1)
        say(str(is_locked(tmp_path / "lock")))

    child = Child(look)
    assert lock is not None
    lock.release()
    os.write(ready_write, b"x")
    assert child.hear() == "False"
    child.wait()


@pytest.mark.parametrize("before", ["nothing", "leftovers", "finished"])
def test_exactly_one_of_many_claims_wins(before: str, store: Store) -> None:
    if before != "nothing":
        run = store.claim(RUN_ID, RECORD, CONFIG)
        run.finish({}) if before == "finished" else run.stop("interrupted")
    start_read, start_write = os.pipe()
    end_read, end_write = os.pipe()

    def contend(say: Callable[[str], None]) -> None:
        os.read(start_read, 1)
        with Store(store.root).claim(RUN_ID, RECORD, CONFIG, rerun=before == "finished") as run:
            say("won")
            os.read(end_read, 1)  # holds it until every other has had its answer
            run.finish({"winner": os.getpid()})
        say("done")

    children = [Child(contend) for _ in range(6)]
    os.write(start_write, b"x" * len(children))
    answers = {child: child.hear() for child in children}
    winners = [child for child, answer in answers.items() if answer == "won"]
    losers = [answer for answer in answers.values() if answer != "won"]
    assert len(winners) == 1
    assert all(answer.startswith(f"StoreError run {RUN_ID} is running") for answer in losers)
    os.write(end_write, b"x")
    assert winners[0].hear() == "done"
    for child in children:
        child.wait()
    assert store.read(RUN_ID).record["winner"] == winners[0].pid
    assert store.verify(RUN_ID) == []


def test_a_reader_never_sees_half_a_run(store: Store) -> None:
    """Rerun upon rerun: the run is there, finished, of one attempt, at every look."""

    def attempt(number: int) -> None:
        with store.claim(RUN_ID, {**RECORD, "attempt": number}, CONFIG, rerun=True) as run:
            for step in range(5):
                run.append_convergence(line(step, attempt=number))
            run.finish({}, weights=lambda path: path.write_bytes(b"weights"))

    attempt(0)

    def train(say: Callable[[str], None]) -> None:
        number = 0
        while not stop.exists():
            number += 1
            attempt(number)
        say(str(number))

    stop = store.root.with_name("stop")
    child, seen, end = Child(train), set(), time.monotonic() + PATIENCE
    try:
        while len(seen) <= LEAST_ATTEMPTS and time.monotonic() < end:
            assert [record["status"] for record in store.records()] == ["finished"]
            run = store.read(RUN_ID)
            number = run.record["attempt"]
            assert run.convergence == [line(step, attempt=number) for step in range(5)]
            assert store.status(RUN_ID) == "finished"
            seen.add(number)
    finally:
        stop.touch()
    last = int(child.hear())
    child.wait()
    assert last == store.read(RUN_ID).record["attempt"]
    assert len(seen) > LEAST_ATTEMPTS


def test_a_reader_follows_a_running_run(store: Store) -> None:
    def train(say: Callable[[str], None]) -> None:
        with store.claim(RUN_ID, RECORD, CONFIG) as run:
            for step in range(100):
                run.append_convergence(line(step))
            run.finish({})

    child, lengths, statuses = Child(train), [0], []
    while statuses[-1:] != ["finished"]:
        if (status := store.status(RUN_ID)) is None:
            continue
        run = store.read(RUN_ID)
        assert run.convergence == [line(step) for step in range(len(run.convergence))]
        assert len(run.convergence) >= lengths[-1]
        lengths.append(len(run.convergence))
        statuses.append(status)
        assert status in ("running", "finished")
    child.wait()
    assert store.read(RUN_ID).convergence[-1] == line(99)
