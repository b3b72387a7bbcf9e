"""Measure the time of `initbench compare` and `ls` over thousands of stored runs, with and without summaries.

The store is created in a temporary directory (1.2 GB for 5,000 runs). Within a repeat the commands are
run in turn. Each wall time is also given as a ratio to `initbench --help` in the same repeat.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.many_runs import make

Measurement = tuple[float, float, float]
CHECK = (
    "import sys; from initbench.cli.main import run_command; code = run_command(sys.argv[1:]); "
    "sys.exit(code or ('torch' in sys.modules and 'torch was loaded'))"
)
FLOOR, OLD, ALL = "--help", "compare, runs without summaries", "compare"
LIST, ONE = "ls", "compare of one experiment"


def main() -> None:
    """Create the store, measure, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5000, help="stored runs (default 5000)")
    parser.add_argument("--repeats", type=int, default=5, help="with summaries (default 5)")
    parser.add_argument(
        "--old", type=int, default=1, help="measurements without summaries, as in old stores (default 1)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "runs"
        print(f"making {options.runs:,} runs", file=sys.stderr, flush=True)
        make(root, options.runs, Path(directory) / "templates")
        print(_report(_measured(root, options.repeats, options.old), options.runs))


def _measured(root: Path, repeats: int, old: int) -> dict[str, list[Measurement]]:
    """Return wall time, its ratio to the floor and CPU time of each command, one per repeat."""
    where = ["--runs-dir", str(root)]
    commands = {ALL: ["compare", *where], ONE: ["compare", "relu_kaiming_0", *where], LIST: ["ls", *where]}
    figures: dict[str, list[Measurement]] = {name: [] for name in (FLOOR, *commands, OLD)}
    _time(commands[LIST])  # from here on the files are in the page cache
    for repeat in range(repeats):
        print(f"repeat {repeat + 1} of {repeats}", file=sys.stderr, flush=True)
        floor, cpu = _time(["--help"])
        figures[FLOOR].append((floor, 1.0, cpu))
        for name, command in commands.items():
            seconds, cpu = _time(command)
            figures[name].append((seconds, seconds / floor, cpu))
    for path in root.glob("*/summary.jsonl"):
        path.unlink()
    for _ in range(old):
        floor, _ = _time(["--help"])
        seconds, cpu = _time(commands[ALL])
        figures[OLD].append((seconds, seconds / floor, cpu))
    return figures


def _time(arguments: Sequence[str]) -> tuple[float, float]:
    """Return wall and user CPU time of a process, in seconds. The process fails if it imported torch."""
    start, cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([sys.executable, "-c", CHECK, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - cpu


def _report(figures: dict[str, list[Measurement]], runs: int) -> str:
    lines = [f"{runs:,} runs; median (min to max), torch never loaded"]
    for name, measured in figures.items():
        if measured:
            wall, ratios, cpu = map(_spread, zip(*measured, strict=True))
            lines.append(f"{name:34} {wall} s, {ratios} of --help, CPU {cpu} s, n = {len(measured)}")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
