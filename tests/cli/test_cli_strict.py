"""Under --strict a command that judged nothing, or not all, fails, and says so wherever CI looks."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from initbench.store import sweep_index
from initbench.store.store import Store
from tests.store.records import RECORD

Initbench = Callable[..., Any]
CODE = "0123456789"
CLEAR = ["--fail-if", "test_accuracy < 0.1"]
HOLDS = ["--fail-unless", "test_accuracy > 10 %"]
BEFORE = ["--fail-if", "test_accuracy < before.test_accuracy - 1 %"]
HISTOGRAM = {"edges": [0.0, 1.0, 2.0], "counts": [5, 5], "below": 0, "above": 0, "nan": 0}
LAYER: dict[str, Any] = {
    "index": 1,
    "name": "blocks.0.linear",
    "pre": {"mean": 0.0, "std": 1.0, "q": 1.0},
    "act": {
        "mean": 0.5,
        "std": 0.5,
        "zero_fraction": 0.5,
        "dead_fraction": 0.0,
        "saturated_fraction": None,
        "histogram": HISTOGRAM,
    },
    "grad": {"pre_q": 1.0, "weight_norm": 1.0},
}


def put(
    root: Path,
    name: str,
    stored: range = range(3),
    *,
    ends: str = "finished",
    accuracy: float = 0.9,
    **given: Any,
) -> None:
    """Store runs of an experiment of three seeds."""
    config = {**RECORD["config"], "seeds": 3, "train": {"steps": 20, "batch_size": 8}, **given}
    steps = config["train"]["steps"]
    for seed in stored:
        record = {**RECORD, "experiment": name, "seed": seed, "arm": name + CODE, "config": config}
        with Store(root).claim(f"{name}-s{seed}-{CODE}", record, "") as run:
            run.append_convergence({"step": 0, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5})
            run.append_snapshot({"when": "init", "step": 0, "layers": [LAYER]})
            final = {"val_accuracy": accuracy, "test_accuracy": accuracy * (1 + seed / 90)}
            if ends in ("failed", "interrupted"):
                run.stop(ends, "why")
            elif ends == "diverged":
                run.finish(
                    {"steps": steps, "final": None, "status": ends, "diverged": {"step": 1, "layer": None}}
                )
            else:
                run.finish({"steps": steps, "final": final})


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty store and the file of GitHub's summary."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def whole(runs: Path) -> None:
    put(runs, "relu")


def ended(status: str) -> Callable[[Path], None]:
    return lambda runs: put(runs, "relu", ends=status)


def one_unfinished(runs: Path) -> None:
    put(runs, "relu", range(2))
    put(runs, "relu", range(2, 3), ends="interrupted")


def two_of_three_seeds(runs: Path) -> None:
    put(runs, "relu", range(2))


def all_damaged(runs: Path) -> None:
    whole(runs)
    for file in runs.glob("*/run.json"):
        file.unlink()


def crashed(runs: Path) -> None:
    whole(runs)
    for file in runs.glob("*/manifest.json"):
        file.unlink()


def one_renamed(runs: Path) -> None:
    whole(runs)
    (runs / f"relu-s0-{CODE}").rename(runs / "best")


def all_nested(runs: Path) -> None:
    whole(runs)
    shutil.copytree(runs, runs.parent / "copy")
    shutil.rmtree(runs)
    (runs).mkdir()
    (runs.parent / "copy").rename(runs / "2024")


def nothing(runs: Path) -> None:
    del runs


def removed(runs: Path) -> None:
    runs.rmdir()


def changed_since(name_before: str = "relu", **given: Any) -> Callable[[Path], None]:
    def prepare(runs: Path) -> None:
        put(runs, "relu", **given)
        put(runs.parent / "before", name_before)

    return prepare


def one_more(here: str) -> Callable[[Path], None]:
    def prepare(runs: Path) -> None:
        for root in (runs, runs.parent / "before"):
            put(root, "relu")
        put(runs.parent / here, "tanh")

    return prepare


AGAINST = ["--against", "before"]
WAYS: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "no runs": (nothing, CLEAR, "no runs in"),
    "no directory": (removed, CLEAR, "there is no such directory"),
    "no runs, a requirement": (nothing, HOLDS, "no runs in"),
    "a pattern without a run": (whole, ["tanh", *CLEAR], "no stored run matches 'tanh'"),
    "a pattern in no directory": (removed, ["tanh", *CLEAR], "no stored run matches 'tanh'"),
    "conditions that no run meets": (whole, ["--where", "model.norm=batch", *CLEAR], "none of 3 runs"),
    "a key that no run has": (whole, ["--where", "model.nrm=batch", *CLEAR], "no stored run has the key"),
    "a row that is nowhere": (whole, ["--fail-if", "tanh.test_accuracy < 0"], "unknown row 'tanh'"),
    "a layer that is nowhere": (whole, ["--fail-if", "layer[5].std@init < 0"], "there is no layer 5"),
    "a metric without a value": (whole, ["--fail-if", "pretrain_seconds > 9"], "no run has a value"),
    "no other row": (whole, ["--fail-if", "test_accuracy < relu.test_accuracy"], "there is no other row"),
    "no gate at all": (whole, [], "no gate given"),
    "all runs diverged": (ended("diverged"), CLEAR, "3 of 3 diverged"),
    "all runs failed": (ended("failed"), CLEAR, "3 of 3 runs of relu did not finish"),
    "all runs interrupted": (ended("interrupted"), CLEAR, "3 of 3 runs of relu did not finish"),
    "all runs crashed": (crashed, CLEAR, "3 of 3 runs of relu did not finish"),
    "all runs damaged": (all_damaged, CLEAR, "no runs to evaluate"),
    "a run that did not finish": (one_unfinished, CLEAR, "1 of 3 runs of relu did not finish: relu-s2"),
    "a seed that is not stored": (two_of_three_seeds, CLEAR, "1 of 3 seeds of relu are not stored: 2"),
    "one seed": (
        lambda runs: put(runs, "relu", range(1), seeds=1),
        CLEAR,
        "an interval needs at least two runs",
    ),
    "a renamed run": (one_renamed, CLEAR, "best contains the run relu-s0"),
    "nested runs": (all_nested, CLEAR, "2024 contains 3 runs"),
    "before. without an earlier state": (whole, BEFORE, "before. needs an earlier state"),
    "no row in both states": (
        changed_since(name_before="tanh"),
        [*AGAINST, *BEFORE],
        "the earlier state has no relu",
    ),
    "another budget": (
        changed_since(train={"steps": 40, "batch_size": 8}),
        [*AGAINST, *BEFORE],
        "different data, precision or budget",
    ),
    "a row of today alone": (one_more("runs"), [*AGAINST, *BEFORE], "tanh (digits)"),
    "a row of the past alone": (one_more("before"), [*AGAINST, *BEFORE], "tanh (digits)"),
    "a row of the past alone, no gate": (one_more("before"), AGAINST, "tanh (digits)"),
}


def called(initbench: Initbench, runs: Path, words: list[str], *more: str) -> Any:
    arguments = [str(runs.parent / word) if word == "before" else word for word in words]
    return initbench("compare", *arguments, "--runs-dir", runs, *more)


@pytest.mark.parametrize("way", WAYS)
def test_what_was_not_judged_fails_and_is_named(runs: Path, way: str, initbench: Initbench) -> None:
    prepare, words, reason = WAYS[way]
    prepare(runs)
    junit = runs.parent / "junit.xml"
    said = called(initbench, runs, words, "--strict", "--junit-xml", str(junit))
    assert said.code == 1 and reason in said.err, said.err
    root = ET.parse(junit).getroot()
    assert int(root.get("failures", "0")) > 0
    written = "".join(root.itertext()) + "".join(str(e.get("message")) for e in root.iter())
    summary = (runs.parent / "summary.md").read_text(encoding="utf-8")
    assert (reason.split()[0] in written and "not evaluated" in summary + written) or "undecided" in summary
    for line in said.err.splitlines():
        assert "Traceback" not in line


def test_whole_evidence_passes(runs: Path, initbench: Initbench) -> None:
    for root in (runs, runs.parent / "before"):
        put(root, "relu")
    for words in (CLEAR, HOLDS, [*CLEAR, *HOLDS], [*AGAINST, *CLEAR], AGAINST, ["relu", *HOLDS]):
        assert called(initbench, runs, words, "--strict").code == 0, words
    part = ["--where", "seed=0", "--fail-if", "mean(test_accuracy) < 0.1"]
    assert called(initbench, runs, part, "--strict").code == 0, (
        "the other seeds are stored, and not asked for"
    )


def test_a_changed_config_is_judged_by_name(runs: Path, initbench: Initbench) -> None:
    changed_since(accuracy=0.1, init={"scheme": "kaiming_normal", "gain": 0.3})(runs)
    for strict in ([], ["--strict"]):
        said = called(initbench, runs, [*AGAINST, *BEFORE], *strict)
        assert said.code == 1 and "triggered: " in said.err
        assert "its config changed: init.gain: null → 0.3" in said.err


@pytest.mark.parametrize(
    ("requirement", "code", "words"),
    [
        ("test_accuracy > 10 %", 0, "held: test_accuracy > 10 %"),
        ("test_accuracy > 99 %", 1, "did not hold: test_accuracy > 99 %"),
        ("test_accuracy > 91 %", 1, "undecided: test_accuracy > 91 %"),
        ("test_accuracy > 10 % and divergence_rate < 90 %", 0, "held: "),
        ("not test_accuracy < 10 %", 0, "held: "),
        ("test_accuracy >", 2, "--fail-unless: column 16"),
    ],
)
def test_a_requirement_fails_unless_it_is_shown_to_hold(
    runs: Path, initbench: Initbench, requirement: str, code: int, words: str
) -> None:
    whole(runs)
    said = initbench("compare", "--runs-dir", runs, "--fail-unless", requirement, "--json")
    assert said.code == code and words in said.err
    if code < 2:
        (gate,) = json.loads(said.out)["gates"]
        assert (gate["kind"], gate["gate"], gate["held"]) == ("fail_unless", requirement, gate["held"])
        assert gate["held"].endswith(requirement)
        held = (runs.parent / "summary.md").read_text(encoding="utf-8")
        assert words.split(":")[0] in held


def test_the_summary_says_what_held_in_words(runs: Path, initbench: Initbench) -> None:
    whole(runs)
    initbench("compare", "--runs-dir", runs, *CLEAR)
    summary = (runs.parent / "summary.md").read_text(encoding="utf-8")
    assert "held&#58; test&#95;accuracy &#62;= 0.1" in summary


EXPERIMENT = """\
kind: experiment
name: {name}
seeds: {seeds}
data: {{name: digits}}
model: {{family: mlp, depth: 3, width: 32}}
train: {{steps: 4, batch_size: 32, lr: 0.05}}
probe: {{batch: 16, bins: 4}}
"""
LESSON = """\
kind: lesson
name: tiny
question: Which learns?
source: Someone 2015
base:
  seeds: {seeds}
  data: {{name: digits}}
  model: {{family: mlp, depth: 3, width: 32}}
  train: {{steps: 4, batch_size: 32, lr: 0.05}}
  probe: {{batch: 16, bins: 4}}
