"""Summaries from the index equal those from the runs' files, even if either is damaged or changed."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from initbench.store.index import Index, IndexEntry, fingerprint_of

import initbench
from initbench.analysis import load_runs
from initbench.analysis.load_runs import decode_summary, encode_summary, index_version, load_run_summaries
from initbench.analysis.run_summary import LAYER_STATISTICS, RunSummary, summarise_run
from initbench.store import index as index_module
from initbench.store.locks import acquire_lock
from initbench.store.store import Store

RECORD: dict[str, Any] = {
    "arm": "0123456789",
    "dataset": "digits",
    "dataset_requested": "mnist",
    "device": "cpu",
    "identity": {"data": {"name": "digits", "fingerprint": "f"}, "device": "cpu"},
    "config": {
        "name": "x",
        "model": {"family": "mlp", "activation": "relu", "norm": "none"},
        "init": {"scheme": {"name": "kaiming_normal", "mode": "fan_in"}},
        "train": {"steps": 20, "batch_size": 32},
    },
    "timings": {"train": 3.0},
    "cohort": 2,
}
NAMES = ("relu", "tanh")
INDEX = ".compare.index"


def snapshot(when: str, value: float) -> dict[str, Any]:
    act = {
        "std": value,
        "mean": float("nan"),
        "zero_fraction": -0.0,
        "dead_fraction": None,
        "saturated_fraction": 1e-310,
        "histogram": {"edges": [0, 1], "counts": [1], "below": 0, "above": 0, "nan": 0},
    }
    hidden = [{"index": i, "pre": {"q": value}, "act": act, "grad": {"pre_q": 1e300}} for i in (1, 2)]
    head = {"index": 3, "pre": {"q": float("inf")}, "act": None, "grad": {"pre_q": None}}
    return {"when": when, "step": 0, "layers": [*hidden, head]}


def write(store: Store, name: str, seed: int, *, value: float = 1.0, ending: str = "finished") -> str:
    run_id = f"{name}-s{seed}-abc"
    record = {**RECORD, "experiment": name, "seed": seed}
    run = store.claim(run_id, record, "name: x\n", rerun=True)
    for step in range(3):
        run.append_convergence(
            {"step": step, "train_loss": value, "val_loss": float("nan"), "val_accuracy": value / 3}
        )
    for when in ("init", "train", "end"):
        run.append_snapshot(snapshot(when, value))
    if ending in ("finished", "diverged"):
        final = {"val_accuracy": value / 3, "test_accuracy": float("-inf")}
        run.finish({"status": ending, "steps": 20, "final": final}, weights=b"w")
    else:
        run.stop(ending)
    return run_id


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a store of three finished runs, one that diverged and two unfinished ones."""
    monkeypatch.setattr(index_module, "SETTLED_SECONDS", -1.0)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    store = Store(tmp_path / "runs")
    for seed in range(2):
        write(store, "relu", seed)
    write(store, "tanh", 0)
    write(store, "tanh", 1, ending="diverged")
    write(store, "tanh", 2, ending="interrupted")
    write(store, "gelu", 0, ending="failed")
    return store


@pytest.fixture
def indexed(store: Store) -> Store:
    load_run_summaries(store, [])
    assert (store.root / INDEX).is_file()
    return store


def same(facts: list[RunSummary]) -> list[str]:
    """Return the summaries as text, in which NaN equals NaN, and -0.0 differs from 0.0."""
    return [repr(one.as_data()) for one in facts]


def live(store: Store, patterns: list[str]) -> list[str]:
    return same([summarise_run(store.read(run_id)) for run_id in store.find(patterns)])


