"""Runs whose directories are not called as they are: named by every command that would pass them over."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from records import FINAL, RECORD, line, snapshot

from initbench.store.misplaced import describe_misplaced, find_misplaced
from initbench.store.store import Store

RUN_ID = "relu-s0-0123456789"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two seeds of an experiment, and what is no run."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    for seed in range(2):
        record = {**RECORD, "seed": seed}
        with Store(tmp_path / "runs").claim(f"relu-s{seed}-0123456789", record, "name: relu\n") as run:
            run.append_convergence(line())
            run.append_snapshot(snapshot())
            run.finish({"final": FINAL, "steps": 1, "status": "finished"}, b"w")
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "notes" / "README.md").write_text("nothing\n")
    return tmp_path / "runs"


def renamed(runs: Path, name: str) -> None:
    (runs / name).parent.mkdir(exist_ok=True, parents=True)
    (runs / RUN_ID).rename(runs / name)


def copied(runs: Path, name: str) -> None:
    shutil.copytree(runs / RUN_ID, runs / name)


PLACES = [
    "best",
    f"{RUN_ID} (copy)",
    f"{RUN_ID}.bak",
    "relu-s0-abcdef0123",
    f"2024/{RUN_ID}",
    f"a/b/{RUN_ID}",
]


@pytest.mark.parametrize("put", [renamed, copied])
@pytest.mark.parametrize("name", PLACES)
def test_renamed_run_is_named_wherever_it_is(
    runs: Path, name: str, put: Callable[[Path, str], None], initbench: Callable[..., Any]
) -> None:
    assert find_misplaced(runs) == []
    assert initbench("ls", "--verify", "--runs-dir", runs).code == 0
    put(runs, name)
    (run,) = find_misplaced(runs)
    assert (run.directory, run.run_id, run.is_duplicate) == (runs / name, RUN_ID, put is copied)
    (sentence,) = describe_misplaced([run])
    assert RUN_ID in sentence and name.partition("/")[0] in sentence
    listed = initbench("ls", "--runs-dir", runs)
    assert listed.code == 0 and sentence in listed.err
    verified = initbench("ls", "--verify", "--runs-dir", runs)
    assert verified.code == 3 and sentence in verified.err
    for words, code in ((["compare"], 0), (["compare", "relu", "--strict"], 3)):
        compared = initbench(*words, "--runs-dir", runs)
        assert compared.code == code and sentence in compared.err
    assert sentence not in initbench("compare", "relu-s1", "--runs-dir", runs).err


@pytest.mark.parametrize("name", ["best", f"2024/{RUN_ID}"])
def test_a_pattern_that_means_it_says_where_it_is(
    runs: Path, name: str, initbench: Callable[..., Any]
) -> None:
    renamed(runs, name)
    shutil.rmtree(runs / "relu-s1-0123456789")
    for command in ("show", "compare", "rm", "ls"):
        said = initbench(command, "relu", "--runs-dir", runs)
        assert said.code == 2 and name.partition("/")[0] in said.err and RUN_ID in said.err
    assert "No runs in" in initbench("ls", "--runs-dir", runs).err


def test_merge_names_what_it_leaves(runs: Path, tmp_path: Path, initbench: Callable[..., Any]) -> None:
    renamed(runs, "best")
    said = initbench("merge", runs, "--into", tmp_path / "all")
    assert said.code == 0 and "1 run copied" in said.out
    assert f"{runs / 'best'} contains the run {RUN_ID}" in said.err


@pytest.mark.parametrize("name", ["best", RUN_ID])
def test_merge_of_a_run_says_what_to_give(
    runs: Path, name: str, tmp_path: Path, initbench: Callable[..., Any]
) -> None:
    renamed(runs, name)
    said = initbench("merge", runs / name, "--into", tmp_path / "all")
    assert said.code == 2 and f"is the run {RUN_ID}: pass the directory that contains it, {runs}" in said.err
    assert not (tmp_path / "all").exists()


def test_merge_of_nested_runs_says_what_to_give(
    runs: Path, tmp_path: Path, initbench: Callable[..., Any]
) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    runs.rename(outer / "2024")
    said = initbench("merge", outer, "--into", tmp_path / "all")
    assert said.code == 2 and f"{outer} does not contain runs directly: pass {outer / '2024'}" in said.err
    assert initbench("merge", outer / "2024", "--into", tmp_path / "all").code == 0


def test_what_a_name_holds_is_written_as_text(runs: Path) -> None:
    renamed(runs, "\x1b[31m\n::error::")
    (sentence,) = describe_misplaced(find_misplaced(runs))
    assert sentence.isprintable()


def test_links_and_hidden_directories_are_not_searched(runs: Path) -> None:
    (runs / "link").symlink_to(runs / RUN_ID)
    copied(runs, ".hidden")
    os.mkfifo(runs / "notes" / "run.json")
    assert find_misplaced(runs) == []
