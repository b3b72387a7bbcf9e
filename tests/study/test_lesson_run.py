"""A lesson from end to end: its runs, its verdicts, what is printed, and what is not trained twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from initbench.data.dataset import DataSource
from initbench.errors import StoreError
from initbench.runner.pending import RunLimits
from initbench.runner.plan import RunContext
from initbench.store.store import Store
from initbench.study.forecast import forecast_study
from initbench.study.load import load_lessons
from initbench.study.run_study import load_stored_study
from tests.conftest import Said

LESSON = """\
kind: lesson
name: tiny
question: Which learns?
source: Someone 2015
notes: A regime.
base:
  seeds: 3
  data: {name: digits}
  model: {family: mlp, depth: 4, width: 64, bias: false}
  train: {steps: 4, batch_size: 16, lr: 0.05, eval_every: 2}
  probe: {when: [init], batch: 64}
arms:
  kaiming: {init.scheme: kaiming_normal}
  xavier: {init.scheme: xavier_normal}
  batch: {init.scheme: kaiming_normal, train.batch_size: 32}
claims:
  - says: Kaiming keeps more than Xavier
    holds_if: kaiming.slope(q@init) > xavier.slope(q@init) + 0.3
  - says: Xavier keeps more than Kaiming
    source: Nemo 1999
    holds_if: xavier.slope(q@init) > kaiming.slope(q@init)
  - says: Of one batch size and another, the accuracies are alike to a thousandth
    holds_if: kaiming.final_val_accuracy ≈ batch.final_val_accuracy within 0.1 %
  - says: Every arm has a signal
    holds_if: layer[1].q@init > 0.01
  - says: Every arm keeps it
    holds_if: slope(q@init) > -0.3
show:
  - layers: [kaiming]
  - curves: [kaiming, xavier]
  - axes: [layer, none]
