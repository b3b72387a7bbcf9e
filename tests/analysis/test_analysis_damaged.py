"""Damaged runs are counted in their rows and reported; they do not prevent the comparison of other runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from initbench.analysis.damaged_runs import damage_messages
from initbench.analysis.load_runs import load_run_summaries
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.tables import build_tables
from initbench.store.store import Store
from tests.analysis.test_analysis_read import RECORD, snapshot

IDS = [f"relu-s{seed}-0123456789" for seed in range(3)]
BROKEN = IDS[0]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    store = Store(tmp_path / "runs")
    for seed, run_id in enumerate(IDS):
        put(store, run_id, "relu", seed)
    put(store, "tanh-s0-0123456789", "tanh", 0, steps=30)
    return store


def put(store: Store, run_id: str, experiment: str, seed: int, **more: object) -> None:
    record: dict[str, Any] = {**RECORD, "experiment": experiment, "seed": seed, "arm": experiment, **more}
    with store.claim(run_id, record, "") as run:
        run.append_convergence({"step": 0, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5})
        run.append_snapshot(snapshot("init", 1.0))
        run.finish({"steps": 20, **more, "final": {"val_accuracy": 0.5, "test_accuracy": 0.5}})


def edit(store: Store, run_id: str, **changes: object) -> None:
    path = store.root / run_id / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def shape(runs: list[RunSummary]) -> dict[str, tuple[int, int]]:
    """Return the numbers of complete and of unfinished runs of each row."""
    found = build_tables([run for run in runs if run.is_placed])
    return {row.label: (row.n, row.unfinished) for table in found for row in table.rows}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"seed": "zero"}, "run.json is damaged: seed is not an integer"),
        ({"seed": None, "final": 7}, "run.json is damaged: seed is not an integer"),
        ({"diagnosis": 7}, "run.json is damaged: diagnosis is not a list"),
        ({"config": []}, "run.json is damaged: config is not a mapping"),
        ({"experiment": 3}, "run.json is damaged: experiment is not a string"),
        ({"timings": "long"}, "run.json is damaged: timings is not a mapping"),
        ({"identity": "me"}, "run.json is damaged: identity is not a mapping"),
    ],
)
def test_a_run_with_a_damaged_record_is_counted_in_its_row(store: Store, changes: dict[str, Any], fault: str):
    edit(store, BROKEN, **changes)
    runs = load_run_summaries(store, [])
    assert shape(runs) == {"relu": (2, 1), "tanh": (1, 0)}
    (said,) = damage_messages(runs, store.root)
    assert said.startswith(f"{BROKEN}: {fault}")


@pytest.mark.parametrize("text", [None, "", '{"x', "[]", '{"schema": "initbench.stored/1"}'])
def test_a_run_without_a_record_is_counted_by_its_id(store: Store, text: str | None):
    path = store.root / BROKEN / "run.json"
    path.unlink() if text is None else path.write_text(text)
    runs = load_run_summaries(store, ["relu"])
    assert shape(runs) == {"relu": (2, 1)}
    assert [(run.run_id, run.seed) for run in runs if run.status == "damaged"] == [(BROKEN, 0)]


def test_where_the_row_is_not_known_it_has_none(store: Store):
    """No other run of the experiment has a config, or several have different configs."""
    for name in ("tanh-s0-0123456789", BROKEN):
        (store.root / name / "run.json").unlink()
    edit(store, IDS[1], arm="other", identity={**RECORD["identity"], "code": "other"})
    runs = load_run_summaries(store, [])
    lost = [run for run in runs if not run.is_placed]
    assert sorted(run.experiment for run in lost) == ["relu", "tanh"]
    assert sum(n + unfinished for n, unfinished in shape(runs).values()) == 2
    assert len(damage_messages(runs, store.root)) == 2


def test_a_broken_line_is_named_by_its_file(store: Store):
    (store.root / BROKEN / "metrics.jsonl").write_text("{]\n" * 24)
    runs = load_run_summaries(store, [])
    assert shape(runs)["relu"] == (2, 1)
    (said,) = damage_messages(runs, store.root)
    assert said.startswith(f"{BROKEN}: metrics.jsonl is damaged: ")
