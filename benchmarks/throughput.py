"""Compare `initbench run configs/relu_kaiming.yaml` with two scripts that train the same three seeds.

Everything is timed from the start of the command to its end. The bare loop trains its nets one after another
with torch's own number of threads; of the DataLoader script, one net is timed and counted three times.
initbench evaluates, probes and stores as well, into a fresh folder each time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.measurements import Measurement, initbench, measure_repeatedly, ratios, script, seconds_of

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "relu_kaiming.yaml"
SEEDS = 3


def measure(repeats: int, steps: int = 2000) -> list[Measurement]:
    """Return the speed of the command relative to both scripts."""

    def command() -> float:
        with tempfile.TemporaryDirectory(prefix="initbench-benchmark-") as runs:
            options = [f"train.steps={steps}", f"seeds={SEEDS}", "data.fallback=null", "--runs-dir", runs]
            return seconds_of(initbench("run", str(CONFIG), *options, "--quiet", "--device", "cpu"))

    def bare() -> float:
        return seconds_of(script("bare_loop", "--steps", str(steps), "--nets", str(SEEDS)))

    def loader() -> float:
        return SEEDS * seconds_of(script("dataloader_script", "--steps", str(steps)))

    ours, bare_seconds, loader_seconds = measure_repeatedly(repeats, command, bare, loader)
    name = f"run of relu_kaiming, {SEEDS} seeds × {steps:,} steps"
    return [
        Measurement(f"bare loop / {name}", ratios(bare_seconds, ours), target=1.7),
        Measurement(f"DataLoader script / {name}", ratios(loader_seconds, ours), target=5.0),
    ]
