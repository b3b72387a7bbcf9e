"""The store as one process sees it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from records import FINAL, RECORD, line, snapshot

from initbench.errors import InitbenchError, StoreError, Terminated, UsageError
from initbench.store.store import Store

CONFIG = "name: relu\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def put(store: Store, run_id: str, experiment: str = "relu", **updates: object) -> None:
    with store.claim(run_id, {**RECORD, "experiment": experiment}, CONFIG) as run:
        run.finish(updates)


def test_a_finished_run_is_read_back(store: Store) -> None:
    with store.claim("a", {**RECORD, "seed": 3, "status": "ignored"}, CONFIG) as run:
        assert run.directory == store.root / "a"
        run.append_convergence(line(train_loss=float("nan")))
        run.append_snapshot(snapshot())
        run.finish({"final": {**FINAL, "val_loss": float("inf")}}, weights=b"w")
    stored = store.read("a")
    assert stored.convergence == [line(train_loss="NaN")]
    assert stored.snapshots == [snapshot()]
    assert stored.record == {
        "schema": "initbench.stored/1",
        "run_id": "a",
        "status": "finished",
        "created": stored.record["created"],
        "finished": stored.record["finished"],
        "host": os.uname().nodename,
        "pid": os.getpid(),
        **RECORD,
        "seed": 3,
        "final": {**FINAL, "val_loss": "Infinity"},
    }
    assert abs((datetime.now(UTC) - datetime.fromisoformat(stored.record["created"])).total_seconds()) < 60
    assert (store.root / "a" / "config.yaml").read_text() == CONFIG
    manifest = json.loads((store.root / "a" / "manifest.json").read_text())
    assert manifest["schema"] == "initbench.manifest/1"
    assert manifest["files"]["weights.safetensors"]["bytes"] == 1
    assert len(manifest["files"]) == 6
    assert store.verify("a") == []


def test_a_diverged_run_is_complete_and_may_have_no_weights(store: Store) -> None:
    put(store, "a", status="diverged")
    assert store.status("a") == "diverged"
    assert store.verify("a") == []
    with pytest.raises(StoreError, match="already finished"):
        store.claim("a", RECORD, CONFIG)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (Terminated(), "interrupted"),
        (RuntimeError("no luck"), "failed"),
    ],
)
def test_an_exception_marks_the_run_and_goes_on(store: Store, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), store.claim("a", RECORD, CONFIG) as run:
        run.append_convergence(line(0))
        raise error
    assert store.status("a") == status
    assert len(store.read("a").convergence) == 1
    assert ("RuntimeError: no luck" in store.read("a").record.get("error", "")) == (status == "failed")
    assert store.verify("a") == ["manifest.json is missing: the run is not complete"]
    put(store, "a")  # its place is free
    assert store.read("a").convergence == []


def test_a_cohort_of_writers_is_marked_together(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), ExitStack() as stack:
        runs = [
            stack.enter_context(store.claim(f"r{seed}", {**RECORD, "seed": seed}, CONFIG))
            for seed in range(3)
        ]
        runs[0].finish({})
        runs[1].stop("failed", "its own fault")
        raise KeyboardInterrupt
    assert [record["status"] for record in store.records()] == ["finished", "failed", "interrupted"]
    assert store.read("r1").record["error"] == "its own fault"


def test_a_writer_that_gives_no_result_failed(store: Store) -> None:
    with store.claim("a", RECORD, CONFIG):
        pass
    assert store.status("a") == "failed"


def test_a_closed_writer_and_a_wrong_ending_are_refused(store: Store) -> None:
    with store.claim("a", RECORD, CONFIG) as run:
        with pytest.raises(ValueError, match="finishes as"):
            run.finish({"status": "running"})
        with pytest.raises(ValueError, match="stops as"):
            run.stop("finished")
        run.finish({})
        with pytest.raises(InitbenchError, match="closed"):
            run.append_convergence(line())
        with pytest.raises(InitbenchError, match="closed"):
            run.stop("failed")
    assert store.status("a") == "finished"


def test_a_rerun_leaves_the_old_run_in_place_until_it_is_finished(store: Store) -> None:
    put(store, "a", answer=1)
    with store.claim("a", RECORD, CONFIG, rerun=True) as run:
        run.append_convergence(line(0))
        assert store.read("a").record["answer"] == 1
        assert store.status("a") == "finished"
        with pytest.raises(StoreError, match="running"):
            store.remove("a")
        Store(store.root).recover()
        run.finish({"answer": 2})
        assert run.directory == store.root / "a"
    assert store.read("a").record["answer"] == 2
    with pytest.raises(KeyError), store.claim("a", RECORD, CONFIG, rerun=True):
        raise KeyError
    assert store.read("a").record["answer"] == 2
    assert store.verify("a") == []
    Store(store.root).recover()
    assert {path.name for path in store.root.iterdir()} == {"a", ".store.lock"}


def test_what_is_not_a_run_is_ignored_and_kept(store: Store) -> None:
    put(store, "a")
    (store.root / "README.md").write_text("x")
    (store.root / "notes").mkdir()
    (store.root / "notes" / "todo.txt").write_text("x")
    (store.root / ".notes.old").mkdir()
    (store.root / ".notes.old" / "todo.txt").write_text("x")
    (store.root / "half").mkdir()
    (store.root / "half" / "run.json").write_text('{"schema": "initbench.st')
    (store.root / "copy").mkdir()
    (store.root / "copy" / "run.json").write_bytes((store.root / "a" / "run.json").read_bytes())
    assert [record["run_id"] for record in store.records()] == ["a"]
    assert store.status("notes") is None
    with pytest.raises(StoreError, match="is not a run"):
        store.claim("notes", RECORD, CONFIG)
    Store(store.root).recover()
    assert (store.root / "notes" / "todo.txt").exists()
    assert (store.root / ".notes.old" / "todo.txt").exists()
    put(store, "half")
    assert store.status("half") == "finished"


def test_complete_without_manifest_is_crashed(store: Store) -> None:
    put(store, "a")
    (store.root / "a" / "manifest.json").unlink()
    assert store.status("a") == "crashed"


def test_verify_tells_every_difference(store: Store) -> None:
    with store.claim("a", RECORD, CONFIG) as run:
        run.append_convergence(line())
        run.finish({}, weights=b"weights")
    (store.root / "a" / "config.yaml").unlink()
    (store.root / "a" / "metrics.jsonl").write_text("")
    (store.root / "a" / "weights.safetensors").write_bytes(b"Weights")
    assert store.verify("a") == [
        "config.yaml is missing",
        "metrics.jsonl has 0 bytes, expected 69",
        "weights.safetensors has changed since the run was stored",
    ]
    (store.root / "a" / "manifest.json").write_text("[]")
    assert store.verify("a") == ["manifest.json is damaged"]


def test_find(store: Store) -> None:
    for run_id, experiment in {
        "relu-s0-aa": "relu",
        "relu-s1-bb": "relu",
        "relu_x-s0-cc": "relu_x",
        "tanh-s0-dd": "tanh",
        "[odd]-s0-ee": "[odd]",
    }.items():
        put(store, run_id, experiment)
    every = [record["run_id"] for record in store.records()]
    assert store.find([]) == every
    assert store.find(["relu"]) == ["relu-s0-aa", "relu-s1-bb"]
    assert store.find(["tanh-s0-dd", "relu-s0-aa"]) == ["relu-s0-aa", "tanh-s0-dd"]
    assert store.find(["relu-s1", "relu-s1-bb"]) == ["relu-s1-bb"]
    assert store.find(["relu*"]) == ["relu-s0-aa", "relu-s1-bb", "relu_x-s0-cc"]
    assert store.find(["*-s0-*", "*"]) == every
    assert store.find(["[odd]"]) == ["[odd]-s0-ee"]
    with pytest.raises(UsageError, match=r"ambiguous; 2 run ids begin with it: relu-s0-aa, relu-s1-bb$"):
        store.find(["relu-"])
    with pytest.raises(UsageError, match="did you mean 'tanh'"):
        store.find(["relu", "tahn"])
    with pytest.raises(UsageError, match="initbench ls"):
        store.find(["zzzzzz"])
    with pytest.raises(UsageError, match="contains no runs"):
        Store(store.root / "none").find(["relu"])


@pytest.mark.parametrize("run_id", ["", ".", "..", ".a", "a/b", "/a", "a/", "a\0"])
def test_an_id_is_a_plain_name(store: Store, run_id: str) -> None:
    for act in (store.remove, store.read, lambda name: store.claim(name, RECORD, CONFIG)):
        with pytest.raises(UsageError, match="is not a valid run id"):
            act(run_id)


def test_a_run_that_is_not_there(store: Store) -> None:
    assert store.records() == []
    assert store.status("a") is None
    for act in (store.read, store.remove, store.verify):
        with pytest.raises(UsageError, match="no stored run 'a'"):
            act("a")
    assert not store.root.exists()


def test_remove(store: Store) -> None:
    put(store, "a")
    put(store, "b")
    store.remove("a")
    assert store.find([]) == ["b"]
    assert {path.name for path in store.root.iterdir()} == {"b", ".store.lock"}


def test_a_root_that_cannot_be_used_is_one_plain_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"^cannot write run a to .*/file: File exists"):
        Store(tmp_path / "file").claim("a", RECORD, CONFIG)
    with pytest.raises(StoreError, match=r"^cannot read the runs in .*/file: Not a directory"):
        Store(tmp_path / "file").records()

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        pytest.raises(StoreError, match="No space left on device"),
        Store(tmp_path).claim("a", RECORD, CONFIG) as run,
    ):
        monkeypatch.setattr(os, "write", full)
        run.append_convergence(line())
    monkeypatch.undo()
    assert Store(tmp_path).status("a") == "crashed"


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [("initbench.store.store", "torch pydantic numpy rich"), ("initbench.cli.ls", "torch numpy lark")],
)
def test_the_store_and_the_list_of_runs_load_nothing_heavy(modules: str, heavy: str) -> None:
    code = (
        f"import sys, initbench.store.store, {modules}\n"
        "initbench.store.store.Store(__import__('pathlib').Path('/nonexistent')).records()\n"
        f"print({{name.partition('.')[0] for name in sys.modules}} & set({heavy!r}.split()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_records_read_one_file_a_run(store: Store) -> None:
    put(store, "a")
    for number in range(200):
        directory = store.root / f"b{number}"
        directory.mkdir()
        record = {"schema": "initbench.stored/1", "run_id": directory.name, **RECORD, "status": "interrupted"}
        (directory / "run.json").write_text(json.dumps(record))
        (directory / "metrics.jsonl").mkdir()  # reading it would raise
    assert len(store.records()) == 201
