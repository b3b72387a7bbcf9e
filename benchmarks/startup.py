"""Measure the median wall time of `initbench --help`, which must not import torch, over n runs."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time


def main() -> None:
    """Measure the command and print its times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-n", type=int, default=15, help="runs (default 15)")
    parser.add_argument("command", nargs="*", default=["--help"], help="default: --help")
    options = parser.parse_args()
    command = [sys.executable, "-m", "initbench", *options.command]
    seconds = [_time(command) for _ in range(options.n + 1)][1:]
    words = " ".join(["initbench", *options.command])
    print(f"{words}: median {statistics.median(seconds):.3f} s, n = {options.n}", end="")
    print(f" ({min(seconds):.3f} to {max(seconds):.3f})")


def _time(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
