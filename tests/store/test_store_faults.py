"""Every system call of the store fails, tears or is the last one, one after the other."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from records import FINAL, RECORD, line, snapshot

from initbench.errors import StoreError
from initbench.store.run_directory import MANIFEST, WEIGHTS
from initbench.store.store import Store

RUN_ID = "relu-s0-abc"
LINES = 3
CALLS = ("open", "write", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "ftruncate")
TEARS = ("tear", "tear_kill")
REAL = {name: getattr(os, name) for name in CALLS}


@pytest.fixture(autouse=True)
def no_real_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that the kernel has, so these tests need not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system in memory where there is one: some ten thousand files are made here."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        yield Path(directory)


class Faults:
    """Counts the calls of the os functions above; the `at`-th meets its fate (`broken`: so do all later)."""

    def __init__(self, fate: str, at: int) -> None:
        self.fate, self.at, self.count = fate, at, 0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name in ["write"] if self.fate in TEARS else CALLS:
            patch.setattr(os, name, self._faulty(name))

    def _faulty(self, name: str) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            self.count += 1
            if self.count == self.at or (self.count > self.at and self.fate == "broken"):
                self._strike(name, args)
            return None if name == "fsync" else REAL[name](*args, **kwargs)

        return call

    def _strike(self, name: str, args: tuple) -> None:
        if self.fate in TEARS:
            REAL["write"](args[0], bytes(args[1])[: len(args[1]) // 2])
        if self.fate in ("kill", "tear_kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fate == "interrupt":
            raise KeyboardInterrupt
        raise OSError(errno.ENOSPC, "No space left on device")


def attempt(root: Path, number: int, acknowledge: Callable[[str], None], *, rerun: bool = False) -> None:
    record = {**RECORD, "attempt": number}
    with Store(root).claim(RUN_ID, record, "name: relu\n", rerun=rerun) as run:
        acknowledge("claimed")
        for step in range(LINES):
            run.append_convergence(line(step, attempt=number))
            acknowledge("line")
            run.append_snapshot(snapshot(step=step, attempt=number))
        run.finish({"final": FINAL}, weights=f"weights {number}".encode())
        acknowledge("finished")


def nothing(_root: Path) -> None:
    """A fresh store."""


def leftovers(root: Path) -> None:
    run = Store(root).claim(RUN_ID, {**RECORD, "attempt": 1}, "name: relu\n")
    run.append_convergence(line(0, attempt=1))
    run.stop("interrupted")


def finished(root: Path) -> None:
    attempt(root, 1, lambda _: None)


def train(root: Path, acknowledge: Callable[[str], None]) -> None:
    attempt(root, 2, acknowledge)


def retrain(root: Path, acknowledge: Callable[[str], None]) -> None:
    attempt(root, 2, acknowledge, rerun=True)


def remove(root: Path, acknowledge: Callable[[str], None]) -> None:
    Store(root).remove(RUN_ID)
    acknowledge("removed")


def half_swapped(root: Path) -> None:
    """A rerun was killed between the two renames of its swap."""
    finished(root)
    run = Store(root).claim(RUN_ID, {**RECORD, "attempt": 2}, "name: relu\n", rerun=True)
    for step in range(LINES):
        run.append_convergence(line(step, attempt=2))
        run.append_snapshot(snapshot(step=step, attempt=2))
    renames = iter([Path.rename])

    def one_rename(self: Path, target: Path) -> object:
        rename = next(renames, None)
        if rename is None:
            raise OSError(errno.EIO, "gone")
        return rename(self, target)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoreError):
        patch.setattr(Path, "rename", one_rename)
        run.finish({}, weights=b"weights 2")
    run._close()
    assert sorted(path.name for path in root.iterdir()) == [
        f".{RUN_ID}.old",
        f".{RUN_ID}.rerun",
        ".store.lock",
    ]


def recover(root: Path, acknowledge: Callable[[str], None]) -> None:
    Store(root).recover()
    acknowledge("finished")


SCENARIOS = {
    "train": (nothing, train),
    "clear": (leftovers, train),
    "rerun": (finished, retrain),
    "remove": (finished, remove),
    "recover": (half_swapped, recover),
}


def check_run(root: Path, acknowledged: list[str]) -> None:
    """Check that acknowledged lines can be read, finished runs are complete and attempts are not mixed."""
    store = Store(root)
    status = store.status(RUN_ID)
    assert [record["status"] for record in store.records()] == ([] if status is None else [status])
    if status is None:
        return
    run = store.read(RUN_ID)
    number = run.record["attempt"]
    assert run.convergence == [line(step, attempt=number) for step in range(len(run.convergence))]
    assert all(snapshot["attempt"] == number for snapshot in run.snapshots)
    if status == "finished":
        assert store.verify(RUN_ID) == []
        assert len(run.convergence) == len(run.snapshots) == LINES
        assert (store.directory(RUN_ID) / WEIGHTS).read_bytes() == f"weights {number}".encode()
    elif number == 2:
        assert status in ("crashed", "failed", "interrupted")
        assert status == "crashed" or not (store.directory(RUN_ID) / MANIFEST).exists()
        assert len(run.convergence) - acknowledged.count("line") in (0, 1)


def check(scenario: str, root: Path, acknowledged: list[str]) -> None:
    check_run(root, acknowledged)
    store = Store(root)
    status = store.status(RUN_ID)
    number = None if status is None else store.read(RUN_ID).record["attempt"]
    if "finished" in acknowledged:
        assert (status, number) == ("finished", 2)
    elif scenario in ("rerun", "recover"):
        assert status == "finished"
        assert number in (1, 2)
    elif scenario == "remove":
        assert status is None if "removed" in acknowledged else status in (None, "finished")
    elif "claimed" in acknowledged:
        assert number == 2
    if root.is_dir():
        store.recover()
        assert {path.name for path in root.iterdir()} <= {RUN_ID, ".store.lock"}
        assert (store.status(RUN_ID), number) == (status, number)
        check_run(root, acknowledged)
    attempt(root, 3, lambda _: None, rerun=True)
    check_run(root, acknowledged)
    assert Store(root).read(RUN_ID).record["attempt"] == 3


def cases(fates: list[str]) -> list[tuple[str, str]]:
    writing = ("train", "clear", "rerun")
    return [(name, fate) for name in SCENARIOS for fate in fates if fate not in TEARS or name in writing]


def at_least(scenario: str, fate: str) -> int:
    """Fewer calls than this, and the scenario did not do what it is there for."""
    if fate in TEARS:
        return 2 * LINES + 5
    return 5 if scenario in ("remove", "recover") else 50


STRIDES = pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
"""The fast tests have every fifth call fail, the slow ones every call."""


@STRIDES
@pytest.mark.parametrize(("scenario", "fate"), cases(["error", "tear", "broken", "interrupt"]))
def test_an_error_at_any_call(scenario: str, fate: str, stride: int, disk: Path) -> None:
    prepare, act = SCENARIOS[scenario]
    for at in range(1, 1000, stride):
        root, acknowledged, faults = disk / str(at), [], Faults(fate, at)
        prepare(root)
        with pytest.MonkeyPatch.context() as patch, suppress(StoreError, KeyboardInterrupt):
            faults.install(patch)
            act(root, acknowledged.append)
        assert not Store(root).is_busy(RUN_ID)
        if scenario == "rerun" and fate != "broken":  # what failed was undone by the process itself
            assert (root / RUN_ID).is_dir()
        check(scenario, root, acknowledged)
        if faults.count < at:
            assert at > at_least(scenario, fate)
            return
    pytest.fail("the scenario has no end")


def in_child(act: Callable[[Callable[[str], None]], None]) -> tuple[list[str], int]:
    """Run `act` in a forked process; what it acknowledged, and the signal that killed it (or 0)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act(lambda word: REAL["write"](writing, f"{word}\n".encode()))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        words = pipe.read().split()
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return words, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def doomed(
    faults: Faults, act: Callable[[Callable[[str], None]], None], acknowledge: Callable[[str], None]
) -> None:
    faults.install(pytest.MonkeyPatch())
    act(acknowledge)


