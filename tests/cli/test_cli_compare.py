"""`initbench compare` on stores with damaged runs, on selections, and against an earlier state."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from initbench.store.store import Store
from tests.analysis.test_analysis_read import RECORD, snapshot

Initbench = Callable[..., Any]


def put(
    root: Path, name: str, seed: int, code: str = "0123456789", *, test: float = 0.5, depth: int = 4
) -> str:
    """Store a finished run of the experiment `name`."""
    run_id = f"{name}-s{seed}-{code}"
    config = {**RECORD["config"], "model": {**RECORD["config"]["model"], "depth": depth}}
    identity = {**RECORD["identity"], "code": code}
    record = {**RECORD, "experiment": name, "seed": seed, "arm": f"{name} {code}", "config": config}
    with Store(root).claim(run_id, {**record, "identity": identity}, "") as run:
        run.append_convergence({"step": 0, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5})
        run.append_snapshot(snapshot("init", 1.0))
        final = {"val_accuracy": 0.5, "test_accuracy": test + seed / 100}
        run.finish({"steps": 20, "final": final})
    return run_id


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    for name in ("relu", "tanh"):
        for seed in range(3):
            put(tmp_path / "runs", name, seed)
    return tmp_path / "runs"


@pytest.fixture
def before(tmp_path: Path, runs: Path) -> Path:
    """Add the same experiments, trained by other code, and one more."""
    for name in ("relu", "tanh", "gone"):
        for seed in range(3):
            put(tmp_path / "before", name, seed, "abcdef0123", test=0.4 if name == "relu" else 0.5)
    return tmp_path / "before"


def spoil_record(runs: Path) -> None:
    (runs / "relu-s0-0123456789" / "run.json").write_text('{"x')


def spoil_lines(runs: Path) -> None:
    (runs / "relu-s0-0123456789" / "layers.jsonl").write_text("{]\n")


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [(spoil_record, "run.json is damaged: it is not valid JSON"), (spoil_lines, "layers.jsonl is damaged: ")],
)
def test_a_damaged_run_is_named_and_the_others_compared(
    runs: Path, initbench: Initbench, tmp_path: Path, spoil: Callable[[Path], None], fault: str
) -> None:
    spoil(runs)
    junit = tmp_path / "junit.xml"
    result = initbench("compare", "--runs-dir", runs, "--junit-xml", junit, "--columns", "n,unfinished")
    assert result.code == 0
    assert f"damaged: relu-s0-0123456789: {fault}" in result.err
    assert "1 unfinished run is not counted: 1 damaged." in result.out
    assert [line.split() for line in result.out.splitlines() if line.startswith(("relu", "tanh"))] == [
        ["relu", "2", "1"],
        ["tanh", "3", "0"],
    ]
    (case,) = [one for one in ET.parse(junit).iter("testcase") if one.find("error") is not None]
    assert (case.get("name"), case.findtext("system-out")) == ("relu-s0", "relu-s0-0123456789")
    assert initbench("compare", "--runs-dir", runs, "--strict").code == 3
    document = json.loads(initbench("compare", "--runs-dir", runs, "--json").out)
    assert document["damaged"][0].startswith("relu-s0-0123456789: ")
    assert "damaged" not in json.loads(initbench("compare", "tanh", "--runs-dir", runs, "--json").out)
    listed = initbench("ls", "--runs-dir", runs, "--status", "damaged").out
    assert ("relu-s0-0123456789" in listed) == (spoil is spoil_record)
    shown = initbench("show", "relu-s0", "--runs-dir", runs)
    assert shown.code == 3 and fault in shown.err


def test_where_nothing_is_left_of_a_row_it_is_said(runs: Path, initbench: Initbench) -> None:
    for seed in range(3):
        (runs / f"relu-s{seed}-0123456789" / "run.json").unlink()
    result = initbench("compare", "--runs-dir", runs)
    assert (
        "3 damaged runs cannot be assigned to a row: relu-s0-0123456789, " in result.out
        and "tanh" in result.out
    )
    alone = initbench("compare", "relu", "--runs-dir", runs)
    assert (
        alone.code == 0
        and "3 damaged runs cannot be assigned to a row" in alone.out
        and "No runs" not in alone.err
    )


def test_conditions_that_no_run_meets(runs: Path, initbench: Initbench) -> None:
    result = initbench("compare", "--where", "model.depth=7", "--runs-dir", runs)
    assert result.code == 2 and f"none of 6 runs in {runs} matches --where model.depth=7" in result.err
    assert initbench("compare", "nothing", "--runs-dir", runs).code == 2
    assert "No runs in" in initbench("compare", "--where", "a.b=1", "--runs-dir", runs / "none").err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--json", "-o", "o.csv"], "--json and -o o.csv conflict"),
        (["--format", "markdown", "-o", "o.tex"], "--format markdown and -o o.tex conflict"),
        (["--json", "--format", "csv"], "--json and --format csv conflict"),
        (["--layers", "--only-changed"], "--layers cannot be combined with --only-changed"),
    ],
)
def test_what_contradicts_itself_is_refused(
    runs: Path, initbench: Initbench, options: list[str], said: str
) -> None:
    result = initbench("compare", "--runs-dir", runs, *options)
    assert result.code == 2 and said in result.err and result.out == ""


def test_a_format_and_a_file_that_agree_or_say_nothing(
    runs: Path, initbench: Initbench, tmp_path: Path
) -> None:
    for options in (["--json", "-o", tmp_path / "o.json"], ["--format", "csv", "-o", tmp_path / "o.data"]):
        assert initbench("compare", "--runs-dir", runs, *options).code == 0


def test_the_earlier_side_is_chosen_as_this_one(runs: Path, before: Path, initbench: Initbench) -> None:
    whole = initbench("compare", "--runs-dir", runs, "--against", before).err
    assert "2 rows in both states" in whole and "only before: gone (digits)" in whole
    for chosen in (["relu"], ["relu-s0", "relu-s1", "relu-s2"], ["rel*"], ["--where", "experiment=relu"]):
        said = initbench("compare", *chosen, "--runs-dir", runs, "--against", before).err
        assert "1 row in both states" in said and "only before" not in said, chosen
    code = ["--where", "with.code=0123456789", "--where", "experiment!=gone"]
    said = initbench("compare", *code, "--runs-dir", runs, "--against", before).err
    assert "2 rows in both states" in said and "only before" not in said


def test_so_is_a_document(runs: Path, before: Path, initbench: Initbench, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text(initbench("compare", "--runs-dir", before, "--json").out)
    assert "only before: gone" in initbench("compare", "--runs-dir", runs, "--against", kept).err
    for chosen in (["relu"], ["relu-s*"], ["--where", "experiment=relu"]):
        said = initbench("compare", *chosen, "--runs-dir", runs, "--against", kept).err
        assert "1 row in both states" in said and "only before" not in said, chosen


def test_where_no_row_matches_strict_fails(runs: Path, tmp_path: Path, initbench: Initbench) -> None:
    for seed in range(3):
        put(tmp_path / "other", "gelu", seed)
    for strict, code in (([], 0), (["--strict"], 1)):
        result = initbench("compare", "--runs-dir", runs, "--against", tmp_path / "other", *strict)
        assert result.code == code and "nothing to compare: " in result.err
    assert initbench("compare", "--runs-dir", runs, "--against", runs, "--strict").code == 0


def test_the_exact_answer_is_in_the_document(runs: Path, before: Path, initbench: Initbench) -> None:
    document = json.loads(initbench("compare", "--runs-dir", runs, "--against", before, "--json").out)
    exact = {row["label"]: row["exact"] for row in document["against"]["rows"]}
    assert (exact["tanh"]["identical"], exact["tanh"]["other"]) == (3, [])
    assert exact["relu"]["identical"] == 0 and len(exact["relu"]["other"]) == 3
    assert exact["relu"]["largest"][0]["metric"] == "test_accuracy"


def test_a_damaged_run_of_the_earlier_state_is_named(runs: Path, before: Path, initbench: Initbench) -> None:
    (before / "relu-s0-abcdef0123" / "run.json").write_text("")
    result = initbench("compare", "--runs-dir", runs, "--against", before)
    assert f"damaged: {before}: relu-s0-abcdef0123: run.json is damaged: it is empty" in result.err
    assert "3 runs before" not in result.err and "2 runs before, 3 now" in result.err
