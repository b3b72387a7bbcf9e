"""Compare a sweep of 32 runs with the scripts that it replaces, everything from start to end.

mlp of depth 10 on MNIST, 4 inits × 8 seeds, batch 128. The first script is what a careful user would write:
two processes at once, data in memory, one thread each, 16 nets one after another, evaluated as often as
initbench evaluates. The second is a shell loop over `dataloader_script.py`, of which one run is timed and
counted 32 times.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.measurements import Measurement, initbench, measure_repeatedly, ratios, script, seconds_of

INITS = ("kaiming_normal", "xavier_normal", "orthogonal", "torch_default")
SEEDS, DEPTH = 8, 10
RUNS = len(INITS) * SEEDS
SWEEP = """\
kind: sweep
name: speed
base:
  data: {{name: mnist, fallback: null}}
  model: {{family: mlp, depth: {depth}, width: {width}, activation: relu}}
  train: {{steps: {steps}, batch_size: 128, lr: 0.01, optimizer: {{name: sgd, momentum: 0.9}}, precision: {precision}}}
grid:
  init.scheme: [{inits}]
seeds: {seeds}
"""  # noqa: E501


def sweep(width: int, steps: int, precision: str = "fp32") -> float:
    """Return the seconds of the whole command, into a fresh store."""
    text = SWEEP.format(
        depth=DEPTH, width=width, steps=steps, precision=precision, inits=", ".join(INITS), seeds=SEEDS
    )
    with tempfile.TemporaryDirectory(prefix="initbench-benchmark-") as folder:
        file, runs = Path(folder) / "speed.yaml", Path(folder) / "runs"
        file.write_text(text, encoding="utf-8")
        return seconds_of(
            initbench("sweep", str(file), "--runs-dir", str(runs), "--quiet", "--device", "cpu")
        )


def two_processes(width: int, steps: int) -> float:
    """Return the seconds until two processes have each trained and evaluated half of the runs."""
    options = ["--depth", str(DEPTH), "--width", str(width), "--steps", str(steps), "--runs", str(RUNS // 2)]
    return seconds_of(*[script("in_memory", *options)] * 2)


def loop(steps: int) -> float:
    """Return the seconds of all runs of the usual script in sequence, estimated from one."""
    return RUNS * seconds_of(script("dataloader_script", "--steps", str(steps), "--depth", str(DEPTH)))


def measure(repeats: int, steps: int = 1000) -> list[Measurement]:
    """Return the speed of sweeps relative to the scripts, and of bf16 relative to float32."""
    wide, bf16, careful, usual, narrow, careful_narrow = measure_repeatedly(
        repeats,
        lambda: sweep(128, steps),
        lambda: sweep(128, steps, "bf16"),
        lambda: two_processes(128, steps),
        lambda: loop(steps),
        lambda: sweep(64, steps),
        lambda: two_processes(64, steps),
    )
    name = f"sweep of {RUNS} × {steps:,} steps"
    return [
        Measurement(f"two processes / {name}, 128 units", ratios(careful, wide), target=1.15),
        Measurement(f"two processes / bf16 {name}, 128 units", ratios(careful, bf16), target=1.6),
        Measurement(f"two processes / {name}, 64 units", ratios(careful_narrow, narrow), target=1.5),
        Measurement(f"DataLoader scripts / {name}, 128 units", ratios(usual, wide), target=10.0),
        Measurement(f"{name}, 128 units, float32 / bf16", ratios(wide, bf16), target=1.5),
    ]
