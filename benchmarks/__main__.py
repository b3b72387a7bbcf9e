"""Measure the speed of initbench, store the ratios and write the tables of benchmarks/README.md.

    python -m benchmarks [SUITE...] [--repeats N] [--check]

With `--check` nothing is written: the measurements are compared with the stored ones of the same processor,
and the exit code is 1 if one of them is slower beyond the range of both and 5 %.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from benchmarks import (
    convolutions,
    cuda,
    first_table,
    precision,
    probe_cost,
    scaling,
    sweep_speed,
    throughput,
)
from benchmarks.measurements import Measurement, machine, store, stored_measurements

SUITES: dict[str, tuple[Callable[[int], list[Measurement]], int]] = {
    "run": (throughput.measure, 3),
    "sweep": (sweep_speed.measure, 2),
    "precision": (precision.measure, 9),
    "first_table": (first_table.measure, 5),
    "convolutions": (convolutions.measure, 3),
    "cuda": (cuda.measure, 3),
    "probe": (probe_cost.measure, 3),
    "scaling": (scaling.measure, 2),
}
"""Suites with their number of repeats; together they take less than 20 minutes on two cores."""


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("suites", metavar="SUITE", nargs="*", help=f"default: all of {', '.join(SUITES)}")
    parser.add_argument("--repeats", type=int, help="measurements of each; default: 2 to 5, by suite")
    parser.add_argument("--check", action="store_true", help="compare with the stored measurements")
    options = parser.parse_args()
    if unknown := [name for name in options.suites if name not in SUITES]:
        parser.error(f"there is no suite {unknown[0]!r}; the suites are {', '.join(SUITES)}")
    circumstances = machine()
    print(", ".join(f"{key} {value}" for key, value in circumstances.items()), file=sys.stderr)
    measured: list[Measurement] = []
    for name in options.suites or SUITES:
        start = time.monotonic()
        measure, repeats = SUITES[name]
        for measurement in measure(options.repeats or repeats):
            measured.append(measurement)
            print(f"{measurement.name}: {measurement.words}  {measurement.target_words}", flush=True)
        print(f"{name} took {time.monotonic() - start:.0f} s", file=sys.stderr)
    if options.check:
        return _check(measured, circumstances["processor"])
    store(measured, circumstances)
    return 0


def _check(measured: list[Measurement], processor: str) -> int:
    stored = stored_measurements(processor)
    compared = [(now, stored[now.name]) for now in measured if now.name in stored]
    if not compared:
        print(
            f"no measurements of this processor ({processor}) are stored; run `make bench` first",
            file=sys.stderr,
        )
        return 1
    slower = [(now, before) for now, before in compared if now.is_slower_than(before)]
    for now, before in slower:
        print(f"slower: {now.name}: {now.words}; stored: {before.words}")
    print(f"{len(compared) - len(slower)} of {len(compared)} measurements are as fast as the stored ones")
    return 1 if slower else 0


if __name__ == "__main__":
    raise SystemExit(main())
