"""`initbench sweep --until`: more seeds until a condition is decided, on nets that train in a blink."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initbench.store import sweep_index
from initbench.store.store import Store

EXPERIMENT = """\
kind: experiment
name: small
data: {name: digits}
model: {family: mlp, depth: 2, width: 16}
train: {steps: 30, batch_size: 32, lr: 0.2}
probe: {when: []}
seeds: [7, 3, 5]
"""
AXES = "init.scheme=kaiming_normal,xavier_normal,normal"
BETTER = "kaiming_normal.test_accuracy > normal.test_accuracy"
CLOSE = "kaiming_normal.test_accuracy > xavier_normal.test_accuracy + 2 %"
Run = Callable[..., Any]


@pytest.fixture
def sweep(initbench: Run, tmp_path: Path) -> Run:
    """Call the command on the experiment and three schemes, in this process."""
    file = tmp_path / "small.yaml"
    file.write_text(EXPERIMENT, encoding="utf-8")

    def run(*arguments: object, axes: str = AXES) -> Any:
        where = ["--runs-dir", tmp_path / "runs", "--workers", "1"]
        return initbench("sweep", file, axes, *where, *arguments)

    return run


def seeds(folder: Path, experiment: str) -> list[int]:
    records = Store(folder / "runs").records()
    return sorted(record["seed"] for record in records if record["experiment"] == f"small.{experiment}")


def until(said: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(said.out)["until"]
    return document


def test_rows_of_the_condition_get_seeds_until_it_is_decided(sweep: Run, tmp_path: Path) -> None:
    said = sweep("--until", BETTER)
    assert said.code == 0, said.err
    assert f"until {BETTER}: true after " in said.out and "Only the interval of --until holds." in said.out
    assert "always-valid t, pairs): the whole interval is > 0" in said.out
    trained = seeds(tmp_path, "kaiming_normal")
    assert trained == seeds(tmp_path, "normal") and len(trained) > 3
    assert trained == [3, 5, 7, *range(8, 8 + len(trained) - 3)], "later seeds follow the largest one"
    assert seeds(tmp_path, "xavier_normal") == [3, 5, 7]
    assert f"undecided: {BETTER.replace('>', '−')}" in said.err and "training 5 seeds of" in said.err
    points = sweep_index.read_points(tmp_path / "runs", "small")
    assert len(points["normal"]["runs"]) == len(trained)


def test_the_same_command_reads_the_stored_seeds_and_decides_the_same(sweep: Run, tmp_path: Path) -> None:
    first = until(sweep("--until", BETTER, "--json"))
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("run.json")}
    assert until(sweep("--until", BETTER, "--json")) == first
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("run.json")}
    assert first["verdict"] == "true" and first["seeds"] == len(seeds(tmp_path, "normal"))
    count = len(Store(tmp_path / "runs").records())
    again = sweep("--until", BETTER, "--rerun")
    assert f"{count}/{count} small." in again.err and f"small: {count} finished" in again.err
    (part,) = first["cases"][0]["comparisons"]
    assert part["ci"][0] > 0.0 and part["n"] == [first["seeds"]] and part["confidence"] == 0.95


def test_an_interrupted_round_decides_nothing_and_goes_on(sweep: Run, tmp_path: Path) -> None:
    said = sweep("--until", BETTER, "--limit", "11", "--strict")
    assert said.code == 1 and "until is undecided" in said.err
    assert "not all runs of this round have been trained; run the same command again" in said.out
    assert len(Store(tmp_path / "runs").records()) == 11
    stopped = until(sweep("--until", BETTER, "--json", "--strict", "--max-seeds", "12"))
    assert stopped["verdict"] == "true"
    assert seeds(tmp_path, "normal") == seeds(tmp_path, "kaiming_normal")


def test_a_close_race_ends_undecided_at_the_maximum(sweep: Run, tmp_path: Path) -> None:
    said = sweep("--until", CLOSE, "--max-seeds", "6")
    assert said.code == 0 and "undecided after 6 seeds, the maximum" in said.out
    assert len(seeds(tmp_path, "xavier_normal")) == 6 and len(seeds(tmp_path, "normal")) == 3
    assert sweep("--until", CLOSE, "--max-seeds", "6", "--strict").code == 1


def test_without_a_row_name_each_row_is_decided_by_itself(sweep: Run, tmp_path: Path) -> None:
    found = until(sweep("--until", "test_accuracy > 60 %", "--json", "--max-seeds", "16"))
    verdicts = {case["row"]: case["verdict"] for case in found["cases"]}
    assert verdicts["normal"] == "false" and found["verdict"] == "false"
    assert found["comparisons"] == 3
    (part,) = found["cases"][0]["comparisons"]
    assert part["confidence"] == pytest.approx(1.0 - 0.05 / 3)
    counts = {case["row"]: case["comparisons"][0]["n"][0] for case in found["cases"]}
    assert all(counts[row] == len(seeds(tmp_path, row)) for row in counts)


def test_a_sweep_of_one_point_is_named_after_its_experiment(sweep: Run, tmp_path: Path) -> None:
    said = sweep("--until", "small.test_accuracy > 5 %", axes="init.scheme=kaiming_normal")
    assert said.code == 0 and "until small.test_accuracy > 5 %: true after 3 seeds" in said.out
    assert "test_accuracy > 90 %: false" in sweep("--until", "test_accuracy > 90 %", axes="seeds=3").out


def test_gates_are_judged_by_the_same_kind_of_interval(sweep: Run, tmp_path: Path) -> None:
    said = sweep("--until", BETTER, "--fail-unless", BETTER, "--report", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Seeds as needed" in page and "Only the interval of --until holds." in page
    assert said.code == 0 and f"held: {BETTER}" in said.err and "always-valid t, pairs" in said.err


def test_a_dry_run_shows_the_first_round(sweep: Run, tmp_path: Path) -> None:
    said = sweep("--until", BETTER, "--dry-run")
    assert "3 points, 9 runs: 0 stored, 9 to train" in said.out
    assert "--until: these are the runs of the first round; further rounds train up to 40 seeds" in said.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        ("kaiming.test_accuracy > 1", "column 1: unknown row 'kaiming'; did you mean 'kaiming_normal'?"),
        ("normal.test_accuracy >", "column 23: expected a number"),
        ("0.5 < mean(normal.test_accuracy)", "column 7: mean() is a number of the stored runs"),
        ("steps_to_target < 40", "column 1: the target of steps_to_target changes with the runs"),
        ("seconds_to_target < 3", "column 1: seconds_to_target is measured for several runs at once"),
        ("before.normal.test_accuracy > 0", "column 1: before. has no meaning here"),
        ("normal.layer[9].act_std@init > 1", "column 1: there is no layer 9"),
    ],
)
def test_conditions_that_cannot_be_tracked(sweep: Run, tmp_path: Path, condition: str, problem: str) -> None:
    said = sweep("--until", condition)
    assert said.code == 2 and f"--until: {problem}" in said.err and "^" in said.err
    assert not (tmp_path / "runs").exists()


def test_options_that_do_not_fit(sweep: Run, initbench: Run, tmp_path: Path) -> None:
    said = sweep("--until", BETTER, "--shard", "1/2")
    assert said.code == 2 and "cannot be combined with --shard" in said.err
    said = sweep("--max-seeds", "5")
    assert said.code == 2 and "--max-seeds needs --until" in said.err
    said = sweep("--until", BETTER, "--max-seeds", "2")
    assert said.code == 2 and "--max-seeds 2 is less than the 3 seeds of the first round" in said.err
    said = sweep("--until", "small.test_accuracy > test_accuracy", axes="init.scheme=normal")
    assert said.code == 2 and "there is no other row to compare with" in said.err
    tuned = tmp_path / "tuned.yaml"
    tuned.write_text(
        "kind: sweep\nname: tuned\nbase: small.yaml\ngrid: {model.depth: [1, 2]}\n"
        "tune: {train.lr: [0.1, 1.0]}\n"
    )
    said = initbench("sweep", tuned, "--until", "test_accuracy > 0.5", "--runs-dir", tmp_path / "runs")
    assert said.code == 2 and "cannot be combined with tune" in said.err
