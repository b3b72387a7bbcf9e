"""Compare the samples per second of `initbench run`, the bare loop and the DataLoader script.

The three are run in turn, `--repeats` times, each in a process of its own and for the same number of steps.
initbench trains three seeds with evaluation, statistics and store on, into a fresh folder each time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONFIG = HERE.parent / "configs" / "relu_kaiming.yaml"
BATCH_SIZE = 128
INSIDE, END_TO_END = "initbench, training", "initbench, end to end"
BARE, LOADER = "bare loop", "DataLoader script"
Figures = dict[str, list[float]]


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default 3)")
    parser.add_argument("--steps", type=int, default=2000, help="updates of each run (default 2000)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of initbench (default 3)")
    parser.add_argument("--threads", type=int, help="threads of the two scripts; default: torch's own")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def main() -> None:
    """Measure and print the figures."""
    options = arguments()
    figures: Figures = {INSIDE: [], END_TO_END: [], BARE: [], LOADER: []}
    for repeat in range(options.repeats):
        print(f"repeat {repeat + 1} of {options.repeats}", file=sys.stderr, flush=True)
        inside, end_to_end = initbench(options.steps, options.seeds)
        figures[INSIDE].append(inside)
        figures[END_TO_END].append(end_to_end)
        figures[BARE].append(script("bare_loop.py", options))
        figures[LOADER].append(script("dataloader_script.py", options))
    if options.json:
        print(json.dumps({"steps": options.steps, "seeds": options.seeds, "machine": machine(), **figures}))
    else:
        print(report(figures, options))


def initbench(steps: int, seeds: int) -> tuple[float, float]:
    """Return the training samples per second of an `initbench run`: of the training and of the command.

    The training time is that of the slowest cohort: updates, evaluations and probes. Cohorts train at the
    same time, each in a worker.
    """
    with tempfile.TemporaryDirectory(prefix="initbench-benchmark-") as runs:
        command = [sys.executable, "-m", "initbench", "run", str(CONFIG), f"train.steps={steps}"]
        command += [f"seeds={seeds}", "data.fallback=null", "--runs-dir", runs, "--quiet", "--device", "cpu"]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        whole = time.perf_counter() - start
        records = [json.loads(path.read_text(encoding="utf-8")) for path in Path(runs).glob("*/run.json")]
    if len(records) != seeds or any(
        record["steps"] != steps or record["final"] is None for record in records
    ):
        raise RuntimeError("the runs did not train to the end")
    samples = steps * BATCH_SIZE * seeds
    return samples / max(record["timings"]["total"] for record in records), samples / whole


def script(name: str, options: argparse.Namespace) -> float:
    """Return the samples per second that a script of this folder reports for its loop."""
    command = [sys.executable, str(HERE / name), "--steps", str(options.steps)]
    if options.threads is not None:
        command += ["--threads", str(options.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["samples_per_second"])


def report(figures: Figures, options: argparse.Namespace) -> str:
    """Print the figures and their ratios, each with its range over the repeats."""
    repeats = f"n = {options.repeats} repeats in turn, median (min to max)"
    lines = [f"{options.steps:,} steps, batch {BATCH_SIZE}; initbench: {options.seeds} seeds; {repeats}", ""]
    if options.threads is not None:
        lines.insert(1, f"scripts: {options.threads} thread(s)")
    lines += [f"{name:<24}{_range(values, ',.0f'):>34}  samples/s" for name, values in figures.items()]
    lines.append("")
    for ours in (INSIDE, END_TO_END):
        for theirs in (BARE, LOADER):
            ratios = [a / b for a, b in zip(figures[ours], figures[theirs], strict=True)]
            lines.append(f"{ours} / {theirs:<20}{_range(ratios, '.2f'):>24}")
    return "\n".join([*lines, "", machine()])


def _range(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def machine() -> str:
    """Return one line with the processor and the versions."""
    import torch

    from initbench.runner.environment import machine_record as describe

    found = describe(torch.device("cpu"))
    load = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return ", ".join(filter(None, [str(found["processor"]), f"{found['cores']} cores", versions, load]))


if __name__ == "__main__":
    main()
