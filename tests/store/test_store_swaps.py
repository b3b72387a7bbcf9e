"""A reader during reruns: the renames of a swap are made between any two calls of the reader."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from records import FINAL, RECORD, line, snapshot

from initbench.errors import StoreError
from initbench.pretrain.weight_sources import _of_run
from initbench.store import stable_reads
from initbench.store.merging import merge
from initbench.store.run_directory import RunPaths
from initbench.store.store import Store

RUN = "relu-s0-0123456789"
CALLS = ("stat", "lstat", "open", "scandir", "listdir")
LAST_CALL = 400
"""More calls than any reader makes."""


def put(root: Path, attempt: int) -> None:
    with Store(root).claim(RUN, {**RECORD, "attempt": attempt}, "name: relu\n") as run:
        for step in range(2):
            run.append_convergence(line(step, attempt=attempt))
        run.append_snapshot(snapshot())
        run.finish({"final": FINAL}, weights=WEIGHTS)


def safetensors_of_one() -> bytes:
    header = b'{"layer.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return len(header).to_bytes(8, "little") + header + b"\0\0\0\0"


WEIGHTS = safetensors_of_one()


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two whole runs of one id, which differ in every file of results."""
    roots = [tmp_path_factory.mktemp("attempt") for _ in range(2)]
    for number, root in enumerate(roots):
        put(root, number)
    return [root / RUN for root in roots]


class Writer:
    """The renames of reruns, made one by one."""

    def __init__(self, root: Path, attempts: list[Path]) -> None:
        self.root, self._places, self._attempts = root, RunPaths(root, RUN), attempts
        self.swaps = 0
        root.mkdir()
        shutil.copytree(attempts[0], self._places.live)

    def steps(self) -> Iterator[None]:
        """Make one rename, or one deletion, each time."""
        while True:
            places = self._places
            shutil.copytree(self._attempts[(self.swaps + 1) % 2], places.rerun)
            places.live.rename(places.old)
            yield
            places.rerun.rename(places.live)
            self.swaps += 1
            yield
            places.old.rename(places.trash)
            yield
            shutil.rmtree(places.trash)
            yield


class Interleaving:
    """Has the writer make a step before each of the reader's calls whose number `acts` accepts."""

    def __init__(self, writer: Writer, acts: Callable[[int], int]) -> None:
        self.calls = 0
        self._steps, self._acts, self._is_acting = writer.steps(), acts, False

    def before_call(self) -> None:
        if self._is_acting:
            return
        self._is_acting = True
        try:
            for _ in range(self._acts(self.calls)):
                next(self._steps)
            self.calls += 1
        finally:
            self._is_acting = False

    @contextmanager
    def running(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda descriptor: None)
            for name in CALLS:
                patch.setattr(os, name, self._wrapped(getattr(os, name)))
            yield

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.before_call()
            return call(*args, **kwargs)

        return wrapped


def check_verify(store: Store) -> None:
    assert store.verify(RUN) == []


def check_read(store: Store) -> None:
    run = store.read(RUN)
    assert run.record["status"] == "finished"
    attempt = run.record["attempt"]
    assert run.convergence == [line(step, attempt=attempt) for step in range(2)]
    assert len(run.snapshots) == 1


def check_glean(store: Store) -> None:
    run = store.read_or_mark_damaged(RUN)
    assert run is not None
    assert (run.record["status"], len(run.convergence)) == ("finished", 2)


def check_status(store: Store) -> None:
    assert store.status(RUN) == "finished"


def check_records(store: Store) -> None:
    assert [record["status"] for record in store.records()] == ["finished"]


def check_find(store: Store) -> None:
    assert store.find(["relu"]) == [RUN]


def check_directory(store: Store) -> None:
    assert store.directory(RUN) is not None


def check_step(store: Store) -> None:
    assert (store.checkpoint_step(RUN), store.stated_step(RUN)) == (0, 0)


def check_merge(store: Store) -> None:
    into = store.root.parent / "all"
    shutil.rmtree(into, ignore_errors=True)
    merged = merge([store.root], into)
    assert (merged.copied, merged.left) == ([RUN], {})
    assert Store(into).verify(RUN) == []
    check_read(Store(into))


def check_weights(store: Store) -> None:
    assert _of_run(store, RUN, None).tensors


READERS = {
    name.removeprefix("check_"): check
    for name, check in sorted(globals().items())
    if name.startswith("check_")
}


