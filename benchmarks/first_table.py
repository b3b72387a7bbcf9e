"""Compare the shortest commands with an import of torch: what a user waits for until the first table.

The start of the workers is the time from the moment at which the driver has prepared the data until the first
update in every worker, for two seeds in two workers.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.measurements import Measurement, initbench, measure_repeatedly, ratios, seconds_of

CONFIG = str(Path(__file__).resolve().parents[1] / "configs" / "relu_kaiming.yaml")
IMPORT = [sys.executable, "-c", "import torch; torch.optim.SGD([torch.zeros(1, requires_grad=True)])"]


def measure(repeats: int) -> list[Measurement]:
    """Return the time of the commands relative to the import."""

    def run() -> float:
        with tempfile.TemporaryDirectory(prefix="initbench-benchmark-") as runs:
            options = ["data.name=digits", "train.steps=100", "seeds=1", "--runs-dir", runs, "--quiet"]
            return seconds_of(initbench("run", CONFIG, *options, "--device", "cpu"))

    def ready() -> float:
        with tempfile.TemporaryDirectory(prefix="initbench-benchmark-") as runs:
            return _seconds_until_updates(Path(runs))

    plain, help_page, probe, trained, started = measure_repeatedly(
        repeats,
        lambda: seconds_of(IMPORT),
        lambda: seconds_of(initbench("--help")),
        lambda: seconds_of(initbench("probe", CONFIG)),
        run,
        ready,
    )
    return [
        Measurement("initbench --help", tuple(help_page), unit="s", is_cost=True),
        Measurement(
            "probe of relu_kaiming on MNIST / import of torch", ratios(probe, plain), target=1.5, is_cost=True
        ),
        Measurement(
            "run of relu_kaiming, 100 steps on digits / import of torch",
            ratios(trained, plain),
            target=2.0,
            is_cost=True,
        ),
        Measurement(
            "data prepared → first update in both workers", tuple(started), unit="s", target=1.0, is_cost=True
        ),
    ]


def _seconds_until_updates(runs: Path) -> float:
    """Train two seeds in two workers, in a process of its own, and return the time until both update."""
    import json
    import subprocess

    command = [sys.executable, "-m", "benchmarks.worker_start", str(runs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["seconds"])
