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
    """A store that holds no runs yet, and GitHub's summary beside it."""
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
    "no runs": (nothing, CLEAR, "there are no runs in"),
    "no directory": (removed, CLEAR, "there is no such directory"),
    "no runs, a requirement": (nothing, HOLDS, "there are no runs in"),
    "a pattern without a run": (whole, ["tanh", *CLEAR], "no stored run matches 'tanh'"),
    "a pattern in no directory": (removed, ["tanh", *CLEAR], "no stored run matches 'tanh'"),
    "conditions that no run meets": (whole, ["--where", "model.norm=batch", *CLEAR], "none of 3 runs"),
    "a key that no run has": (whole, ["--where", "model.nrm=batch", *CLEAR], "no stored run has the key"),
    "a row that is nowhere": (whole, ["--fail-if", "tanh.test_accuracy < 0"], "unknown row 'tanh'"),
    "a layer that is nowhere": (whole, ["--fail-if", "layer[5].std@init < 0"], "there is no layer 5"),
    "a metric without a value": (whole, ["--fail-if", "pretrain_seconds > 9"], "no run has it"),
    "no other row": (whole, ["--fail-if", "test_accuracy < relu.test_accuracy"], "there is no other row"),
    "no gate at all": (whole, [], "no gate was given"),
    "all runs diverged": (ended("diverged"), CLEAR, "3 of 3 diverged"),
    "all runs failed": (ended("failed"), CLEAR, "3 of 3 runs of relu did not finish"),
    "all runs interrupted": (ended("interrupted"), CLEAR, "3 of 3 runs of relu did not finish"),
    "all runs crashed": (crashed, CLEAR, "3 of 3 runs of relu did not finish"),
    "all runs damaged": (all_damaged, CLEAR, "there are no runs to judge"),
    "a run that did not finish": (one_unfinished, CLEAR, "1 of 3 runs of relu did not finish: relu-s2"),
    "a seed that is not stored": (two_of_three_seeds, CLEAR, "1 of 3 seeds of relu are not stored: 2"),
    "one seed": (lambda runs: put(runs, "relu", range(1), seeds=1), CLEAR, "one run has no interval"),
    "a renamed run": (one_renamed, CLEAR, "best holds the run relu-s0"),
    "nested runs": (all_nested, CLEAR, "2024 holds 3 runs"),
    "before. without an earlier state": (whole, BEFORE, "before. needs an earlier state"),
    "no row in both states": (changed_since(name_before="tanh"), [*AGAINST, *BEFORE], "there was no relu"),
    "another budget": (
        changed_since(train={"steps": 40, "batch_size": 8}),
        [*AGAINST, *BEFORE],
        "with another budget before",
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
    assert (reason.split()[0] in written and "not judged" in summary + written) or "undecided" in summary
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
        assert "its config has changed: init.gain: null → 0.3" in said.err


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