STRIDES = [
    *((reader, 1) for reader in READERS if reader != "merge"),
    ("merge", 7),
    pytest.param("merge", 1, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("gap", [0, 1, 3])
@pytest.mark.parametrize(("reader", "stride"), STRIDES)
def test_a_swap_between_any_two_calls_of_a_reader_goes_unnoticed(
    reader: str, stride: int, gap: int, attempts: list[Path], tmp_path: Path
) -> None:
    """`gap`: calls of the reader between two renames."""
    for first in range(0, LAST_CALL, stride):
        root = tmp_path / str(first)
        moments = {first + gap * step for step in range(3)}
        steps_at_once = 3 if gap == 0 else 1
        writer = Writer(root, attempts)
        interleaving = Interleaving(writer, lambda n, m=moments, k=steps_at_once: k * (n in m))
        with interleaving.running():
            READERS[reader](Store(root))
        shutil.rmtree(root)
        if interleaving.calls <= first:
            break
    assert 2 <= first < LAST_CALL - stride


@pytest.mark.parametrize("reader", READERS)
def test_swaps_may_go_on_for_as_long_as_they_like(
    reader: str, attempts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock runs fast, as it seems to a process that seldom gets a core."""
    clock = iter(range(0, 10**9, 100))
    monkeypatch.setattr(stable_reads.time, "monotonic", lambda: float(next(clock)))
    writer = Writer(tmp_path / "runs", attempts)
    interleaving = Interleaving(writer, lambda n: n % 3 == 0 and writer.swaps < 40)
    with interleaving.running():
        while writer.swaps < 40:
            READERS[reader](Store(writer.root))


def test_a_run_is_there_however_often_it_is_missed_between_two_places(
    attempts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(tmp_path / "runs", attempts)
    steps, locate = writer.steps(), RunPaths.locate

    def miss(places: RunPaths) -> Path | None:
        if writer.swaps < 15:
            for _ in range(4):
                next(steps)
            time.sleep(0.011)  # a tick of the coarsest clock that a kernel stamps files with
            return None
        return locate(places)

    monkeypatch.setattr(RunPaths, "locate", miss)
    assert Store(writer.root).verify(RUN) == []
    assert writer.swaps == 15
    assert Store(writer.root).status("relu-s7-0123456789") is None


def test_a_listing_that_missed_a_renamed_run_is_made_again(
    attempts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(tmp_path / "runs", attempts)
    iterdir, steps = Path.iterdir, writer.steps()

    def lacking(directory: Path) -> Iterator[Path]:
        if directory != writer.root or writer.swaps:
            return iterdir(directory)
        time.sleep(0.011)
        next(steps), next(steps)
        return iter([])

    monkeypatch.setattr(Path, "iterdir", lacking)
    check_records(Store(writer.root))


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EIO, errno.ESTALE])
def test_an_error_is_reported_where_no_directory_was_swapped(
    code: int, attempts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(tmp_path / "runs", attempts)
    monkeypatch.setattr(stable_reads, "_MAX_RESTLESS_SECONDS", 0.0)
    calls = []

    def fail(directory: Path) -> None:
        calls.append(directory)
        raise OSError(code, os.strerror(code), str(directory))

    with pytest.raises(OSError, match=os.strerror(code)):
        Store(writer.root).read_stable(RUN, fail)
    assert len(calls) == (10 if code == errno.ESTALE else 1)


def test_a_directory_that_always_gets_new_files_is_read_in_the_end(
    attempts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(tmp_path / "runs", attempts)
    monkeypatch.setattr(stable_reads, "_MAX_RESTLESS_SECONDS", 0.0)

    def disturb(directory: Path) -> str:
        time.sleep(0.011)
        (directory / "notes").unlink(missing_ok=True)
        (directory / "notes").touch()
        return "seen"

    assert Store(writer.root).read_stable(RUN, disturb) == "seen"


def test_damage_beside_a_swap_is_still_reported(attempts: list[Path], tmp_path: Path) -> None:
    writer = Writer(tmp_path / "runs", attempts)
    (writer.root / RUN / "metrics.jsonl").write_text("x")
    problem = f"metrics.jsonl has 1 bytes, expected {size_of(attempts[0])}"
    assert Store(writer.root).verify(RUN) == [problem]
    (writer.root / RUN / "metrics.jsonl").write_text("x\n" * (size_of(attempts[0]) // 2))
    with pytest.raises(StoreError, match=r"metrics\.jsonl"):
        Store(writer.root).read(RUN)


def size_of(directory: Path) -> int:
    return (directory / "metrics.jsonl").stat().st_size
