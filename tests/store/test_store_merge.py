"""Stores brought together: whole runs, each once, and nothing at all where two results disagree."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from records import FINAL, RECORD, line, snapshot

from initbench.errors import StoreError, UnknownNameError, UsageError
from initbench.store import merging as module
from initbench.store import sweep_index
from initbench.store.merging import merge
from initbench.store.store import Store

CONFIG = "name: relu\n"


def put(
    root: Path, run_id: str, *, accuracy: float = 0.5, weights: bytes = b"w", status: str = "finished"
) -> None:
    """A stored run; `accuracy` and `weights` are its result."""
    with Store(root).claim(run_id, RECORD, CONFIG) as run:
        run.append_convergence(line(val_accuracy=accuracy))
        run.append_snapshot(snapshot())
        if status in ("failed", "interrupted"):
            run.stop(status, "why")
        else:
            run.finish({"final": FINAL, "steps": 1, "status": status, "timings": {"train": id(run)}}, weights)


def ids(root: Path) -> list[str]:
    return sorted(record["run_id"] for record in Store(root).records())


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Two stores that share one run."""
    found = [tmp_path / "one", tmp_path / "two"]
    for i, root in enumerate(found):
        put(root, f"own-s{i}-a")
        put(root, "both-s0-a")
    return found


def test_all_runs_come_together_whole(shards: list[Path], tmp_path: Path):
    into = tmp_path / "all"
    merged = merge(shards, into)
    assert sorted(merged.copied) == ids(into) == ["both-s0-a", "own-s0-a", "own-s1-a"]
    store = Store(into)
    assert all(store.verify(run_id) == [] for run_id in ids(into))
    assert store.read("own-s1-a").convergence == [line()]
    assert not [path for path in into.iterdir() if path.name.startswith(".") and path.is_dir()]


def test_merging_again_changes_nothing(shards: list[Path], tmp_path: Path):
    into = tmp_path / "all"
    merge(shards, into)
    before = {path: path.stat().st_mtime_ns for path in into.rglob("*") if path.is_file()}
    merged = merge(shards, into)
    assert merged.copied == [] and sorted(merged.same) == ids(into)
    after = {path: path.stat().st_mtime_ns for path in into.rglob("*") if path.is_file()}
    assert {p: t for p, t in after.items() if p.name != ".store.lock"} == {
        p: t for p, t in before.items() if p.name != ".store.lock"
    }


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"accuracy": 0.6}, "metrics.jsonl"),
        ({"weights": b"x"}, "weights.safetensors"),
        ({"status": "diverged"}, "run.json: status"),
    ],
)
def test_another_result_of_one_run_is_refused_and_nothing_is_merged(
    tmp_path: Path, other: dict[str, Any], told: str
):
    one, two, into = tmp_path / "one", tmp_path / "two", tmp_path / "all"
    put(one, "r-s0-a")
    put(two, "r-s0-a", **other)
    put(two, "fine-s0-a")
    with pytest.raises(StoreError, match=f"run r-s0-a has two results.*{told}.*\n*nothing was merged"):
        merge([one, two], into)
    assert not into.exists()
    put(into, "r-s0-a")  # the conflict may be with what is there, too
    with pytest.raises(StoreError, match="r-s0-a has two results"):
        merge([two], into)
    assert ids(into) == ["r-s0-a"]


def test_times_may_differ(tmp_path: Path):
    for name in ("one", "two"):
        put(tmp_path / name, "r-s0-a")  # each with timings of its own
    assert merge([tmp_path / "two"], tmp_path / "one").same == ["r-s0-a"]


def test_a_changed_byte_is_found_before_anything_is_written(shards: list[Path], tmp_path: Path):
    (shards[1] / "own-s1-a" / "weights.safetensors").write_bytes(b"v")
    with pytest.raises(StoreError, match=r"weights.safetensors has changed(.|\n)*nothing was merged"):
        merge(shards, tmp_path / "all")
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize("order", [1, -1])
def test_a_result_takes_the_place_of_a_failure_and_never_the_other_way(tmp_path: Path, order: int):
    failed, done, into = tmp_path / "failed", tmp_path / "done", tmp_path / "all"
    put(failed, "r-s0-a", status="failed")
    put(done, "r-s0-a")
    merge([failed, done][::order], into)
    assert Store(into).status("r-s0-a") == "finished"
    merge([failed], into)
    assert Store(into).status("r-s0-a") == "finished"
    merge([done], failed)
    assert Store(failed).status("r-s0-a") == "finished"