@STRIDES
@pytest.mark.parametrize(("scenario", "fate"), cases(["kill", "tear_kill"]))
def test_a_kill_at_any_call(scenario: str, fate: str, stride: int, disk: Path) -> None:
    prepare, act = SCENARIOS[scenario]
    for at in range(1, 1000, stride):
        root, faults = disk / str(at), Faults(fate, at)
        prepare(root)

        acknowledged, killed = in_child(partial(doomed, faults, partial(act, root)))
        check(scenario, root, acknowledged)
        if not killed:
            assert at > at_least(scenario, fate)
            return
    pytest.fail("the scenario has no end")


def test_a_swap_without_a_complete_new_run_is_rolled_back(disk: Path) -> None:
    half_swapped(disk)
    (disk / f".{RUN_ID}.rerun" / MANIFEST).unlink()
    store = Store(disk)
    assert store.read(RUN_ID).record["attempt"] == 1
    store.recover()
    assert {path.name for path in disk.iterdir()} == {RUN_ID, ".store.lock"}
    assert store.read(RUN_ID).record["attempt"] == 1
    assert store.verify(RUN_ID) == []


def test_a_torn_append_is_taken_back(disk: Path) -> None:
    run = Store(disk).claim(RUN_ID, {**RECORD, "attempt": 1}, "name: relu\n")
    run.append_convergence(line(0))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoreError, match="No space left"):
        Faults("tear", 1).install(patch)
        run.append_convergence(line(1))
    run.append_convergence(line(2))
    assert Store(disk).read(RUN_ID).convergence == [line(0), line(2)]
    run.stop("failed")
