"""`initbench bisect` from two files to the verdict, on nets that train in a blink."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initbench.store.store import Store

GOOD = """\
kind: experiment
name: good
data: {name: digits}
model: {family: mlp, depth: 4, width: 24, activation: relu, norm: batch}
init: {scheme: kaiming_normal}
train: {steps: 60, batch_size: 32, lr: 0.1}
probe: {when: []}
seeds: 4
"""
Command = Callable[..., Any]


@pytest.fixture
def bisect(initbench: Command, tmp_path: Path) -> Command:
    """Call the command on files written from GOOD with replaced text, which is also their names."""

    def run(*arguments: object, sick: dict[str, str], names: tuple[str, str] = ("good", "poor")) -> Any:
        text = GOOD.replace("name: good", "name: poor")
        for old, new in sick.items():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "good.yaml").write_text(GOOD, encoding="utf-8")
        (tmp_path / "poor.yaml").write_text(text, encoding="utf-8")
        files = [tmp_path / f"{name}.yaml" for name in names]
        return initbench("bisect", *files, "--runs-dir", tmp_path / "runs", "--workers", "1", *arguments)

    return run


PAIR = {"relu": "sigmoid", "norm: batch": "norm: none"}


def test_a_pair_of_keys_is_found(bisect: Command, initbench: Command, tmp_path: Path) -> None:
    plan = bisect("--dry-run", sick=PAIR)
    assert plan.code == 0 and "4 points, 16 runs: 0 stored, 16 to train" in plan.out
    assert not (tmp_path / "runs").exists()
    stopped = bisect("--max-time", "0.001s", sick=PAIR)
    assert stopped.code == 0
    assert "The search is not complete: not all runs have been trained" in stopped.out

    said = bisect(sick=PAIR)
    assert said.code == 0, said.err
    assert (
        "model.activation and model.norm make the healthy config sick together, and no part of them does."
        in said.out
    )
    assert "with model.activation=sigmoid and model.norm=none " in said.out
    assert "with model.activation=relu " in said.out and "with model.norm=batch " in said.out
    assert len(Store(tmp_path / "runs").records()) == 16
    assert "good-s0" in said.err and "bisect-good-poor.sigmoid-s0" in said.err

    document = json.loads(bisect("--json", "-q", sick=PAIR).out)
    assert document["schema"] == "initbench.bisect/1" and document["outcome"] == "found"
    assert document["breaking"] == [["model.activation", "model.norm"]]
    assert sorted(document["curing"]) == [["model.activation"], ["model.norm"]]
    assert [point["like"] for point in document["points"]] == ["healthy"] * 3 + ["sick"]
    assert all(point["n"] == 4 and point["p_adjusted"] < 0.05 for point in document["points"])
    assert document["changes"][0] == {
        "key": "model.activation",
        "healthy": {"model.activation": "relu"},
        "sick": {"model.activation": "sigmoid"},
    }
    listed = initbench("ls", "--sweep", "bisect-good-poor", "--runs-dir", tmp_path / "runs")
    assert listed.code == 0 and listed.out.count("finished") == 16

    swapped = bisect(sick=PAIR, names=("poor", "good"))
    assert swapped.code == 2 and "name the healthy config first" in swapped.err


def test_one_key_is_enough_although_a_run_diverges(bisect: Command) -> None:
    said = bisect("--seeds", "3", "train.steps=30", sick={"lr: 0.1": "lr: 1.0e+30", "width: 24": "width: 20"})
    assert said.code == 0 and "train.lr alone makes the difference." in said.out
    assert "3 of 3 diverged" in said.out
    assert "A diverged run counts with its score before the first update." in said.out


def test_configs_without_a_difference_in_results(bisect: Command, tmp_path: Path) -> None:
    sick = {"lr: 0.1": "lr: 0.1, weight_decay: 1.0e-9", "width: 24": "width: 25"}
    said = bisect("--seeds", "3", sick=sick)
    assert said.code == 0 and "No difference is shown between the two configs: healthy " in said.out
    assert len(Store(tmp_path / "runs").records()) == 6, "nothing in between is trained"


@pytest.mark.parametrize(
    ("arguments", "sick", "problem"),
    [
        ((), {}, "good and poor are the same experiment"),
        ((), {"digits": "mnist"}, "different data (data.name=digits and data.name=mnist)"),
        (
            ("--metric", "test_acc"),
            PAIR,
            "--metric: unknown metric 'test_acc'; did you mean 'test_accuracy'?",
        ),
        (("--metric", "steps_to_target"), PAIR, "choose a score or a loss"),
        (("model.depht=3",), PAIR, "did you mean"),
        (("seeds=1",), PAIR, "pass --seeds N"),
        (("--max-time", "soon"), PAIR, "90s, 10m or 2h"),
    ],
)
def test_what_cannot_be_bisected(
    bisect: Command, tmp_path: Path, arguments: tuple[str, ...], sick: dict[str, str], problem: str
) -> None:
    said = bisect(*arguments, sick=sick)
    assert said.code == 2 and problem in said.err
    assert not (tmp_path / "runs").exists()


def test_two_files_are_needed(initbench: Command) -> None:
    said = initbench("bisect", "configs/relu_kaiming.yaml")
    assert said.code == 2 and "name two configs, the healthy one first" in said.err


def test_points_that_cannot_be_built_are_named(initbench: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.replace("norm: batch", "norm: cosine"), encoding="utf-8")
    sick = GOOD.replace("kaiming_normal", "lsuv").replace("norm: batch", "norm: none")
    (tmp_path / "b.yaml").write_text(sick, encoding="utf-8")
    said = initbench("bisect", tmp_path / "a.yaml", tmp_path / "b.yaml", "--dry-run")
    assert said.code == 0 and "3 points, 12 runs" in said.out
    assert "skipped healthy + init.scheme=lsuv: init.scheme: init.scheme=lsuv rescales weights" in said.out