def test_a_failure_is_brought_along_and_a_running_run_is_not(tmp_path: Path):
    source, into = tmp_path / "one", tmp_path / "all"
    put(source, "bad-s0-a", status="failed")
    run = Store(source).claim("live-s0-a", RECORD, CONFIG)
    merged = merge([source], into)
    run.stop("interrupted")
    assert merged.copied == ["bad-s0-a"] and merged.left == {"live-s0-a": f"is running in {source}"}
    assert Store(into).read("bad-s0-a").record["error"] == "why"


def in_child(act: Callable[[], object]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("files", range(1, 16))
def test_a_kill_in_the_middle_leaves_whole_runs_and_the_next_call_does_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int
):
    source, into = tmp_path / "one", tmp_path / "all"
    for i in range(2):
        put(source, f"r-s{i}-a")
    made, produce = [0], module.produce_atomic

    def produce_and_die(path: Path, how: Callable[[Path], object]) -> None:
        made[0] += 1
        if made[0] == files:
            os._exit(9)
        produce(path, how)

    with monkeypatch.context() as patch:
        patch.setattr(module, "produce_atomic", produce_and_die)
        in_child(lambda: merge([source], into))
    seen = ids(into) if into.exists() else []
    assert len(seen) == (files - 1) // 7  # seven files a run: the others are not seen at all
    assert all(Store(into).verify(run_id) == [] for run_id in seen)
    merge([source], into)
    assert ids(into) == ["r-s0-a", "r-s1-a"]
    assert not [path for path in into.iterdir() if path.name.endswith((".rerun", ".trash"))]


def test_a_source_has_to_be_another_directory(shards: list[Path], tmp_path: Path):
    with pytest.raises(UsageError, match="is also the target of the merge"):
        merge(shards, shards[0])
    with pytest.raises(UsageError, match="is not a directory of runs"):
        merge([tmp_path / "none"], tmp_path / "all")


def point(*runs: str, tuning: Any = None) -> dict[str, Any]:
    own = {"experiment": "s.p", "keys": {"model.depth": 3}, "runs": list(runs)}
    return {**own, "tuning_runs": [] if tuning is None else ["t"], "tuning": tuning}


def test_sweeps_are_joined(shards: list[Path], tmp_path: Path):
    sweep_index.add_points(shards[0], "s", {"p": point("own-s0-a", "both-s0-a")})
    sweep_index.add_points(
        shards[1], "s", {"p": point("own-s1-a", "both-s0-a"), "q": point(tuning={"best": 1.0})}
    )
    sweep_index.add_points(shards[1], "other", {"p": point("own-s1-a")})
    merged = merge(shards, tmp_path / "all")
    assert merged.sweeps == ["s", "other"]
    found = sweep_index.read_points(tmp_path / "all", "s")
    assert found["p"]["runs"] == ["own-s0-a", "both-s0-a", "own-s1-a"]
    assert sweep_index.run_ids_of(found) == {"own-s0-a", "both-s0-a", "own-s1-a", "t"}
    assert sweep_index.run_ids_of(found, tuning=False) == {"own-s0-a", "both-s0-a", "own-s1-a"}


def test_what_is_known_of_a_sweep_is_only_added_to(tmp_path: Path):
    sweep_index.add_points(tmp_path, "s", {"p": point("a", tuning={"best": 1.0})})
    sweep_index.add_points(tmp_path, "s", {"p": point("b"), "q": point("c")})
    assert sweep_index.read_points(tmp_path, "s") == {
        "p": point("a", "b", tuning={"best": 1.0}),
        "q": point("c"),
    }
    assert sweep_index.sweep_names(tmp_path) == ["s"] and ids(tmp_path) == []


def test_a_sweep_that_is_not_there_or_damaged_is_said_so(tmp_path: Path):
    with pytest.raises(UnknownNameError, match="no sweep has been run"):
        sweep_index.read_points(tmp_path, "s")
    sweep_index.add_points(tmp_path, "depth", {"p": point("a")})
    with pytest.raises(UnknownNameError, match="did you mean 'depth'"):
        sweep_index.read_points(tmp_path, "dept")
    (tmp_path / ".sweeps" / "depth.json").write_text('{"points": {"p": 3}}')
    with pytest.raises(StoreError, match=r"depth.json is damaged; delete it"):
        sweep_index.read_points(tmp_path, "depth")