arms:
  kaiming: {{init.scheme: kaiming_normal}}
  zeros: {{init.scheme: zeros}}
claims:
  - says: Kaiming has the larger signal
    holds_if: kaiming.layer[1].q@init > zeros.layer[1].q@init
"""
FILES = {"run": EXPERIMENT, "sweep": EXPERIMENT, "lesson": LESSON}
SEEDS = {"run": 2, "sweep": 2, "lesson": 4}
PASSES = ["--fail-if", "mean(final_val_accuracy) < 0"]
HUGE = "init.scheme={name: constant, value: 1.0e+15}"
TRAINING_WAYS: dict[str, tuple[list[str], list[str], str]] = {
    "time": (["run", "sweep"], ["--max-time", "0.001", *PASSES], "not all runs have been trained"),
    "time, no run at all": (["run", "sweep"], ["--max-time", "0.001", *PASSES], "has no stored run"),
    "time, judged otherwise": (["run"], ["--max-time", "0.001", "--fail-on", "diverged"], "no stored run"),
    "limit": (["sweep"], ["--limit", "1", *PASSES], "not all runs have been trained"),
    "no gate": (["run", "sweep"], [], "no gate given"),
    "one seed": (
        ["run", "sweep", "lesson"],
        ["seeds=1", "--fail-if", "final_val_accuracy < 0"],
        "an interval needs at least two runs",
    ),
    "an undecided claim": (["lesson"], ["seeds=1", *PASSES], "the claim of tiny is undecided: Kaiming has"),
    "an undecided claim, no gate": (["lesson"], ["seeds=1"], "the claim of tiny is undecided: Kaiming has"),
    "all runs diverged": (["run", "sweep", "lesson"], [HUGE, *PASSES], "diverged"),
    "a metric without a value": (
        ["run", "sweep", "lesson"],
        ["--fail-if", "pretrain_seconds > 9"],
        "no run has a value",
    ),
}


@pytest.fixture
def train(runs: Path, initbench: Initbench, monkeypatch: pytest.MonkeyPatch) -> Initbench:
    """Call a command that trains on a small file of its kind, with two seeds."""
    monkeypatch.chdir(runs.parent)

    def call(command: str, *words: object) -> Any:
        Path("tiny.yaml").write_text(
            FILES[command].format(name="tiny", seeds=SEEDS[command]), encoding="utf-8"
        )
        return initbench(command, "tiny.yaml", *words, "--workers", "1", "--quiet")

    return call


@pytest.mark.parametrize(
    ("command", "way"), [(command, way) for way, (names, *_) in TRAINING_WAYS.items() for command in names]
)
def test_what_training_left_unjudged_fails_and_is_named(train: Initbench, command: str, way: str) -> None:
    _, words, reason = TRAINING_WAYS[way]
    said = train(command, *words, "--strict", "--junit-xml", "junit.xml", "--json")
    assert said.code == 1 and reason in said.err, said.err
    root = ET.parse("junit.xml").getroot()
    assert int(root.get("failures", "0")) > 0
    written = "".join(root.itertext()) + "".join(str(e.get("message")) for e in root.iter())
    summary = Path("summary.md").read_text(encoding="utf-8")
    assert reason in written and summary.startswith(f"## initbench {command}\n")
    document = json.loads(said.out)
    assert document.get("not_judged") or any(gate["state"] == "undecided" for gate in document["gates"])
    assert train(command, *words).code == 0, "without --strict nothing is shown to be wrong"


@pytest.mark.parametrize("command", FILES)
def test_training_that_is_judged_whole_passes_and_fails_by_its_gates(train: Initbench, command: str) -> None:
    for words, code in (
        ([*PASSES, "--strict", "--junit-xml", "junit.xml"], 0),
        (["--strict", "--fail-on", "diverged"], 0),
        (["--fail-if", "mean(final_val_accuracy) >= 0"], 1),
        (["--fail-unless", "mean(final_val_accuracy) >= 0"], 0),
        (["--fail-unless", "mean(final_val_accuracy) > 1"], 1),
        ([HUGE, "--fail-on", "diverged"], 1),
        (["--fail-if", "nowhere.final_val_accuracy < 1"], 2),
        (["--fail-if", "final_val_accuracy <"], 2),
    ):
        assert train(command, *words).code == code, words
    tests = ET.parse("junit.xml").getroot().iter("testcase")
    names = [case.get("name") for case in tests]
    assert names[-1] == PASSES[1] and len(names) == (9 if command == "lesson" else 3)


def test_a_skipped_experiment_leaves_gates_unjudged(train: Initbench) -> None:
    absent = EXPERIMENT.format(name="absent", seeds=2).replace("name: digits", "name: mnist, fallback: null")
    Path("absent.yaml").write_text(absent, encoding="utf-8")
    said = train("run", "absent.yaml", "--offline", *PASSES, "--strict", "--junit-xml", "junit.xml")
    assert said.code == 3, "the data are missing, which says more than a gate"
    assert "1 of 2 experiments has no stored run: absent" in said.err
    assert "<failure" in Path("junit.xml").read_text(encoding="utf-8")


def swept(runs: Path, *stored: str, seeds: range = range(3)) -> None:
    """Store runs of some experiments of a sweep that lists relu and tanh."""
    for name in stored:
        put(runs, f"nets.{name}", seeds)
    sweep_index.add_points(
        runs,
        "nets",
        {
            name: {
                "experiment": f"nets.{name}",
                "keys": {"model.activation": name},
                "runs": [f"nets.{name}-s{seed}-{CODE}" for seed in range(3)],
                "tuning_runs": [],
                "tuning": None,
            }
            for name in ("relu", "tanh")
        },
    )


LISTED = "1 of 2 experiments of the sweep nets has no stored run: nets.tanh"
SWEPT: dict[str, tuple[list[str], int, int]] = {
    "no gate": (["nets"], 0, 1),
    "a gate on every row": (["nets", *CLEAR], 0, 1),
    "a requirement on every row": (["nets", *HOLDS], 1, 1),
    "a gate on a row that is there": (["nets", "--fail-if", "nets.relu.test_accuracy < 0.1"], 0, 1),
    "not the sweep": (["nets.relu", *CLEAR], 0, 0),
    "by a condition, not the missing one": (["nets", "--where", "model.activation=relu", *CLEAR], 0, 0),
    "by a condition, also the missing one": (["nets", "--where", "model.activation!=gelu", *CLEAR], 0, 1),
}


@pytest.mark.parametrize("way", SWEPT)
def test_experiments_that_a_sweep_lists_are_missed(runs: Path, initbench: Initbench, way: str) -> None:
    swept(runs, "relu")
    words, lenient, strict = SWEPT[way]
    said = called(initbench, runs, words)
    assert said.code == lenient
    is_missed = strict == 1
    assert (LISTED in said.out) is is_missed, "the table says so, with or without --strict"
    said = called(initbench, runs, words, "--strict", "--json")
    assert said.code == strict and (LISTED in said.err) is is_missed
    assert any(LISTED in line for line in json.loads(said.out).get("not_judged", [])) is is_missed


def test_a_whole_sweep_is_not_missed(runs: Path, initbench: Initbench) -> None:
    swept(runs, "relu", "tanh")
    assert called(initbench, runs, ["nets", *CLEAR], "--strict").code == 0
    assert "stored run" not in called(initbench, runs, ["nets"]).out
