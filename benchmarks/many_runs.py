"""Create a throw-away store of thousands of runs from a few that are really trained.

The store's own writer writes each run, file by file, so the files equal those of `initbench run` with two
exceptions that do not affect tables: the weights are a few bytes, and no file is synced. Hard links would be
faster, but files in a real store do not share an inode. The numbers of a run are those of its template, each
changed by about a percent, so no two runs are equal.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from initbench.store.store import Store, StoredRun

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TEMPLATES = ("relu_kaiming", "relu_xavier", "tanh_xavier", "gelu_kaiming")
TRAINING = ("data.name=digits", "train.steps=100", "seeds=1", "model.depth=20")
ARMS_OF_A_TEMPLATE = 5
"""Experiments per template; they differ in their learning rate."""
SPREAD = 0.01


def make(root: Path, runs: int, scratch: Path) -> None:
    """Fill `root` with `runs` finished runs; the templates are trained in `scratch`."""
    os.fsync = lambda _: None
    templates = list(_trained(scratch))
    chance = random.Random(0)
    store = Store(root)
    arms = [(template, number) for template in templates for number in range(ARMS_OF_A_TEMPLATE)]
    for i in range(runs):
        template, number = arms[i % len(arms)]
        _write(store, template, number, i // len(arms), chance)


def _trained(scratch: Path) -> Iterator[StoredRun]:
    for name in TEMPLATES:
        command = [sys.executable, "-m", "initbench", "run", str(CONFIGS / f"{name}.yaml"), *TRAINING]
        options = ["--runs-dir", str(scratch), "--json"]
        subprocess.run([*command, *options], check=True, capture_output=True)
    store = Store(scratch)
    yield from (store.read(run_id) for run_id in store.find([]))


def _write(store: Store, template: StoredRun, number: int, seed: int, chance: random.Random) -> None:
    old = template.record
    name, lr = f"{old['experiment']}_{number}", 0.01 * (number + 1)
    config = {**old["config"], "name": name, "train": {**old["config"]["train"], "lr": lr}}
    arm = f"{old['arm'][:-1]}{number}"
    record = {**old, "experiment": name, "arm": arm, "seed": seed, "config": config}
    ending = {key: old[key] for key in ("diagnosis", "timings")}
    ending["final"] = {key: _moved(value, chance) for key, value in old["final"].items()}
    with store.claim(f"{name}-s{seed}-{number}{seed:09x}", record, json.dumps(config)) as run:
        for entry in template.convergence:
            run.append_convergence({key: _moved(value, chance) for key, value in entry.items()})
        for snapshot in template.snapshots:
            run.append_snapshot({**snapshot, "layers": [_layer(each, chance) for each in snapshot["layers"]]})
        run.finish(ending, weights=b"no weights")


def _layer(layer: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Return a layer without its histograms, which the tables do not show."""
    moved = {key: _moved_all(layer[key], chance) for key in ("pre", "grad")}
    return {**layer, **moved, "act": layer["act"] and _moved_all(layer["act"], chance)}


def _moved_all(values: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    return {key: _moved(value, chance) for key, value in values.items()}


def _moved(value: Any, chance: random.Random) -> Any:
    return value * chance.uniform(1 - SPREAD, 1 + SPREAD) if isinstance(value, float) else value
