"""Compare a sweep of 32 runs, end to end, with scripts that a user would write: two ratios per repeat.

mlp of depth 10 and width 128 on MNIST, 4 inits × 8 seeds, 1,000 steps of batch 128. In each repeat:

- `initbench sweep` in a fresh process and a fresh store, with its evaluations, probes and files;
- a shell loop over `dataloader_script.py`, a process a run: `--loop-runs` of them are timed, and the time of
  32 is their mean times 32;
- two processes at once of `in_memory.py`, 16 runs each, started once.

The scripts evaluate at their end at most. `--eval-at-end` has initbench evaluate at step 0 and at the end
alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from throughput import machine

HERE = Path(__file__).resolve().parent
INITS = ("kaiming_normal", "xavier_normal", "orthogonal", "torch_default")
SEEDS, STEPS, DEPTH = 8, 1000, 10
RUNS = len(INITS) * SEEDS
SWEEP = f"""\
kind: sweep
name: speed
base:
  data: {{name: mnist, fallback: null}}
  model: {{family: mlp, depth: {DEPTH}, width: 128, activation: relu}}
  train: {{steps: {STEPS}, batch_size: 128, lr: 0.01, optimizer: {{name: sgd, momentum: 0.9}}}}
grid:
  init.scheme: [{", ".join(INITS)}]
seeds: {SEEDS}
"""
OURS, LOOP, PAIR = "initbench sweep", "shell loop, DataLoader", "two processes, in memory"


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=3, help="of everything, in turn (default 3)")
    parser.add_argument("--loop-runs", type=int, default=2, help="runs of the shell loop that are timed")
    parser.add_argument("--eval-at-end", action="store_true", help="no evaluations on the way")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def main() -> None:
    """Measure and print the ratios."""
    options = arguments()
    figures: dict[str, list[float]] = {OURS: [], LOOP: [], PAIR: []}
    for repeat in range(options.repeats):
        print(f"repeat {repeat + 1} of {options.repeats}", file=sys.stderr, flush=True)
        figures[OURS].append(sweep(at_end=options.eval_at_end))
        figures[PAIR].append(pair())
        figures[LOOP].append(loop(options.loop_runs))
    if options.json:
        print(json.dumps({"runs": RUNS, "steps": STEPS, "machine": machine(), "seconds": figures}))
    else:
        print(report(figures, options))


def sweep(*, at_end: bool) -> float:
    """Return the wall time of the whole command in seconds. Every run must have been trained."""
    with tempfile.TemporaryDirectory(prefix="initbench-benchmark-") as folder:
        file, runs = Path(folder) / "speed.yaml", Path(folder) / "runs"
        file.write_text(SWEEP, encoding="utf-8")
        command = [sys.executable, "-m", "initbench", "sweep", str(file), "--runs-dir", str(runs), "--quiet"]
        command += [f"train.eval_every={STEPS}"] if at_end else []
        seconds = timed([[*command, "--device", "cpu", "--json"]])
        records = [json.loads(path.read_text(encoding="utf-8")) for path in runs.glob("*/run.json")]
    if len(records) != RUNS or any(record["steps"] != STEPS for record in records):
        raise RuntimeError("not all runs were trained to their end")
    return seconds


def loop(timed_runs: int) -> float:
    """Estimate the seconds that RUNS runs of the usual script take in sequence, from the mean of a few."""
    script = [
        sys.executable,
        str(HERE / "dataloader_script.py"),
        "--steps",
        str(STEPS),
        "--depth",
        str(DEPTH),
    ]
    times = [timed([[*script, "--seed", str(seed)]]) for seed in range(timed_runs)]
    return RUNS * statistics.mean(times)


def pair() -> float:
    """Return the seconds until two processes have each trained half of the runs."""
    script = [sys.executable, str(HERE / "in_memory.py"), "--depth", str(DEPTH), "--steps", str(STEPS)]
    return timed([[*script, "--runs", str(RUNS // 2)]] * 2)


def timed(commands: Sequence[Sequence[str]]) -> float:
    """Start all commands together and return the seconds until the last one ends."""
    start = time.perf_counter()
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    if any(process.wait() for process in processes):
        raise RuntimeError(f"failed: {' '.join(commands[0])}")
    return time.perf_counter() - start


def report(figures: dict[str, list[float]], options: argparse.Namespace) -> str:
    """Print seconds and ratios, each with its range over the repeats."""
    repeats = f"n = {options.repeats} repeats in turn, median (min to max)"
    evaluated = "at step 0 and the end" if options.eval_at_end else "ten times and at step 0"
    lines = [f"{RUNS} runs of {STEPS:,} steps, end to end; initbench evaluates {evaluated}; {repeats}", ""]
    lines += [f"{name:<28}{_range(values, '.1f'):>28}  s" for name, values in figures.items()]
    lines.append(f"{'':28}the loop: {options.loop_runs} runs timed, times {RUNS / options.loop_runs:g}")
    lines.append("")
    for name, wanted in ((LOOP, 8.0), (PAIR, 1.5)):
        ratios = [theirs / ours for ours, theirs in zip(figures[OURS], figures[name], strict=True)]
        lines.append(f"{name} / {OURS:<20}{_range(ratios, '.2f'):>24}   wanted: {wanted}")
    return "\n".join([*lines, "", machine()])


def _range(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
