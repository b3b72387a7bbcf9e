"""Runs whose run.json is gone or cannot be read: listed, found, told, and trained again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from records import FINAL, RECORD, line, snapshot

from initbench.errors import StoreError
from initbench.store.damaged_records import experiment_and_seed
from initbench.store.locks import acquire_lock, structure_lock
from initbench.store.store import Store

BROKEN = "relu-s1-0123456789"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    store = Store(tmp_path / "runs")
    for seed, run_id in enumerate(("relu-s0-0123456789", BROKEN)):
        with store.claim(run_id, {**RECORD, "seed": seed}, "name: relu\n") as run:
            run.append_convergence(line())
            run.append_snapshot(snapshot())
            run.finish({"final": FINAL}, weights=b"w")
    return store


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda path: path.unlink(), "it is missing"),
    "empty": (lambda path: path.write_text(""), "it is empty"),
    "cut": (lambda path: path.write_text('{"x'), "it is not valid JSON: "),
    "half": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "it is not valid JSON: "),
    "bytes": (lambda path: path.write_bytes(b"\xff\xfe"), "it is not valid JSON: "),
    "deep": (lambda path: path.write_text("[" * 10**5), "it is not valid JSON: "),
    "foreign": (lambda path: path.write_text('{"schema": "other"}'), "it is not the record of a run"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_damaged_and_everything_else_is_as_it_was(store: Store, fault: str) -> None:
    spoil, said = FAULTS[fault]
    path = store.root / BROKEN / "run.json"
    spoil(path)
    assert store.status(BROKEN) == "damaged"
    whole, damaged = store.records()
    assert whole["status"] == "finished"
    assert (damaged["run_id"], damaged["experiment"], damaged["seed"]) == (BROKEN, "relu", 1)
    assert damaged["error"].startswith(said)
    assert store.find(["relu"]) == [whole["run_id"], damaged["run_id"]]
    with pytest.raises(StoreError, match=rf"{BROKEN}/run\.json is damaged: {said}"):
        store.read(BROKEN)
    gleaned = store.read_or_mark_damaged(BROKEN)
    assert gleaned is not None and gleaned.record["status"] == "damaged"
    assert gleaned.record["error"].startswith(f"{path} is damaged: {said}")
    with store.claim(BROKEN, RECORD, "name: relu\n") as run:
        run.finish({})
    assert store.status(BROKEN) == "finished", "it is trained again"


@pytest.mark.parametrize("name", ["metrics.jsonl", "layers.jsonl"])
def test_what_is_left_of_a_run_with_a_broken_line(store: Store, name: str) -> None:
    path = store.root / BROKEN / name
    path.write_bytes(b"{" + path.read_bytes()[1:].replace(b'"', b"'"))
    gleaned = store.read_or_mark_damaged(BROKEN)
    assert gleaned is not None and gleaned.record["experiment"] == "relu"
    assert (gleaned.record["status"], gleaned.record["final"]) == ("damaged", None)
    assert gleaned.record["error"].startswith(f"{path} is damaged: ")
    assert gleaned.convergence == gleaned.snapshots == []
    whole = store.read_or_mark_damaged("relu-s0-0123456789")
    assert whole == store.read("relu-s0-0123456789")


def test_a_run_that_is_being_made_is_not_damaged(store: Store) -> None:
    """The process that makes it holds the store's lock, and then the run's, until there is a record."""
    made = store.root / "tanh-s0-0123456789"
    with structure_lock(store.root):
        made.mkdir()
        assert store.status(made.name) is None
        (made / "config.yaml").write_text("")
        (made / ".run.json.1-2.tmp").write_text("")
        assert store.status(made.name) is None
    held = acquire_lock(made / ".lock")
    assert held is not None
    assert store.status(made.name) is None
    held.release()
    assert store.status(made.name) == "damaged", "the process that made it is gone"


def test_an_empty_directory_called_like_a_run_is_damaged(store: Store) -> None:
    (store.root / "tanh-s0-0123456789").mkdir()
    (store.root / "plots").mkdir()
    (store.root / "tanh-s0-notes").mkdir()
    assert store.records()[-1]["run_id"] == "tanh-s0-0123456789"
    assert len(store.records()) == 3


def test_a_directory_of_another_name_is_a_run_by_two_files(store: Store) -> None:
    (store.root / BROKEN).rename(store.root / "copy")
    assert store.status("copy") is None, "its record is that of another run"
    (store.root / "copy" / "run.json").unlink()
    assert store.status("copy") == "damaged"
    for path in list((store.root / "copy").iterdir())[1:]:
        path.unlink()
    assert store.status("copy") is None


def test_a_reader_beside_a_writer_sees_no_damage(store: Store) -> None:
    child = os.fork()
    if child == 0:
        try:
            for seed in range(100):
                with Store(store.root).claim(f"tanh-s{seed}-0123456789", RECORD, "") as run:
                    run.finish({})
                if seed % 2:
                    Store(store.root).remove(run.run_id)
        finally:
            os._exit(0)
    seen: set[str] = set()
    while not os.waitpid(child, os.WNOHANG)[0]:
        seen |= {record["status"] for record in store.records()}
    assert seen <= {"running", "finished"}
    assert len(store.records()) == 52


def test_what_an_id_says() -> None:
    assert experiment_and_seed("a-s1-x-s12-0123456789") == ("a-s1-x", 12)
    assert experiment_and_seed("a-s1-0123") is None
