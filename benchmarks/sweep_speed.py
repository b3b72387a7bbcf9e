"""Compare a sweep of 32 runs, end to end, with scripts that a user would write, and fp32 with bf16.

mlp of depth 10 and width 128 on MNIST, 4 inits × 8 seeds, 1,000 steps of batch 128. In each repeat:

- `initbench sweep` in a fresh process and a fresh store, with its evaluations, probes and files;
- the same with `train.precision=bf16`;
- a shell loop over `dataloader_script.py`, a process a run: `--loop-runs` of them are timed, and the time of
  32 is their mean times 32;
- two processes at once of `in_memory.py`, 16 runs each, started once.

The scripts evaluate at their end at most. `--eval-at-end` has initbench evaluate at step 0 and at the end
alone. `--only-precision` skips the scripts. Where other programs use the processor, the wall time says
little; the ratio of the CPU times of all processes, user and system, is given too.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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
OURS, BF16 = "initbench sweep", "initbench sweep in bf16"
LOOP, PAIR = "shell loop, DataLoader", "two processes, in memory"

RATIOS = ((LOOP, OURS, 8.0), (PAIR, OURS, 1.5), (OURS, BF16, 1.5), (PAIR, BF16, 1.6))


class Times(NamedTuple):
    """Wall and CPU time of some commands, in seconds."""

    wall: float
    cpu: float


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=3, help="of everything, in turn (default 3)")
    parser.add_argument("--loop-runs", type=int, default=2, help="runs of the shell loop that are timed")
    parser.add_argument("--eval-at-end", action="store_true", help="no evaluations on the way")
    parser.add_argument("--only-precision", action="store_true", help="only the sweeps in fp32 and bf16")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of a run (default {STEPS:,})")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def main() -> None:
    """Measure and print the ratios."""
    options = arguments()
    figures: dict[str, list[Times]] = {OURS: [], BF16: []}
    for repeat in range(options.repeats):
        print(f"repeat {repeat + 1} of {options.repeats}", file=sys.stderr, flush=True)
        for name in (OURS, BF16) if repeat % 2 == 0 else (BF16, OURS):
            figures[name].append(sweep(options, name == BF16))
        if not options.only_precision:
            figures.setdefault(PAIR, []).append(pair(options.steps))
            figures.setdefault(LOOP, []).append(loop(options.steps, options.loop_runs))
    if options.json:
        seconds = {name: [times._asdict() for times in values] for name, values in figures.items()}
        print(json.dumps({"runs": RUNS, "steps": options.steps, "machine": machine(), "seconds": seconds}))
    else:
        print(report(figures, options))


def sweep(options: argparse.Namespace, bf16: bool) -> Times:
    """Return the times of the whole command. Every run must have been trained."""
    with tempfile.TemporaryDirectory(prefix="initbench-benchmark-") as folder:
        file, runs = Path(folder) / "speed.yaml", Path(folder) / "runs"
        file.write_text(SWEEP, encoding="utf-8")
        command = [sys.executable, "-m", "initbench", "sweep", str(file), "--runs-dir", str(runs), "--quiet"]
        command += [f"train.eval_every={options.steps}"] if options.eval_at_end else []
        command += [f"train.steps={options.steps}", f"train.precision={'bf16' if bf16 else 'fp32'}"]
        times = timed([[*command, "--device", "cpu", "--json"]])
        records = [json.loads(path.read_text(encoding="utf-8")) for path in runs.glob("*/run.json")]
    if len(records) != RUNS or any(record["steps"] != options.steps for record in records):
        raise RuntimeError("not all runs were trained to their end")
    return times


def loop(steps: int, timed_runs: int) -> Times:
    """Estimate the times that RUNS runs of the usual script take in sequence, from the mean of a few."""
    script = [
        sys.executable,
        str(HERE / "dataloader_script.py"),
        "--steps",
        str(steps),
        "--depth",
        str(DEPTH),
    ]
    times = [timed([[*script, "--seed", str(seed)]]) for seed in range(timed_runs)]
    wall, cpu = zip(*times, strict=True)
    return Times(RUNS * statistics.mean(wall), RUNS * statistics.mean(cpu))


def pair(steps: int) -> Times:
    """Return the times until two processes have each trained half of the runs."""
    script = [sys.executable, str(HERE / "in_memory.py"), "--depth", str(DEPTH), "--steps", str(steps)]
    return timed([[*script, "--runs", str(RUNS // 2)]] * 2)


def timed(commands: Sequence[Sequence[str]]) -> Times:
    """Start all commands together and return the times until the last one ends."""
    start, before = time.perf_counter(), _children_cpu()
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    codes = [process.wait() for process in processes]
    if any(codes):
        raise RuntimeError(f"failed: {' '.join(commands[0])}")
    return Times(time.perf_counter() - start, _children_cpu() - before)


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def report(figures: dict[str, list[Times]], options: argparse.Namespace) -> str:
    """Print seconds and ratios, each with its range over the repeats."""
    repeats = f"n = {options.repeats} repeats in turn, median (min to max)"
    evaluated = "at step 0 and the end" if options.eval_at_end else "ten times and at step 0"
    lines = [
        f"{RUNS} runs of {options.steps:,} steps, end to end; initbench evaluates {evaluated}; {repeats}",
        "",
    ]
    for name, values in figures.items():
        wall, cpu = zip(*values, strict=True)
        lines.append(f"{name:<28}{_range(wall, '.1f'):>28}  s   CPU {_range(cpu, '.1f'):>28}  s")
    if LOOP in figures:
        lines.append(f"{'':28}the loop: {options.loop_runs} runs timed, times {RUNS / options.loop_runs:g}")
    lines.append("")
    for slow, fast, wanted in RATIOS:
        if slow in figures:
            pairs = list(zip(figures[slow], figures[fast], strict=True))
            wall = _range([theirs.wall / ours.wall for theirs, ours in pairs], ".2f")
            cpu = _range([theirs.cpu / ours.cpu for theirs, ours in pairs], ".2f")
            lines.append(f"{f'{slow} / {fast}':<52}{wall:>20}   CPU {cpu:>20}   wanted: {wanted}")
    return "\n".join([*lines, "", machine()])


def _range(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
