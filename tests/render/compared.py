"""Runs to compare, with what a table has to cope with but odd names, which hypothesis makes."""

from __future__ import annotations

import json
from typing import Any

from synthetic import run

from initbench.analysis.run_summary import RunSummary, summarise_run
from initbench.store.store import StoredRun

IDENTITY = {"precision": "fp32", "torch": "2"}


def changed(stored: StoredRun, *, accuracy: float = 0.0, **config: Any) -> StoredRun:
    """The run with other values of its config, `a__b` for a.b, and accuracies that differ by so much."""
    record = json.loads(json.dumps(stored.record))
    for name, value in config.items():
        *path, last = name.split("__")
        at = record["config"]
        for key in path:
            at = at.setdefault(key, {})
        at[last] = value
    if record["final"]:
        record["final"]["val_accuracy"] += accuracy
        record["final"]["test_accuracy"] += accuracy
    record["identity"] = dict(IDENTITY)
    convergence = [{**one, "val_accuracy": one["val_accuracy"] + accuracy} for one in stored.convergence]
    return StoredRun(stored.run_id, record, convergence, stored.snapshots)


def arm(name: str, seeds: int, accuracy: float, spread: float = 0.004, **config: Any) -> list[StoredRun]:
    """Runs of one name; every other seed lies higher, so that two arms differ by seed as well."""
    return [
        changed(run(name, seed, arm=name), accuracy=accuracy + spread * ((seed * 7) % 5 - 2), **config)
        for seed in range(seeds)
    ]


STORED: list[StoredRun] = [
    *arm("kaiming", 5, 0.0, init__scheme="kaiming_normal"),
    *arm("xavier", 5, -0.06, 0.008, init__scheme="xavier_normal"),
    *arm("lsuv", 3, 0.004, 0.006, init__scheme="lsuv", model__norm="batch"),
    *(
        changed(run("misprint", seed, status="diverged", arm="misprint"), init__scheme="kaiming_misprint")
        for seed in (0, 1, 2)
    ),
    *arm("single", 1, 0.01, init__scheme="lsuv"),
    changed(run("single", 1, status="running", arm="single"), init__scheme="lsuv"),
]
FACTS: list[RunSummary] = [summarise_run(one) for one in STORED]
LONGER: list[RunSummary] = [
    *FACTS,
    *(
        summarise_run(StoredRun(one.run_id, {**one.record, "steps": 2000}, one.convergence, one.snapshots))
        for one in STORED[:3]
    ),
]
"""With some runs of another budget."""
