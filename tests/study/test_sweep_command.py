"""`initbench sweep` from the file to the verdicts, on nets that train in a blink."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initbench.store import sweep_index
from initbench.store.store import Store

BASE = """\
kind: sweep
name: tiny
base:
  data: {name: digits}
  model: {family: mlp, depth: 3, width: 16}
  train: {steps: 6, batch_size: 32, lr: 0.05}
  probe: {batch: 16, bins: 4}
grid:
  init.scheme: [xavier_normal, kaiming_normal]
  model.depth: [2, 3]
seeds: 2
"""
TUNE = "tune:\n  train.lr: [0.01, 0.05, 0.5]\n"
Run = Callable[..., Any]


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    """Write the sweep with lines behind it; gives its path."""

    def made(more: str = "") -> str:
        path = tmp_path / "tiny.yaml"
        path.write_text(BASE + more, encoding="utf-8")
        return str(path)

    return made


@pytest.fixture
def sweep(initbench: Run, file: Callable[..., str], tmp_path: Path) -> Run:
    """Call the command on the file, with runs in `tmp_path/runs`, and one worker unless told otherwise."""

    def run(*arguments: object, more: str = "", runs: str = "runs") -> Any:
        where = ["--runs-dir", tmp_path / runs, "--workers", "1"]
        return initbench("sweep", file(more), *where, *arguments)

    return run


def document(said: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said.out)
    return found


def test_every_run_is_trained_once_and_compared(sweep: Run, tmp_path: Path):
    said = sweep()
    assert said.code == 0
    records = Store(tmp_path / "runs").records()
    assert len(records) == 8 and {record["status"] for record in records} == {"finished"}
    assert {record["experiment"] for record in records} == {
        f"tiny.{scheme}_depth{depth}" for scheme in ("xavier_normal", "kaiming_normal") for depth in (2, 3)
    }
    assert "digits   4 experiments" in said.out and "kaiming_normal_depth3" in said.out
    assert "8/8 tiny." in said.err and "tiny: 8 finished" in said.err
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("run.json")}
    again = sweep()
    assert again.code == 0 and again.out == said.out
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_dry_run_says_what_there_is_to_do_and_does_nothing(sweep: Run, tmp_path: Path):
    said = sweep("--dry-run")
    assert said.code == 0 and not (tmp_path / "runs").exists()
    assert "4 points, 8 runs: 0 stored, 8 to train in 2 cohorts" in said.out
    assert "with 1 worker, estimated from a few updates" in said.out and "GB of memory" in said.out
    sweep("--limit", "2")
    assert "4 points, 8 runs: 2 stored, 6 to train in 2 cohorts" in sweep("--dry-run").out
    ahead = document(sweep("--dry-run", "--json"))["outlook"]
    assert (ahead["total"], ahead["stored"], ahead["workers"]) == (8, 2, 1)
    assert 0.0 < ahead["seconds"] < 60.0 and 1e8 < ahead["bytes"] < 1e30
    assert ahead["by_earlier"] == 2, "those of depth 2, of which there are runs"
    sweep("model.depth=3", "--limit", "1")
    assert "estimated from earlier runs of similar nets" in sweep("--dry-run").out
    sweep()
    assert sweep("--dry-run").out.endswith("4 points, 8 runs: all stored\n")


def test_limit_stops_and_the_same_command_goes_on(sweep: Run, tmp_path: Path):
    assert "0 stored, 3 to train in 2 cohorts, 5 left for later" in sweep("--limit", "3", "--dry-run").out
    said = sweep("--limit", "3")
    assert said.code == 0 and "5 runs of the sweep are not trained yet" in said.out
    assert len(Store(tmp_path / "runs").records()) == 3
    assert sweep("--limit", "4").code == 0 and len(Store(tmp_path / "runs").records()) == 7
    assert document(sweep("--json"))["unfinished"] == 0


def test_time_that_is_up_stops(sweep: Run, tmp_path: Path):
    assert sweep("--max-time", "0.0001s").code == 0
    assert len(Store(tmp_path / "runs").records()) < 8
    said = sweep("--max-time", "soon")
    assert said.code == 2 and "90s, 10m or 2h" in said.err


def test_no_train_shows_and_judges_what_is_stored(sweep: Run, tmp_path: Path):
    said = sweep("--no-train")
    assert said.code == 1 and "8 runs missing or unfinished: xavier_normal_depth2, " in said.err
    assert not (tmp_path / "runs").exists()
    sweep("model.depth=2")
    said = sweep("--no-train", "--json")
    assert said.code == 1 and document(said)["unfinished"] == 4
    assert "4 runs missing or unfinished: xavier_normal_depth3, kaiming_normal_depth3\n" in said.err
    trained = sweep(more="gates: ['mean(final_val_accuracy) < 0']\n")
    said = sweep("--no-train", more="gates: ['mean(final_val_accuracy) < 0']\n")
    assert said.code == 0 and (said.out, said.err) == (
        trained.out,
        trained.err[trained.err.index("clear: ") :],
    )
    said = sweep("--no-train", "--dry-run")
    assert said.code == 2 and "--no-train cannot be combined with --dry-run" in said.err
    assert sweep("--no-train", "--device", "cuda").code == 1, (
        "what was trained on a GPU can be judged without"
    )


def test_json_has_points_runs_and_their_statuses(sweep: Run, tmp_path: Path):
    found = document(sweep("--json"))
    assert found["schema"] == "initbench.sweep/1" and found["statuses"] == {"finished": 8}
    assert [point["label"] for point in found["points"]][:2] == [
        "xavier_normal_depth2",
        "xavier_normal_depth3",
    ]
    assert found["points"][0]["keys"] == {"init.scheme": "xavier_normal", "model.depth": 2}
    ids = {run["run_id"] for point in found["points"] for run in point["runs"]}
    assert ids == {record["run_id"] for record in Store(tmp_path / "runs").records()}
    assert found["failures"] == [] and found["comparison"]["schema"] == "initbench.compare/1"
    rows = found["comparison"]["tables"][0]["rows"]
    assert {row["key"]["experiment"] for row in rows} == {point["label"] for point in found["points"]}


def test_gates_are_judged_at_the_end(sweep: Run):
    low = "gates: ['mean(xavier_normal_depth2.final_val_accuracy) < 0.99']\n"
    said = sweep(more=low)
    assert said.code == 1 and "triggered: mean(xavier_normal_depth2" in said.err
    clear = "gates: ['mean(xavier_normal_depth2.final_val_accuracy) < 0']\n"
    assert sweep(more=clear).code == 0
    open_ = "gates: ['xavier_normal_depth2.final_val_accuracy < xavier_normal_depth3.final_val_accuracy']\n"
    assert sweep(more=open_).code == 0 and sweep("--strict", more=open_).code in (0, 1)
    said = sweep("model.depth=3", more=low)
    assert said.code == 0 and "not evaluated: the gate names points that were skipped" in said.err
    said = sweep("--shard", "1/2", more=low)
    assert said.code == 0 and "not evaluated: not all runs have been trained" in said.err
    found = document(sweep("--json", more=low))
    assert found["gates"][0]["state"] == "triggered"


def test_a_run_that_fails_is_listed_and_the_others_go_on(
    sweep: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from initbench.runner.workers import task

    draw = task.build_networks

    def fail(config: Any, *rest: Any) -> Any:
        if config.model.depth == 3:
            raise RuntimeError("the disk is made of cheese")
        return draw(config, *rest)

    monkeypatch.setattr(task, "build_networks", fail)
    said = sweep()
    assert said.code == 1
    assert said.err.count("failed: RuntimeError: the disk is made of cheese") == 4
    statuses = [record["status"] for record in Store(tmp_path / "runs").records()]
    assert sorted(statuses) == ["failed"] * 4 + ["finished"] * 4
    assert "Traceback" in next(r["error"] for r in Store(tmp_path / "runs").records() if r.get("error"))
    monkeypatch.setattr(task, "build_networks", draw)
    said = sweep()
    assert said.code == 1, "what failed is not tried again by itself"
    assert said.err.rstrip().endswith("--retry failed retrains them")
    said = sweep("--retry", "failed")
    assert said.code == 0 and document(sweep("--json"))["statuses"] == {"finished": 8}


def test_runs_that_are_trained_anew_are_counted(sweep: Run):
    sweep()
    assert "8 to train in 2 cohorts" in sweep("--rerun", "--dry-run").out
    assert "all stored" in sweep("--retry", "failed", "--dry-run").out
    said = sweep("--rerun")
    assert said.code == 0 and "1/8 tiny." in said.err and "8/8 tiny." in said.err
    assert "runs kept" not in said.err
    said = sweep("--rerun", "--limit", "3")
    assert said.code == 0 and "tiny: 5 runs kept" in said.err


def test_fail_fast_stops_at_the_first(sweep: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from initbench.runner.workers import task

    monkeypatch.setattr(task, "build_networks", lambda *_: 1 / 0)
    assert sweep("--fail-fast").code == 1
    statuses = [record["status"] for record in Store(tmp_path / "runs").records()]
    assert sorted(statuses) == ["failed"] * 2 + ["interrupted"] * 2, "one of the two experiments in a cohort"


def test_time_that_is_up_in_a_training_interrupts_it(sweep: Run, tmp_path: Path):
    said = sweep("--max-time", "0.5s", "train.steps=100000", "model.depth=2", "init.scheme=lsuv", "seeds=1")
    assert said.code == 0 and "1 run of the sweep is not trained yet" in said.out + said.err
    (record,) = Store(tmp_path / "runs").records()
    assert record["status"] == "interrupted"


def test_a_divergence_is_a_result_unless_it_is_to_fail(sweep: Run):
    said = sweep("train.lr=1e30", "model.depth=3", "init.scheme=xavier_normal")
    assert said.code == 0
    said = sweep("train.lr=1e30", "model.depth=3", "init.scheme=xavier_normal", "--fail-on", "diverged")
    assert said.code == 1 and "2 runs diverged" in said.err


def test_a_point_that_cannot_be_built_stops_everything_or_is_left_out(sweep: Run, tmp_path: Path):
    said = sweep("model.depth=2,0")
    assert said.code == 2 and "model.depth" in said.err and "_depth0" in said.err
    assert not (tmp_path / "runs").exists()
    said = sweep("model.depth=2,0", "--skip-invalid")
    assert said.code == 0 and "skipped xavier_normal_depth0: override model.depth=2,0" in said.err
    assert len(Store(tmp_path / "runs").records()) == 4


def test_tuning_takes_fresh_seeds_and_is_told_with_its_cost(sweep: Run, initbench: Run, tmp_path: Path):
    found = document(sweep("--json", "model.depth=2", more=TUNE))
    records = {record["run_id"]: record for record in Store(tmp_path / "runs").records()}
    assert found["statuses"] == {"finished": 2 * (3 * 2 + 2)}
    for point in found["points"]:
        seeds = {records[run["run_id"]]["seed"] for run in point["runs"]}
        tuned = {records[run["run_id"]]["seed"] for run in point["tuning_runs"]}
        assert seeds == {0, 1} and tuned == {2, 3}
        best = point["tuning"]["best"]
        assert {records[run["run_id"]]["config"]["train"]["lr"] for run in point["runs"]} == {best}
        tried = {one["value"]: one["score"] for one in point["tuning"]["tried"]}
        assert list(tried) == [0.01, 0.05, 0.5] and tried[best] == max(tried.values())
        assert point["tuning"]["runs"] == 6 and point["tuning"]["seconds"] > 0.0
    said = sweep("model.depth=2", more=TUNE)
    assert "best train.lr" in said.out and "decades" in said.out
    assert "tune" not in said.out.split("arm")[0], "no row includes the tuning runs"


def test_compare_marks_an_arm_at_the_edge_of_its_range(sweep: Run, initbench: Run, tmp_path: Path):
    tune = "tune:\n  train.lr: [1.0e-9, 1.0e-8, 0.1]\n"
    sweep("model.depth=2", "init.scheme=xavier_normal", "train.steps=40", more=tune)
    said = initbench("compare", "--runs-dir", tmp_path / "runs", "tiny.xavier_normal_depth2")
    assert "its best train.lr, 0.1, lies at the high end of the 3 values tried, 1e-09 to 0.1" in " ".join(
        said.out.split()
    )
    tune = "tune:\n  train.lr: [1.0e-9, 0.1, 1.0e+12]\n"
    sweep("model.depth=3", "init.scheme=xavier_normal", "train.steps=40", more=tune)
    said = initbench("compare", "--runs-dir", tmp_path / "runs", "tiny.xavier_normal_depth3")
    assert said.code == 0 and "lies at" not in said.out


def test_ls_knows_the_runs_of_a_sweep(sweep: Run, initbench: Run, file: Callable[..., str], tmp_path: Path):
    sweep("model.depth=2", more=TUNE)
    sweep("model.depth=3", "name=other")
    found = json.loads(initbench("ls", "--sweep", "tiny", "--json", "--runs-dir", tmp_path / "runs").out)
    known = sweep_index.run_ids_of(sweep_index.read_points(tmp_path / "runs", "tiny"))
    assert {run["run_id"] for run in found["runs"]} == known and len(known) == 16
    said = initbench("ls", "--sweep", "tinny", "--runs-dir", tmp_path / "runs")
    assert said.code == 2 and "did you mean 'tiny'" in said.err


def test_shards_merged_are_the_sweep(sweep: Run, initbench: Run, tmp_path: Path):
    for i in (1, 2, 3):
        assert sweep("--shard", f"{i}/3", runs=f"shard{i}").code == 0
    merged = initbench("merge", *(tmp_path / f"shard{i}" for i in (1, 2, 3)), "--into", tmp_path / "runs")
    assert merged.code == 0 and merged.out.startswith("8 runs copied to ")
    assert sweep("--dry-run").out.endswith("4 points, 8 runs: all stored\n")
    whole = document(sweep("--json", runs="whole"))
    again = document(sweep("--json"))
    names = ("points", "statuses")
    assert {name: whole[name] for name in names} == {name: again[name] for name in names}
    assert sweep_index.read_points(tmp_path / "runs", "tiny") == sweep_index.read_points(
        tmp_path / "whole", "tiny"
    )


def test_an_experiment_is_swept_with_axes_of_the_command_line(initbench: Run, tmp_path: Path):
    path = tmp_path / "one.yaml"
    path.write_text("name: one\ndata: {name: digits}\nmodel: {family: mlp, depth: 2, width: 8}\n")
    quick = ["train.steps=3", "probe.batch=16", "--runs-dir", tmp_path / "runs", "--workers", "1"]
    said = initbench("sweep", path, "model.activation=tanh,relu", "seeds=2", *quick)
    assert said.code == 0
    names = {record["experiment"] for record in Store(tmp_path / "runs").records()}
    assert names == {"one.tanh", "one.relu"}
    printed = initbench("sweep", path, "model.activation=tanh,relu", "--print-config", *quick).out
    assert printed.count("kind: experiment") == 2 and "name: one.tanh" in printed
    said = initbench("sweep", path, path, *quick)
    assert said.code == 2 and "name one file" in said.err


def test_a_point_may_start_from_the_runs_of_another(initbench: Run, tmp_path: Path):
    path = tmp_path / "moved.yaml"
    grid = "  init.scheme: [xavier_normal, {name: pretrained, from: moved.xavier_normal}]\n"
    text = BASE.replace("name: tiny\n", "name: moved\n")
    start, end = text.index("grid:"), text.index("seeds:")
    path.write_text(text[:start] + "grid:\n" + grid + text[end:], encoding="utf-8")
    said = initbench("sweep", path, "--runs-dir", tmp_path / "runs", "--workers", "1", "--json")
    assert said.code == 0, said.err
    found = document(said)
    assert found["statuses"] == {"finished": 4} and found["unfinished"] == 0
    sources = {record["run_id"]: record["transfer"] for record in Store(tmp_path / "runs").records()}
    first, second = ([run["run_id"] for run in point["runs"]] for point in found["points"])
    assert [sources[run_id]["source"] for run_id in second] == first
    assert sweep_index.run_ids_of(sweep_index.read_points(tmp_path / "runs", "moved")) == {*first, *second}
    again = initbench("sweep", path, "--runs-dir", tmp_path / "runs", "--dry-run")
    assert again.out.endswith("2 points, 4 runs: all stored\n")


CLEAR = "gates: ['mean(xavier_normal_depth2.final_val_accuracy) < 0']\n"
NOT_JUDGED: dict[str, tuple[list[str], str, str]] = {
    "limit": (["--limit", "1"], CLEAR, "not all runs have been trained"),
    "time": (["--max-time", "0.001"], CLEAR, "not all runs have been trained"),
    "shard": (["--shard", "1/2"], CLEAR, "not all runs have been trained"),
    "axes": (["model.depth=3"], CLEAR, "the gate names points that were skipped"),
    "no gate": ([], "", "no gate given"),
}


@pytest.mark.parametrize("way", NOT_JUDGED)
def test_gates_that_were_not_judged_fail_under_strict(
    sweep: Run, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    words, gates, reason = NOT_JUDGED[way]
    junit = tmp_path / "junit.xml"
    assert sweep(*words, more=gates).code == 0
    said = sweep(*words, "--strict", "--junit-xml", str(junit), more=gates)
    assert said.code == 1 and reason in said.err
    assert reason in junit.read_text(encoding="utf-8") and "<failure" in junit.read_text(encoding="utf-8")
    assert reason in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_whole_evidence_passes_under_strict(sweep: Run, tmp_path: Path):
    junit = tmp_path / "junit.xml"
    assert sweep("--strict", "--junit-xml", str(junit), more=CLEAR).code == 0
    assert sweep("--strict", "--fail-on", "diverged").code == 0
    names = re.findall(r'<testcase classname="([^"]*)" name="([^"]*)"', junit.read_text(encoding="utf-8"))
    assert ("initbench.runs.tiny_xavier_normal_depth2", "tiny.xavier_normal_depth2-s0") in names
    assert len(names) == 9
    unless = "xavier_normal_depth2.final_val_accuracy"
    assert sweep("--fail-unless", f"mean({unless}) > 1 %").code == 0
    assert sweep("--fail-unless", f"mean({unless}) > 99.9 %").code == 1
    assert sweep("--fail-if", f"mean({unless}) > 1 %").code == 1
    said = sweep("--fail-if", "nowhere.final_val_accuracy < 1")
    assert said.code == 2 and "unknown row 'nowhere'" in said.err
