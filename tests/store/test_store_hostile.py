"""An untrusted store: links are not followed, pipes do not block, and large files are not read."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from records import FINAL, RECORD, line, snapshot

from initbench.errors import StoreError
from initbench.store.merging import merge
from initbench.store.store import Store

RUN, OTHER = "relu-s0-0123456789", "relu-s1-0123456789"
FILES = ("run.json", "config.yaml", "metrics.jsonl", "layers.jsonl", "weights.safetensors", "manifest.json")
Place = Callable[[Path], object]
SPECIAL: dict[str, Place] = {
    "a link": lambda path: path.symlink_to("/etc/hostname"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a named pipe": os.mkfifo,
    "a directory": lambda path: path.mkdir(),
}


@pytest.fixture(autouse=True)
def no_sync_and_no_hang(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    signal.alarm(600)
    yield
    signal.alarm(0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "runs")
    for seed, run_id in enumerate((RUN, OTHER)):
        put(store, run_id, seed)
    return store


def put(store: Store, run_id: str, seed: int, *, rerun: bool = False, ending: str | None = None) -> None:
    with store.claim(run_id, {**RECORD, "seed": seed}, "name: relu\n", rerun=rerun) as run:
        run.append_convergence(line())
        run.append_snapshot(snapshot())
        if ending is None:
            run.finish({"final": FINAL}, weights=b"w")
        else:
            run.stop(ending)


def replace(path: Path, place: Place) -> None:
    path.unlink()
    place(path)


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", FILES)
def test_hostile_store_files_are_neither_followed_nor_waited_for(
    store: Store, name: str, kind: str, initbench: Any
) -> None:
    replace(store.root / RUN / name, SPECIAL[kind])
    for command in (["ls"], ["ls", "--verify"], ["compare"], ["show", OTHER], ["ls", "--json"]):
        said = initbench(*command, "--runs-dir", store.root)
        assert said.code in (0, 3), (command, said.err)
        assert OTHER in said.out or command[0] != "ls"
    assert initbench("ls", "--verify", "--runs-dir", store.root).code == 3
    with pytest.raises(StoreError, match=r"not a regular file|is damaged|is missing|cannot be read") as told:
        merge([store.root], store.root.parent / "all")
        raise StoreError(f"{name} is missing")  # damaged runs are skipped
    assert name in str(told.value)
    assert not (store.root.parent / "all" / RUN).exists()
    assert initbench("rm", "-y", RUN, "--runs-dir", store.root).code == 0
    assert not (store.root / RUN).exists()
    put(store, RUN, 0)
    assert store.status(RUN) == "finished"


def test_a_sparse_file_is_refused_by_its_size(store: Store) -> None:
    with (store.root / RUN / "run.json").open("r+b") as file:
        file.truncate(2**40)
    assert store.status(RUN) == "damaged"
    gleaned = store.read_or_mark_damaged(RUN)
    assert gleaned is not None
    assert "it has 1,099,511,627,776 bytes, more than the limit of 16,777,216" in gleaned.record["error"]


@pytest.mark.parametrize("name", ["config.yaml", "layers.jsonl", "metrics.jsonl", "checkpoint.safetensors"])
@pytest.mark.parametrize("kind", SPECIAL)
def test_merge_follows_links_out_of_no_run(store: Store, name: str, kind: str) -> None:
    unfinished = "relu-s2-0123456789"
    put(store, unfinished, 2, ending="interrupted")
    path = store.root / unfinished / name
    path.unlink(missing_ok=True)
    SPECIAL[kind](path)
    with pytest.raises(StoreError, match=rf"{unfinished}: {name} is .*, not a regular file"):
        merge([store.root], store.root.parent / "all")
    assert not (store.root.parent / "all").exists()


def test_merge_refuses_a_run_that_is_a_link_itself(store: Store) -> None:
    (store.root / RUN).rename(store.root.parent / RUN)
    (store.root / RUN).symlink_to(store.root.parent / RUN)
    with pytest.raises(StoreError, match=f"{RUN} is a link, not a directory"):
        merge([store.root], store.root.parent / "all")


def test_rm_removes_a_link_and_not_what_it_points_at(store: Store, tmp_path: Path, initbench: Any) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "kept").write_text("x")
    (store.root / RUN / "to_a_folder").symlink_to(folder)
    (store.root / RUN / "to_a_file").symlink_to(folder / "kept")
    inner = store.root / RUN / "inner"
    inner.mkdir()
    (inner / "to_a_folder").symlink_to(folder)
    assert initbench("rm", "-y", RUN, "--runs-dir", store.root).code == 0
    assert sorted(path.name for path in store.root.iterdir()) == [".store.lock", OTHER]
    assert (folder / "kept").read_text() == "x"


@pytest.mark.parametrize("ending", [None, "interrupted", "failed"])
def test_what_a_user_has_put_into_a_run_outlasts_the_next_attempt(store: Store, ending: str | None) -> None:
    if ending is not None:
        put(store, RUN, 0, rerun=True)
        store.remove(RUN)
        put(store, RUN, 0, ending=ending)
    (store.root / RUN / "notes.txt").write_text("mine")
    (store.root / RUN / "plots").mkdir()
    (store.root / RUN / "plots" / "a.png").write_text("mine")
    put(store, RUN, 0, rerun=True)
    assert (store.root / RUN / "notes.txt").read_text() == "mine"
    assert (store.root / RUN / "plots" / "a.png").read_text() == "mine"
    assert store.verify(RUN) == []
    assert sorted(path.name for path in store.root.iterdir()) == [".store.lock", RUN, OTHER]


def test_verify_and_merge_beside_reruns_see_no_damage(store: Store, initbench: Any) -> None:
    child = os.fork()
    if child == 0:
        try:
            for _ in range(40):
                put(Store(store.root), RUN, 0, rerun=True)
        finally:
            os._exit(0)
    looks = 0
    while not os.waitpid(child, os.WNOHANG)[0]:
        assert store.verify(RUN) == []
        merged = merge([store.root], store.root.parent / f"all{looks}")
        assert sorted(merged.copied) == [RUN, OTHER]
        assert Store(store.root.parent / f"all{looks}").verify(RUN) == []
        looks += 1
    assert looks > 0


def test_a_manifest_cannot_have_files_outside_of_its_run_read(store: Store) -> None:
    path = store.root / RUN / "manifest.json"
    document = json.loads(path.read_text())
    for name in ("../x", "/dev/zero", "/etc/passwd", ".lock"):
        path.write_text(json.dumps({**document, "files": {name: {"bytes": 0, "sha256": "x"}}}))
        assert store.verify(RUN) == ["manifest.json is damaged"]


def test_names_and_texts_do_nothing_to_a_terminal_or_a_log(store: Store, initbench: Any) -> None:
    for name in ("\x1b[31mred-s0-0123456789", "::error::x-s0-0123456789", "a##[error]b-s0-0123456789"):
        (store.root / name).mkdir()
        (store.root / name / "run.json").write_text("{")
    path = store.root / RUN / "run.json"
    record = json.loads(path.read_text())
    path.write_text(
        json.dumps(
            {
                **record,
                "status": "failed",
                "error": "a\n::error::b\n\x1b[2J",
                "dataset": "\x1b[31m",
                "diagnosis": [{"code": "x", "message": "::error::\x07"}],
            }
        )
    )
    commands = (["ls"], ["compare"], ["show", RUN], ["ls", "--verify"], ["rm", "-y", "*"])
    for command in commands:
        said = initbench(*command, "--runs-dir", store.root)
        for text in (said.out, said.err):
            assert "\x1b" not in text
            assert "\x07" not in text
            assert "##[" not in text
            assert not [row for row in text.splitlines() if row.lstrip().startswith("::")]


@pytest.mark.parametrize("key", ["steps", "seed", "config", "final", "created", "timings", "identity"])
def test_one_value_of_a_wrong_type_does_not_end_the_others(store: Store, key: str, initbench: Any) -> None:
    path = store.root / RUN / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: "x" if key != "created" else 7}))
    document = json.loads(initbench("compare", "--json", "--runs-dir", store.root).out)
    assert [row["n"] for table in document["tables"] for row in table["rows"]] == [1]
    said = initbench("compare", "--runs-dir", store.root)
    assert said.code == 0
    assert f"{RUN}: run.json is damaged: {key} is " in said.err + said.out
