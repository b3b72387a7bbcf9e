"""Measure the wall time of `initbench compare` over thousands of stored runs, with and without its index.

The store is created in a temporary directory (1.2 GB for 5,000 runs). Within a repeat the commands are
run in turn. Each time is also given as a ratio to `initbench --help` in the same repeat.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.many_runs import make

CHECK = (
    "import sys; from initbench.cli.main import run_command; code = run_command(sys.argv[1:]); "
    "sys.exit(code or ('torch' in sys.modules and 'torch was loaded'))"
)
FLOOR, COLD, WARM = "--help", "compare, no index", "compare, index there"
LIST, ONE = "ls", "compare of one experiment, index there"


def main() -> None:
    """Create the store, measure, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5000, help="stored runs (default 5000)")
    parser.add_argument("--repeats", type=int, default=5, help="with the index (default 5)")
    parser.add_argument(
        "--cold", type=int, default=1, help="how many of the repeats first run without the index (default 1)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "runs"
        print(f"making {options.runs:,} runs", file=sys.stderr, flush=True)
        make(root, options.runs, Path(directory) / "templates")
        time.sleep(3)  # runs that have just finished are not indexed yet
        print(_report(_measured(root, options.repeats, options.cold), options.runs, root))


def _measured(root: Path, repeats: int, cold: int) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds of each command and their ratios to the floor, one per repeat."""
    where = ["--runs-dir", str(root)]
    index = root / ".compare.index"
    commands = {WARM: ["compare", *where], ONE: ["compare", "relu_kaiming_0", *where], LIST: ["ls", *where]}
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in (FLOOR, COLD, *commands)}
    _time(commands[LIST])  # from here on the files are in the page cache
    for repeat in range(repeats):
        print(f"repeat {repeat + 1} of {repeats}", file=sys.stderr, flush=True)
        floor = _time(["--help"])
        figures[FLOOR].append((floor, 1.0))
        if repeat < cold:
            index.unlink(missing_ok=True)
            seconds = _time(commands[WARM])
            figures[COLD].append((seconds, seconds / floor))
        for name, command in commands.items():
            seconds = _time(command)
            figures[name].append((seconds, seconds / floor))
    return figures


def _time(arguments: Sequence[str]) -> float:
    """Return the wall time of a process, in seconds. The process fails if it imported torch."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", CHECK, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _report(figures: dict[str, list[tuple[float, float]]], runs: int, root: Path) -> str:
    index = (root / ".compare.index").stat().st_size
    lines = [f"{runs:,} runs, an index of {index / 1e6:.0f} MB; median (min to max), torch never loaded"]
    for name, measured in figures.items():
        seconds, ratios = zip(*measured, strict=True)
        lines.append(f"{name:40} {_spread(seconds)} s, {_spread(ratios)} of --help, n = {len(measured)}")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
