"""Measure the overhead per run in sweeps of thousands of tiny runs, and the driver's memory.

Each size is one sweep with this number of runs (nets of 2 layers of 16 units, 20 steps) in a fresh process
and store. The overhead per run is (seconds of the command − training) / runs. The training time is the sum
over the recorded cohorts, each counted once, divided by the number of workers. It includes the time that
workers lose while the driver writes, so the wall time per run is printed as well.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measurements import machine

INITS = ("kaiming_normal", "xavier_normal", "lecun_normal", "torch_default", "orthogonal")
SWEEP = """\
kind: sweep
name: tiny
base:
  data: {{name: digits}}
  model: {{family: mlp, depth: 2, width: 16}}
  train: {{steps: 20, batch_size: 32}}
  probe: {{batch: 64, bins: 8, when: [init, end]}}
grid:
  init.scheme: [{inits}]
  train.lr: [{rates}]
seeds: {seeds}
"""


@dataclass(frozen=True)
class Measured:
    """Measurements of one sweep."""

    runs: int
    seconds: float
    training: float
    """Training time of all cohorts divided by the number of workers, in seconds."""
    driver_mb: float
    """Peak memory of the driver, in MB."""
    cpu: float
    """CPU time of the driver, in seconds."""

    @property
    def overhead_ms(self) -> float:
        """Overhead per run, in milliseconds."""
        return 1000.0 * (self.seconds - self.training) / self.runs


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, nargs="+", default=[500, 2000], help="sizes (default 500 2000)")
    parser.add_argument("--seeds", type=int, default=8, help="of each experiment (default 8)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def main() -> None:
    """Measure all sizes and print the figures."""
    options = arguments()
    found = [measure(runs, options.seeds, options.workers) for runs in options.runs]
    if options.json:
        print(json.dumps({"machine": machine(), "sweeps": [asdict(one) for one in found]}))
        return
    print("n = 1 of each size; overhead: (wall − training) / runs")
    for one in found:
        print(
            f"{one.runs:>6,} runs  {one.seconds:7.1f} s  {1000 * one.seconds / one.runs:6.1f} ms a run,"
            f" training {1000 * one.training / one.runs:6.1f}, overhead {one.overhead_ms:6.1f} ms;"
            f" driver {one.driver_mb:,.0f} MB at most, {1000 * one.cpu / one.runs:.1f} ms CPU a run"
        )
    first, last = found[0], found[-1]
    print(
        f"overhead of a run, {last.runs:,} runs / {first.runs:,}: {last.overhead_ms / first.overhead_ms:.2f};"
        f" memory {last.driver_mb / first.driver_mb:.2f}"
    )
    print(", ".join(f"{key} {value}" for key, value in machine().items()))


def measure(runs: int, seeds: int, workers: int) -> Measured:
    """Measure one sweep of `runs` runs, rounded down to whole experiments."""
    rates = max(1, runs // (seeds * len(INITS)))
    total = rates * seeds * len(INITS)
    with tempfile.TemporaryDirectory(prefix="initbench-benchmark-") as folder:
        file, store = Path(folder) / "tiny.yaml", Path(folder) / "runs"
        rising = ", ".join(f"{0.001 * (i + 1):.4f}" for i in range(rates))
        file.write_text(SWEEP.format(inits=", ".join(INITS), rates=rising, seeds=seeds), encoding="utf-8")
        command = ["-m", "initbench", "sweep", str(file), "--runs-dir", str(store), "--quiet", "--json"]
        print(f"{total:,} runs", file=sys.stderr, flush=True)
        start = time.perf_counter()
        memory, cpu = watched([sys.executable, *command, "--executor", "local", "--workers", str(workers)])
        seconds = time.perf_counter() - start
        records = [json.loads(path.read_text(encoding="utf-8")) for path in store.glob("*/run.json")]
    if len(records) != total or any(record["status"] != "finished" for record in records):
        raise RuntimeError("not all runs were trained to their end")
    training = sum(record["timings"]["total"] / record["cohort"] for record in records) / workers
    return Measured(total, seconds, training, memory, cpu)


def watched(command: list[str]) -> tuple[float, float]:
    """Run the command and return the peak memory (MB) and the CPU time (s) of its process."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    proc, most, cpu = Path(f"/proc/{process.pid}"), 0.0, 0.0
    while process.poll() is None:
        with suppress(OSError, IndexError, ValueError):  # the process may exit at any moment
            status = (proc / "status").read_text(encoding="ascii")
            most = max(most, float(status.partition("VmHWM:")[2].split()[0]) / 1024)
            times = (proc / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            cpu = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
        time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"failed: {' '.join(command)}")
    return most, cpu


if __name__ == "__main__":
    main()
