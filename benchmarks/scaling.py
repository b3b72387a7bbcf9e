"""Measure how time and memory grow with the number of layers, of runs and of points of a sweep.

Time per unit of work should stay the same: for layers, the recorded time of the updates per layer and step;
for runs and points, the seconds of the command beyond those of its smallest size, per run. Memory is the peak
of the process that trains, beyond that of the smallest size, per unit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measurements import Measurement, initbench, seconds_of

LAYERS, STEPS = (10, 100, 1000), 30
RUNS = (16, 128, 512)
POINTS = (20, 200, 2000)
FLAT = 1.15
_CONFIG = """\
kind: experiment
name: deep
data: {{name: digits}}
model: {{family: mlp, depth: {depth}, width: 64, activation: tanh}}
train: {{steps: {steps}, batch_size: 64}}
probe: {{when: []}}
"""
_SWEEP = """\
kind: sweep
name: tiny
base:
  data: {{name: digits}}
  model: {{family: mlp, depth: 2, width: 16}}
  train: {{steps: 20, batch_size: 64}}
  probe: {{batch: 64, bins: 8, when: [init, end]}}
grid:
  train.lr: [{rates}]
seeds: {seeds}
"""


@dataclass(frozen=True)
class _Deep:
    seconds: float
    """Time of the updates, per layer and step."""
    bytes: float
    """Peak memory of the process."""


def measure(repeats: int) -> list[Measurement]:
    """Return the largest size relative to the medium one, per unit of work."""
    deep = [[_train_deep(depth) for depth in LAYERS] for _ in range(repeats)]
    measured = [
        Measurement(
            f"time per layer and step, {LAYERS[-1]:,} / {LAYERS[1]} layers",
            tuple(large.seconds / medium.seconds for _, medium, large in deep),
            target=FLAT,
            is_cost=True,
        ),
        Measurement(
            f"memory per layer, {LAYERS[-1]:,} / {LAYERS[1]} layers, above {LAYERS[0]} layers",
            tuple(
                ((large.bytes - small.bytes) / (LAYERS[2] - LAYERS[0]))
                / max(1.0, (medium.bytes - small.bytes) / (LAYERS[1] - LAYERS[0]))
                for small, medium, large in deep
            ),
            target=FLAT,
            is_cost=True,
        ),
    ]
    for sizes, words, rates_of in ((RUNS, "runs of one point", 1), (POINTS, "points", 0)):
        growth = []
        for _ in range(repeats):
            small, medium, large = (_sweep(size, rates_of or size) for size in sizes)
            per_medium = (medium - small) / (sizes[1] - sizes[0])
            growth.append((large - medium) / (sizes[2] - sizes[1]) / per_medium)
        name = f"time per run, {sizes[1]} to {sizes[2]:,} / {sizes[0]} to {sizes[1]} {words}"
        measured.append(Measurement(name, tuple(growth), target=FLAT, is_cost=True))
    return measured


def _train_deep(depth: int) -> _Deep:
    with tempfile.TemporaryDirectory(prefix="initbench-benchmark-") as folder:
        file, runs = Path(folder) / "deep.yaml", Path(folder) / "runs"
        file.write_text(_CONFIG.format(depth=depth, steps=STEPS), encoding="utf-8")
        command = initbench("run", str(file), "--runs-dir", str(runs), "--quiet", "--device", "cpu")
        peak = _peak_bytes([*command, "--executor", "inprocess"])
        (record,) = [json.loads(path.read_text(encoding="utf-8")) for path in runs.glob("*/run.json")]
    return _Deep(record["timings"]["train"] / (depth * STEPS), peak)


def _peak_bytes(command: Sequence[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed")
    return usage.ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


def _sweep(runs: int, points: int) -> float:
    """Return the seconds of a sweep of this number of runs over this number of points."""
    rates = ", ".join(f"{0.001 + 1e-6 * index:.6f}" for index in range(points))
    with tempfile.TemporaryDirectory(prefix="initbench-benchmark-") as folder:
        file = Path(folder) / "tiny.yaml"
        file.write_text(_SWEEP.format(rates=rates, seeds=runs // points), encoding="utf-8")
        options = [
            "--runs-dir",
            str(Path(folder) / "runs"),
            "--quiet",
            "--device",
            "cpu",
            "--executor",
            "local",
        ]
        return seconds_of(initbench("sweep", str(file), *options))