def check(store: Store, *patterns: str) -> None:
    """Assert twice that summaries equal those from the files; the second time with the updated index."""
    for _ in range(2):
        assert same(load_run_summaries(store, list(patterns))) == live(store, list(patterns))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the id of each run is appended whose files are read."""
    seen: list[str] = []
    plain = Store.read_or_mark_damaged

    def counted(self: Store, run_id: str) -> object:
        seen.append(run_id)
        return plain(self, run_id)

    monkeypatch.setattr(Store, "read_or_mark_damaged", counted)
    return seen


UNFINISHED = ["tanh-s2-abc", "gelu-s0-abc"]


def test_a_finished_run_is_read_once_and_an_unfinished_one_every_time(store: Store, reads: list[str]) -> None:
    first = load_run_summaries(store, [])
    assert len(first) == len(reads) == 6
    reads.clear()
    written = (store.root / INDEX).stat().st_ino
    assert same(load_run_summaries(store, [])) == same(first)
    assert sorted(reads) == sorted(UNFINISHED)  # oldest first, but both may be of one millisecond
    assert (store.root / INDEX).stat().st_ino == written, "nothing new, nothing written"


def test_only_what_a_pattern_names_is_read(store: Store, reads: list[str]) -> None:
    assert [one.run_id for one in load_run_summaries(store, ["relu"])] == ["relu-s0-abc", "relu-s1-abc"]
    assert reads == ["relu-s0-abc", "relu-s1-abc"]
    check(store, "tanh-s1*", "relu")
    assert reads.count("tanh-s1-abc") == 1
    check(store)


def test_the_answer_is_that_of_the_files(store: Store) -> None:
    check(store)
    check(store, "tanh")
    check(store, "relu-s1")


def test_an_empty_store_is_left_as_it_is(tmp_path: Path) -> None:
    assert load_run_summaries(Store(tmp_path / "none"), []) == []
    assert list(tmp_path.iterdir()) == []


numbers = st.none() | st.floats()
words = st.text(max_size=5)
plain = st.none() | st.booleans() | st.integers() | st.floats() | words
trees = st.dictionaries(
    words, plain | st.lists(plain, max_size=2) | st.dictionaries(words, plain, max_size=2)
)
layer = st.tuples(*[numbers] * len(LAYER_STATISTICS)).map(
    lambda values: dict(zip(LAYER_STATISTICS, values, strict=True))
)
facts = st.builds(
    RunSummary,
    run_id=words,
    experiment=words,
    arm=words,
    seed=st.integers(),
    status=words,
    created=words,
    dataset=words,
    dataset_requested=words,
    fingerprint=words,
    config=trees,
    identity=trees,
    steps=st.none() | st.integers(),
    batch_size=st.none() | st.integers(),
    final=st.dictionaries(words, numbers, max_size=3),
    evaluations=st.lists(st.lists(numbers, min_size=4, max_size=4), max_size=3),
    layers=st.dictionaries(st.sampled_from(("init", "end")), st.lists(layer, max_size=3)),
    diverged_step=st.none() | st.integers(),
    diagnosis=st.lists(words, max_size=2),
    seconds=numbers,
)


@settings(deadline=None)
@given(facts)
def test_any_facts_come_back_as_they_were(one: RunSummary) -> None:
    assert same([decode_summary(encode_summary(one))]) == same([one])


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(5000))


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def of_another_schema(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"initbench.index/1", b"initbench.index/2"))


def of_other_code(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(index_version().encode(), b"0" * 16))


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def lies(path: Path) -> None:
    """Write an index with valid frames around documents that no encoder has written."""
    root = path.parent
    index = Index(root, "compare", index_version())
    documents = (b"", b"\n\n", b"{}\n[]\n", b"[]\n[{}, 9, {}, []]\n", b'{}\n[{}, 0, {}, ["x"]]\n' + b"\0" * 8)
    names = ("relu-s0-abc", "relu-s1-abc", "tanh-s0-abc", "tanh-s1-abc", "../runs")
    made = []
    for name, document in zip(names, documents, strict=True):
        stamp = fingerprint_of(root, name)
        assert stamp is not None
        made.append(IndexEntry(name, stamp.digest, "2020", "relu", document))
    index.update(made, [])


DAMAGES: list[Callable[[Path], object]] = [
    Path.unlink,
    garbage,
    flipped,
    of_another_schema,
    of_other_code,
    a_directory,
    a_pipe,
    a_loop,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_as_good_as_none(damage: Callable[[Path], object], indexed: Store) -> None:
    damage(indexed.root / INDEX)
    check(indexed)


def test_whole_entries_that_make_no_sense_are_read_live(indexed: Store, reads: list[str]) -> None:
    lies(indexed.root / INDEX)
    found = load_run_summaries(indexed, [])
    assert sorted(same(found)) == sorted(live(indexed, []))
    check(indexed)


@pytest.mark.parametrize("stride", [391, pytest.param(97, marks=pytest.mark.slow)])
def test_an_index_cut_off_anywhere(indexed: Store, stride: int) -> None:
    path = indexed.root / INDEX
    content, expected = path.read_bytes(), live(indexed, [])
    for size in [*range(0, len(content), stride), len(content) - 1]:
        path.write_bytes(content[:size])
        assert same(load_run_summaries(indexed, [])) == expected, size
        assert len(path.read_bytes()) == len(content), "it is whole again"


@pytest.mark.parametrize("flips", [40, pytest.param(150, marks=pytest.mark.slow)])
def test_a_bit_that_flipped_anywhere(indexed: Store, flips: int) -> None:
    path = indexed.root / INDEX
    content, expected, chance = path.read_bytes(), live(indexed, []), random.Random(0)
    for _ in range(flips):
        changed = bytearray(content)
        changed[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        assert same(load_run_summaries(indexed, [])) == expected


CALLS = ("open", "write", "fsync", "replace", "unlink", "scandir", "listdir")
REAL = {name: getattr(os, name) for name in CALLS}


def in_child(act: Callable[[], object]) -> int:
    """Run `act` in a forked process and return its exit status."""
    child = os.fork()
    if child == 0:
        try:
            act()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def struck(at: int, code: int | None, *, broken: bool) -> tuple[pytest.MonkeyPatch, list[int]]:
    """Make the `at`-th system call of `Index.update` fail with `code`; without one, kill the process."""
    patch, count = pytest.MonkeyPatch(), [0]

    def faulty(name: str) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            count[0] += 1
            if count[0] == at or (broken and count[0] > at):
                if name == "write":
                    REAL["write"](args[0], bytes(args[1])[: len(args[1]) // 2])  # type: ignore[arg-type,index]
                if code is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(code, os.strerror(code or 0))
            return REAL[name](*args, **kwargs)

        return call

    plain = Index.update

    def update(self: Index, *args: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            for name in CALLS:
                inner.setattr(os, name, faulty(name))
            plain(self, *args)

    patch.setattr(Index, "update", update)
    return patch, count


@pytest.mark.parametrize("before", ["none", "old", "stale"])
@pytest.mark.parametrize(
    ("code", "broken"), [(errno.ENOSPC, False), (errno.EROFS, True), (errno.EIO, True), (None, False)]
)
def test_a_write_that_fails_anywhere(before: str, code: int | None, broken: bool, indexed: Store) -> None:
    """On a full, read-only or failing disk, or if killed, this result and the next one are correct."""
    path = indexed.root / INDEX
    if before == "old":
        of_other_code(path)
    elif before == "stale":
        write(indexed, "relu", 0, value=2.0)
    content, expected = path.read_bytes(), live(indexed, [])
    for at in range(1, 100):
        path.write_bytes(content)
        if before == "none":
            path.unlink()
        patch, count = struck(at, code, broken=broken)
        try:
            if code is None:
                status = in_child(lambda: load_run_summaries(indexed, []))
                ended = os.WIFEXITED(status)
                assert not ended or os.WEXITSTATUS(status) == 0
            else:
                assert same(load_run_summaries(indexed, [])) == expected
                ended = count[0] < at
        finally:
            patch.undo()
        assert same(load_run_summaries(indexed, [])) == expected
        assert not list(indexed.root.glob("*.tmp")) + list(indexed.root.glob(".*.tmp"))
        if ended:
            assert at > 4
            return
    pytest.fail("the writing has no end")


def test_a_store_that_cannot_be_written_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    (store.root / ".compare.index.lock").mkdir()
    check(store)
    assert not (store.root / INDEX).exists()


def test_while_another_process_writes_the_index_nobody_waits(store: Store) -> None:
    held = acquire_lock(store.root / ".compare.index.lock")
    assert held is not None
    check(store)
    assert not (store.root / INDEX).exists()
    held.release()
    check(store)
    assert (store.root / INDEX).exists()


def test_two_that_write_at_once_lose_nothing(store: Store, reads: list[str]) -> None:
    """Each has read other runs; the second keeps the entries that the first has added meanwhile."""
    plain, between = Store.read_or_mark_damaged, ["tanh"]

    def read_with_another(self: Store, run_id: str) -> object:
        if between:
            load_run_summaries(Store(self.root), [between.pop()])
        return plain(self, run_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "read_or_mark_damaged", read_with_another)
        load_run_summaries(store, ["relu"])
    reads.clear()
    load_run_summaries(store, [])
    assert sorted(reads) == sorted(UNFINISHED)  # oldest first, but both may be of one millisecond


def test_a_rerun_is_seen(indexed: Store) -> None:
    write(indexed, "relu", 0, value=2.0)
    check(indexed)
    (found,) = load_run_summaries(indexed, ["relu-s0"])
    assert found.final["val_accuracy"] == 2.0 / 3


def test_a_run_that_is_removed_is_gone_from_the_answer_and_from_the_index(indexed: Store) -> None:
    indexed.remove("relu-s0-abc")
    check(indexed)
    assert b"relu-s0-abc" not in (indexed.root / INDEX).read_bytes()


def test_a_run_that_is_removed_between_two_looks_is_left_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Store.find

    def find(self: Store, *arguments: Any) -> list[str]:
        found = plain(self, *arguments)
        self.remove("relu-s0-abc")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Store, "find", find)
        found = load_run_summaries(store, [])
    assert [one.run_id for one in found if one.experiment == "relu"] == ["relu-s1-abc"]


def in_place(path: Path) -> None:
    """Change a digit of the file, but neither its size nor its time."""
    times = path.stat()
    text = path.read_text().replace('"steps": 20', '"steps": 21')
    path.write_text(text)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda run: in_place(run / "run.json"), "finished"),
        (lambda run: (run / "weights.safetensors").unlink(), "crashed"),
        (lambda run: (run / "manifest.json").unlink(), "crashed"),
        (lambda run: (run / "layers.jsonl").write_text(""), "crashed"),
        (lambda run: (run / "config.yaml").write_text("other"), "crashed"),
        (lambda run: os.utime(run / "metrics.jsonl"), "finished"),
    ],
)
def test_a_run_that_changed_is_read_anew(
    change: Callable[[Path], object], status: str, indexed: Store, reads: list[str]
) -> None:
    reads.clear()
    change(indexed.root / "relu-s0-abc")
    (found,) = load_run_summaries(indexed, ["relu-s0"])
    assert found.status == status
    assert reads == ["relu-s0-abc"]
    check(indexed)


def test_what_cannot_be_read_is_damaged_and_the_others_are_compared(indexed: Store, reads: list[str]) -> None:
    path = indexed.root / "relu-s1-abc" / "layers.jsonl"
    path.write_bytes(b"{" + path.read_bytes()[1:].replace(b'"', b"'"))
    (indexed.root / INDEX).unlink()
    for _ in range(2):
        reads.clear()
        found = {one.run_id: one for one in load_run_summaries(indexed, [])}
        damaged = found.pop("relu-s1-abc")
        assert (damaged.status, damaged.seed, damaged.layers) == ("damaged", 1, {})
        assert damaged.error is not None and damaged.error.startswith(f"{path} is damaged: ")
        assert damaged.arm == found["relu-s0-abc"].arm and damaged.config == found["relu-s0-abc"].config
        assert len(found) == 5 and "damaged" not in {one.status for one in found.values()}
    assert sorted(reads) == sorted([*UNFINISHED, "relu-s1-abc"]), "what is whole is in the index"


def test_a_run_that_ended_a_moment_ago_is_not_indexed_yet(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could change again within one tick of the file system's clock, which would go unnoticed."""
    monkeypatch.setattr(index_module, "SETTLED_SECONDS", 60.0)
    check(store)
    assert not (store.root / INDEX).exists()


