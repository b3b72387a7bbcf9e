"""Summaries from summary files equal those from the other files, even if either is damaged or changed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from initbench.analysis import load_runs
from initbench.analysis.load_runs import load_run_summaries
from initbench.analysis.run_summary import RunSummary, summarise_run
from initbench.errors import StoreError
from initbench.store import upgrading
from initbench.store.merging import merge
from initbench.store.packed_numbers import LAYER_STATISTICS, PackedNumbers
from initbench.store.store import Store
from initbench.store.summary_file import LineStatistics, read_summary, summary_text
from initbench.store.upgrading import CURRENT, UNFINISHED, UPGRADED, upgrade_run

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
SUMMARY = "summary.jsonl"


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
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    store = Store(tmp_path / "runs")
    for seed in range(2):
        write(store, "relu", seed)
    write(store, "tanh", 0)
    write(store, "tanh", 1, ending="diverged")
    write(store, "tanh", 2, ending="interrupted")
    write(store, "gelu", 0, ending="failed")
    return store


def same(facts: list[RunSummary]) -> list[str]:
    """Return the summaries as text, in which NaN equals NaN, and -0.0 differs from 0.0."""
    return [repr(one.as_data()) for one in facts]


def live(store: Store, patterns: list[str]) -> list[str]:
    return same([summarise_run(store.read(run_id)) for run_id in store.find(patterns)])


def check(store: Store, *patterns: str) -> None:
    """Assert that the summaries equal those from the other files."""
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


INCOMPLETE = ["tanh-s2-abc", "gelu-s0-abc"]


def test_the_files_of_complete_runs_are_not_read(store: Store, reads: list[str]) -> None:
    found = load_run_summaries(store, [])
    assert len(found) == 6
    assert sorted(reads) == sorted(INCOMPLETE)
    assert same(found) == live(store, [])
    reads.clear()
    assert [one.run_id for one in load_run_summaries(store, ["relu"])] == ["relu-s0-abc", "relu-s1-abc"]
    assert reads == []
    check(store, "tanh-s1*", "relu")
    check(store, "relu-s1")


def test_headers_are_the_beginning_of_records(store: Store) -> None:
    for header, record in zip(store.record_headers(), store.records(), strict=True):
        assert {key: record[key] for key in header if key != "schema"} == {
            key: value for key, value in header.items() if key != "schema"
        }


def test_an_empty_store_is_left_as_it_is(tmp_path: Path) -> None:
    assert load_run_summaries(Store(tmp_path / "none"), []) == []
    assert list(tmp_path.iterdir()) == []


numbers = st.none() | st.floats()
layer = st.tuples(*[numbers] * len(LAYER_STATISTICS)).map(
    lambda values: dict(zip(LAYER_STATISTICS, values, strict=True))
)


@settings(deadline=None)
@given(
    st.lists(st.lists(numbers, min_size=4, max_size=4), max_size=3),
    st.dictionaries(st.sampled_from(("init", "end")), st.lists(layer, max_size=3)),
)
def test_any_numbers_come_back_as_they_were(evaluations: Any, layers: Any) -> None:
    record = json.loads(json.dumps(PackedNumbers.pack(evaluations, layers).as_record()))
    assert repr(PackedNumbers.from_record(record).unpack()) == repr((evaluations, layers))


def test_another_summary_has_another_schema() -> None:
    """If this fails, increase the number in `summary_file.SCHEMA`: stored summaries are out of date."""
    record = {**RECORD, "run_id": "x", "experiment": "x", "seed": 0, "status": "finished", "steps": 20}
    evaluation = {"step": 0, "train_loss": 1.0, "val_loss": "NaN", "val_accuracy": 0.5, "val_loss_batch": 1.0}
    snapshots = [
        {"when": when, "layers": [{"pre": {"q": 1.0}, "act": {"std": i}, "grad": {"pre_q": 2.0}}]}
        for i, when in enumerate(("init", "train", "end", "end"))
    ]
    text = summary_text(record, LineStatistics.from_lines([evaluation], snapshots), [])
    assert text.startswith('{"schema": "initbench.summary/1"')
    assert hashlib.sha256(text.encode()).hexdigest()[:10] == "e19d5b6e35"


def forge(directory: Path, content: bytes) -> None:
    """Write a summary and list it in the manifest."""
    (directory / SUMMARY).write_bytes(content)
    manifest = json.loads((directory / "manifest.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"][SUMMARY] = {"sha256": digest, "bytes": len(content)}
    (directory / "manifest.json").write_text(json.dumps(manifest))


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(5000))


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def of_another_schema(path: Path) -> None:
    forge(path.parent, path.read_bytes().replace(b"initbench.summary/1", b"initbench.summary/0"))


def of_another_run(path: Path) -> None:
    forge(path.parent, (path.parent.parent / "relu-s1-abc" / SUMMARY).read_bytes())


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


DAMAGES: list[Callable[[Path], object]] = [
    *(Path.unlink, garbage, flipped, of_another_schema, of_another_run, a_directory, a_pipe, a_loop)
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_summary_is_as_good_as_none(
    damage: Callable[[Path], object], store: Store, reads: list[str]
) -> None:
    expected = live(store, [])
    damage(store.root / "relu-s0-abc" / SUMMARY)
    assert same(load_run_summaries(store, [])) == expected
    assert "relu-s0-abc" in reads
    assert store.status("relu-s0-abc") == "finished", "the summary can be made again"


def test_a_whole_summary_that_makes_no_sense_is_not_used(store: Store) -> None:
    directory, expected = store.root / "relu-s0-abc", live(store, [])
    whole = (directory / SUMMARY).read_bytes()
    lines = [json.loads(line) for line in whole.splitlines()]
    wrong: tuple[Any, ...] = (None, -1, 10**18, "x", [], {}, [1], {"a": 1}, [[2]], {"init": [3]}, 0.5)
    forged = [b"", b"\n\n", b"{}\n{}\n{}\n", b"[]\n[]\n[]\n", b"[" * 5000, whole[:-9]]
    for i, line in enumerate(lines):
        for key in line:
            forged += [
                b"".join(
                    json.dumps({**each, **({key: value} if n == i else {})}).encode() + b"\n"
                    for n, each in enumerate(lines)
                )
                for value in wrong
            ]
    for key in lines[2]["packed"]:
        for value in wrong:
            packed = {**lines[2]["packed"], key: value}
            changed = [*lines[:2], {**lines[2], "packed": packed}]
            forged.append(b"".join(json.dumps(line).encode() + b"\n" for line in changed))
    used = 0
    for content in forged:
        forge(directory, content)
        found = same(load_run_summaries(store, []))
        used += found != expected  # plausible values are used: the manifest says that they are the run's
    assert used < len(forged) // 3
    assert all(type(one) is RunSummary for one in load_run_summaries(store, []))


@pytest.mark.parametrize("stride", [391, pytest.param(97, marks=pytest.mark.slow)])
def test_a_summary_cut_off_anywhere(store: Store, stride: int) -> None:
    path, expected = store.root / "relu-s0-abc" / SUMMARY, live(store, [])
    content = path.read_bytes()
    for size in [*range(0, len(content), stride), len(content) - 1]:
        path.write_bytes(content[:size])
        assert same(load_run_summaries(store, [])) == expected, size


@pytest.mark.parametrize("flips", [40, pytest.param(150, marks=pytest.mark.slow)])
def test_a_bit_that_flipped_anywhere(store: Store, flips: int) -> None:
    path, expected, chance = store.root / "relu-s0-abc" / SUMMARY, live(store, []), random.Random(0)
    content = path.read_bytes()
    for _ in range(flips):
        changed = bytearray(content)
        changed[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        assert same(load_run_summaries(store, [])) == expected


def test_a_rerun_is_seen(store: Store) -> None:
    write(store, "relu", 0, value=2.0)
    check(store)
    (found,) = load_run_summaries(store, ["relu-s0"])
    assert found.final["val_accuracy"] == 2.0 / 3


def test_a_run_that_is_removed_between_two_looks_is_left_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.root / "relu-s0-abc" / SUMMARY).unlink()
    plain = Store.find

    def find(self: Store, *arguments: Any) -> list[str]:
        found = plain(self, *arguments)
        self.remove("relu-s0-abc")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Store, "find", find)
        found = load_run_summaries(store, [])
    assert [one.run_id for one in found if one.experiment == "relu"] == ["relu-s1-abc"]


def in_place(
    path: Path, old: str = '"steps": 20', new: str = '"steps": 21', *, keep_time: bool = True
) -> None:
    """Change a digit of the file, but not its size nor, by default, its time."""
    times, text = path.stat(), path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    if keep_time:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda run: in_place(run / "run.json"), "finished"),
        (lambda run: in_place(run / "run.json", ': "finished"', ': "diverged"'), "diverged"),
        (lambda run: in_place(run / "metrics.jsonl", ": 1.0", ": 2.0", keep_time=False), "finished"),
        (lambda run: in_place(run / "layers.jsonl", '"layers"', '"1ayers"', keep_time=False), "damaged"),
        (lambda run: (run / "weights.safetensors").unlink(), "crashed"),
        (lambda run: (run / "manifest.json").unlink(), "crashed"),
        (lambda run: (run / "layers.jsonl").write_text(""), "crashed"),
        (lambda run: (run / "config.yaml").write_text("other"), "crashed"),
    ],
)
def test_a_run_that_changed_is_read_from_its_files(
    change: Callable[[Path], object], status: str, store: Store, reads: list[str]
) -> None:
    change(store.root / "relu-s0-abc")
    (found,) = load_run_summaries(store, ["relu-s0"])
    assert found.status == status
    assert reads == ["relu-s0-abc"]
    if status != "damaged":
        check(store)
    assert [one["status"] for one in store.record_headers()] == [one["status"] for one in store.records()]


def test_a_copy_that_keeps_no_times_has_its_summaries(store: Store, reads: list[str]) -> None:
    for path in store.root.glob("*/metrics.jsonl"):
        os.utime(path)
    load_run_summaries(store, [])
    assert sorted(reads) == sorted(INCOMPLETE)


def test_what_cannot_be_read_is_damaged_and_the_others_are_compared(store: Store) -> None:
    path = store.root / "relu-s1-abc" / "layers.jsonl"
    path.write_bytes(b"{" + path.read_bytes()[1:].replace(b'"', b"'"))
    found = {one.run_id: one for one in load_run_summaries(store, [])}
    damaged = found.pop("relu-s1-abc")
    assert (damaged.status, damaged.seed, damaged.layers) == ("damaged", 1, {})
    assert damaged.error is not None and damaged.error.startswith(f"{path} is damaged: ")
    assert damaged.arm == found["relu-s0-abc"].arm and damaged.config == found["relu-s0-abc"].config
    assert len(found) == 5 and "damaged" not in {one.status for one in found.values()}


def test_a_running_run_is_read_live_and_then_from_its_summary(store: Store, reads: list[str]) -> None:
    with store.claim("new-s0-abc", {**RECORD, "experiment": "new", "seed": 0}, "") as run:
        check(store)
        run.append_snapshot(snapshot("init", 5.0))
        check(store)
        assert load_run_summaries(store, ["new"])[0].status == "running"
        run.finish({})
    check(store)
    reads.clear()
    assert load_run_summaries(store, ["new"])[0].status == "finished"
    assert reads == []


def test_a_run_with_an_invalid_record_or_line_has_no_summary(store: Store) -> None:
    with store.claim("a-s0-abc", {**RECORD, "experiment": "a", "seed": -1}, "") as run:
        run.finish({})
    with store.claim("b-s0-abc", {**RECORD, "experiment": "b", "seed": 0}, "") as run:
        run.append_convergence({"step": 0})
        run.finish({})
    for run_id in ("a-s0-abc", "b-s0-abc"):
        assert not (store.root / run_id / SUMMARY).exists()
        assert store.verify(run_id) == []
    assert [one.status for one in load_run_summaries(store, ["a", "b"])] == ["damaged"] * 2


def test_merge_copies_summaries(store: Store, tmp_path: Path) -> None:
    merge([store.root], tmp_path / "all")
    merged = Store(tmp_path / "all")
    assert merged.read_summaries().keys() == store.read_summaries().keys()
    check(merged)


def as_before(store: Store) -> Store:
    """Make the store that of a version without summaries."""
    for path in store.root.glob(f"*/{SUMMARY}"):
        path.unlink()
        manifest = path.with_name("manifest.json")
        document = json.loads(manifest.read_text())
        del document["files"][SUMMARY]
        manifest.write_text(json.dumps(document))
    return store


def contents(store: Store) -> dict[Path, tuple[bytes, int]]:
    """Return contents and times of the files that an upgrade does not change."""
    kept = (path for path in store.root.glob("*-abc/*") if path.name not in (SUMMARY, "manifest.json"))
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in kept}


def test_an_old_store_is_upgraded(store: Store, initbench: Callable[..., Any], reads: list[str]) -> None:
    summaries = {path: path.read_bytes() for path in store.root.glob(f"*/{SUMMARY}")}
    as_before(store)
    (store.root / ".compare.index").write_text("of an earlier version")
    before, kept = live(store, []), contents(store)
    assert same(load_run_summaries(store, [])) == before and len(reads) == 6
    done = initbench("upgrade", "--runs-dir", store.root)
    assert (done.code, done.out) == (0, "4 runs upgraded, 2 unfinished\n")
    reads.clear()
    assert same(load_run_summaries(store, [])) == before and sorted(reads) == sorted(INCOMPLETE)
    assert {path: path.read_bytes() for path in store.root.glob(f"*/{SUMMARY}")} == summaries
    assert contents(store) == kept
    assert not (store.root / ".compare.index").exists()
    assert initbench("ls", "--verify", "--runs-dir", store.root).code == 0
    again = initbench("upgrade", "relu", "--runs-dir", store.root)
    assert again.out == "0 runs upgraded, 2 already up to date\n"


@pytest.mark.parametrize("damage", [Path.unlink, garbage, flipped, of_another_schema])
def test_an_upgrade_writes_a_damaged_summary_again(damage: Callable[[Path], object], store: Store) -> None:
    expected = live(store, [])
    damage(store.root / "relu-s0-abc" / SUMMARY)
    assert upgrade_run(store, "relu-s0-abc") == UPGRADED
    assert upgrade_run(store, "relu-s0-abc") == CURRENT
    assert upgrade_run(store, "tanh-s2-abc") == upgrade_run(store, "gone-s0-abc") == UNFINISHED
    assert store.verify("relu-s0-abc") == [] and same(load_run_summaries(store, [])) == expected


def test_an_upgrade_leaves_changed_runs_as_they_are(store: Store, initbench: Callable[..., Any]) -> None:
    as_before(store)
    in_place(store.root / "relu-s0-abc" / "metrics.jsonl", ": 1.0", ": 2.0")
    done = initbench("upgrade", "--runs-dir", store.root)
    assert (done.code, done.out) == (3, "3 runs upgraded, 2 unfinished\n")
    assert "relu-s0-abc: metrics.jsonl has changed since the run was stored" in done.err
    assert read_summary(store.root / "relu-s0-abc", "relu-s0-abc") is None
    check(store)


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
    """Make the `at`-th system call of an upgrade fail with `code`; without one, kill the process."""
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

    plain = upgrading._install

    def install(*args: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            for name in CALLS:
                inner.setattr(os, name, faulty(name))
            plain(*args)

    patch.setattr(upgrading, "_install", install)
    return patch, count


@pytest.mark.parametrize(
    ("code", "broken"), [(errno.ENOSPC, False), (errno.EROFS, True), (errno.EIO, True), (None, False)]
)
@pytest.mark.parametrize("before", ["none", "damaged"])
def test_an_upgrade_that_fails_anywhere(before: str, code: int | None, broken: bool, store: Store) -> None:
    """On a full, read-only or failing disk, or if killed, the run stays complete and can be upgraded."""
    run_id, expected = "relu-s0-abc", live(store, [])
    if before == "none":
        as_before(store)
    else:
        garbage(store.root / run_id / SUMMARY)
    for at in range(1, 100):
        target = Store(store.root.with_name(f"copy{at}"))
        shutil.copytree(store.root, target.root)
        patch, count = struck(at, code, broken=broken)
        try:
            if code is None:
                status = in_child(partial(upgrade_run, target, run_id))
                ended = os.WIFEXITED(status)
                assert not ended or os.WEXITSTATUS(status) == 0
            else:
                try:
                    upgrade_run(target, run_id)
                except StoreError:
                    assert count[0] >= at
                ended = count[0] < at
        finally:
            patch.undo()
        assert same(load_run_summaries(target, [])) == expected
        assert upgrade_run(target, run_id) in (UPGRADED, CURRENT)
        assert target.verify(run_id) == [] and read_summary(target.root / run_id, run_id) is not None
        target.tidy([run_id])
        assert not list((target.root / run_id).glob(".*.tmp"))
        shutil.rmtree(target.root)
        if ended:
            assert at > 4
            return
    pytest.fail("the writing has no end")


def test_reading_that_takes_long_is_announced_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_before(store)
    load_run_summaries(store, ["tanh"])
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(load_runs, "PATIENCE", 0.0)
    load_run_summaries(store, [])
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("reading 6 runs without a summary: about ")
    assert said.err.count("\n") == 1


def test_compare_loads_no_torch(store: Store) -> None:
    script = (
        "import sys; from initbench.cli.main import run_command; "
        f"code = run_command(['compare', '--json', '--runs-dir', {str(store.root)!r}]); "
        "sys.exit(code or ('torch' in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