"""
VERDICTS = ["supported", "contradicted", "undecided", "supported", "contradicted"]
TUNED = LESSON.replace("seeds: 3", "seeds: 2").replace(
    "claims:", "tune:\n  train.lr: [1.0e-6, 0.1]\n  select: final_train_loss\n  seeds: 1\nclaims:", 1
)
Lesson = Callable[..., Said]


@pytest.fixture
def lesson(initbench: Callable[..., Said], tmp_path: Path) -> Lesson:
    """Run a lesson's text in a store of the test's own."""

    def run(*arguments: object, text: str = LESSON) -> Said:
        (tmp_path / "tiny.yaml").write_text(text, encoding="utf-8")
        return initbench("lesson", *arguments, "--runs-dir", tmp_path / "runs")

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tiny.yaml"


def document(said: Said) -> dict[str, Any]:
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert found["schema"] == "initbench.lesson/1"
    (one,) = found["lessons"]
    return dict(one)


def test_runs_verdicts_and_the_second_time(lesson: Lesson, file: Path, tmp_path: Path):
    said = lesson(file, "--json")
    found = document(said)
    assert [claim["verdict"] for claim in found["claims"]] == VERDICTS
    assert all({"claim", "verdict", "evidence", "n"} <= claim.keys() for claim in found["claims"])
    assert {claim["n"] for claim in found["claims"]} == {3}
    assert [claim["source"] for claim in found["claims"][:2]] == ["Someone 2015", "Nemo 1999"]
    assert found["claims"][4]["evidence"].startswith("xavier: slope(q@init) = −0.")
    assert [arm["experiment"] for arm in found["arms"]] == ["tiny.kaiming", "tiny.xavier", "tiny.batch"]
    assert "tiny.kaiming: training 3 runs, 4 steps each" in said.err
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.json")}
    assert len(list((tmp_path / "runs").glob("tiny.*"))) == 9

    said = lesson(file)
    assert said.code == 0 and "training" not in said.err, "all of it is stored"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.json")} == before
    assert said.out.startswith("tiny   Which learns?\nSomeone 2015\nA regime.\n")
    assert "2 supported, 2 contradicted, 1 undecided" in said.out
    for part in (
        "tiny.kaiming   mlp 4 × 64",
        "validation accuracy, %",
        "layer norm   one statistic",
        "Nemo 1999",
    ):
        assert part in said.out
    assert "none norm   averages over nothing" in said.out

    Store(tmp_path / "runs").remove(found["arms"][1]["runs"][0])
    listed = json.loads(lesson("ls", file, "--json").out)["lessons"][0]
    assert listed["runs"] == {"stored": 8, "missing": 1} and listed["claims"] == 5
    assert "tiny.xavier: training 1 run," in lesson(file, "--json").err


def test_seeds_from_another_one_on_are_runs_of_their_own(lesson: Lesson, file: Path):
    found = document(lesson(file, "--json", "--first-seed", 7, "seeds=2"))
    assert [run.split("-s")[1][0] for run in found["arms"][0]["runs"]] == ["7", "8"]
    assert found["claims"][0]["verdict"] == "supported"


def test_another_data_set_for_all_arms(lesson: Lesson, file: Path):
    text = LESSON.replace("data: {name: digits}", "data: {name: mnist}")
    found = document(lesson(file, "--data", "digits", "--json", "seeds=1", text=text))
    assert found["dataset"] == "digits"
    assert {claim["verdict"] for claim in found["claims"]} == {"undecided"}, "one seed decides nothing"


def test_each_arm_is_tuned_alone_and_runs_on_fresh_seeds(lesson: Lesson, file: Path, tmp_path: Path):
    found = document(lesson(file, "--json", text=TUNED))
    tuning = found["arms"][0]["tuning"]
    low, high = tuning["tried"]
    assert low["score"] > high["score"], "with a rate of 1e-6 nothing is learned: its loss is the higher one"
    assert (tuning["best"], tuning["edge"], tuning["runs"]) == (0.1, "high", 2)
    records = [
        json.loads((tmp_path / "runs" / run / "run.json").read_text()) for run in found["arms"][0]["runs"]
    ]
    assert [(record["seed"], record["config"]["train"]["lr"]) for record in records] == [(0, 0.1), (1, 0.1)]
    tuned = sorted(path.name.split("-")[1] for path in (tmp_path / "runs").glob("tiny.kaiming.tune-*"))
    assert tuned == ["s2", "s2"]
    said = lesson(file, text=TUNED)
    assert "training" not in said.err and "train.lr was tuned for each arm over 2 values" in said.out
    assert json.loads(lesson("ls", file, "--json", text=TUNED).out)["lessons"][0]["runs"] == {
        "stored": 12,
        "missing": 0,
    }


def test_what_cannot_be_asked(lesson: Lesson, file: Path):
    assert "pass --all" in lesson().err and lesson().code == 2
    assert "cannot be combined with names" in lesson(file, "--all").err
    said = lesson("xavier_under_rel")
    assert said.code == 2 and "did you mean 'xavier_under_relu'?" in said.err


def test_data_that_is_not_there(lesson: Lesson, file: Path, tmp_path: Path):
    said = lesson(file, "--data", "mnist", "--offline", "--data-dir", tmp_path / "none")
    assert said.code == 3, said.err
    stock = json.loads(
        lesson("ls", file, "--data", "mnist", "--offline", "--data-dir", tmp_path / "none", "--json").out
    )
    assert stock["lessons"][0]["runs"] == {"stored": 0, "missing": 9}


def test_a_failed_run_is_an_error_and_leaves_claims_undecided(
    lesson: Lesson, file: Path, monkeypatch: pytest.MonkeyPatch
):
    from initbench.runner.workers import base

    train = base.train

    def failing(task: Any, *rest: Any) -> None:
        if any(config.name == "tiny.xavier" for config in task.configs):
            raise RuntimeError("boom")
        train(task, *rest)

    monkeypatch.setattr(base, "train", failing)
    said = lesson(file, "--json", "--workers", 1)
    assert said.code == 1 and "tiny.xavier failed: RuntimeError: boom" in said.err
    (found,) = json.loads(said.out)["lessons"]
    assert [claim["verdict"] for claim in found["claims"]] == ["undecided"] * 5


def test_claims_are_not_judged_without_a_damaged_run(lesson: Lesson, file: Path, tmp_path: Path):
    found = document(lesson(file, "--json", "seeds=1"))
    damaged = tmp_path / "runs" / found["arms"][1]["runs"][0] / "layers.jsonl"
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])  # of the same size, so that it is not retrained
    said = lesson(file, "seeds=1")
    assert said.code == StoreError.exit_code and f"{damaged} is damaged" in said.err


def test_the_time_of_a_lesson_is_estimated_as_that_of_a_sweep(lesson: Lesson, file: Path, tmp_path: Path):
    document(lesson(file, "--json", "seeds=1"))
    source = DataSource(root=tmp_path, offline=True, notify=print)
    context = RunContext(store=Store(tmp_path / "runs"), source=source, device=torch.device("cpu"), workers=1)
    (loaded,) = load_lessons([str(file)])
    outlook = forecast_study(load_stored_study(loaded, context), context, RunLimits())
    assert (outlook.total, outlook.stored, outlook.missing, outlook.by_earlier) == (9, 3, 6, 6)
    assert outlook.seconds > 0.0