def test_a_running_run_is_read_live_and_then_indexed(indexed: Store, reads: list[str]) -> None:
    with indexed.claim("new-s0-abc", {**RECORD, "experiment": "new", "seed": 0}, "") as run:
        check(indexed)
        run.append_snapshot(snapshot("init", 5.0))
        check(indexed)
        assert load_run_summaries(indexed, ["new"])[0].status == "running"
        run.finish({})
    check(indexed)
    reads.clear()
    assert load_run_summaries(indexed, ["new"])[0].status == "finished"
    assert reads == []


def test_ls_rm_and_recovery_leave_it_alone(indexed: Store, initbench: Callable[..., Any]) -> None:
    content = (indexed.root / INDEX).read_bytes()
    fresh = Store(indexed.root)
    fresh.recover()
    assert len(fresh.records()) == 6
    assert "compare" not in initbench("ls", "--runs-dir", fresh.root).out
    assert (indexed.root / INDEX).read_bytes() == content
    assert initbench("rm", "*", "--yes", "--runs-dir", fresh.root).code == 0
    assert load_run_summaries(fresh, []) == []


def test_the_version_is_that_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "initbench"
    shutil.copytree(Path(initbench.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    before = index_version()
    monkeypatch.setattr(initbench, "__file__", str(package / "__init__.py"))
    assert index_version() == before
    seen = {before}
    for name in (
        "analysis/run_summary.py",
        "analysis/load_runs.py",
        "store/record_schema.py",
        "store/run_directory.py",
    ):
        with (package / name).open("a") as file:
            file.write("# changed\n")
        seen.add(index_version())
    assert len(seen) == 5


def test_reading_that_takes_long_is_announced_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load_run_summaries(store, ["tanh"])
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(load_runs, "PATIENCE", 0.0)
    load_run_summaries(store, [])
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("reading 4 runs that are not in the index: about ")
    assert said.err.count("\n") == 1


def test_compare_loads_no_torch(indexed: Store) -> None:
    script = (
        "import sys; from initbench.cli.main import run_command; "
        f"code = run_command(['compare', '--json', '--runs-dir', {str(indexed.root)!r}]); "
        "sys.exit(code or ('torch' in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
