"""Measurements of speed, the file that stores them, and their table in benchmarks/README.md.

A measurement is a ratio or a time that was taken several times in one session, so that other load on the
machine affects both sides of a ratio. `benchmarks/measured.json` has the last measurements of each processor.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from docs.generators.markdown import between, table

HERE = Path(__file__).resolve().parent
STORED, README = HERE / "measured.json", HERE / "README.md"
BEGIN, END = "<!-- begin: measured -->", "<!-- end: measured -->"
TOLERANCE = 0.05
"""Share by which a measurement may be worse than the worst stored value before it counts as slower."""


@dataclass(frozen=True)
class Measurement:
    """Values of one quantity, measured in one session."""

    name: str
    values: tuple[float, ...]
    unit: str = ""
    """`s`, `%`, or empty for a ratio."""
    target: float | None = None
    """The value to reach; None if the quantity is only reported."""
    is_cost: bool = False
    """Whether smaller values are better."""

    @property
    def median(self) -> float:
        """The median of the values."""
        return statistics.median(self.values)

    @property
    def worst(self) -> float:
        """The worst value."""
        return max(self.values) if self.is_cost else min(self.values)

    @property
    def best(self) -> float:
        """The best value."""
        return min(self.values) if self.is_cost else max(self.values)

    @property
    def reaches_target(self) -> bool | None:
        """Whether the median reaches the target; None without a target."""
        if self.target is None:
            return None
        return self.median <= self.target if self.is_cost else self.median >= self.target

    def is_slower_than(self, stored: Measurement) -> bool:
        """Return whether even the best value is worse than the worst stored one, beyond the tolerance."""
        if self.is_cost:
            return self.best > stored.worst * (1.0 + TOLERANCE)
        return self.best < stored.worst * (1.0 - TOLERANCE)

    @property
    def words(self) -> str:
        """The median, the range and the number of values."""
        unit = f" {self.unit}" if self.unit else ""
        spread = f" ({min(self.values):.3g} to {max(self.values):.3g})" if len(self.values) > 1 else ""
        return f"{self.median:.3g}{unit}{spread}, n = {len(self.values)}"

    @property
    def target_words(self) -> str:
        """The target and whether it was reached; empty without a target."""
        if self.target is None:
            return ""
        sign, unit = "≤" if self.is_cost else "≥", f" {self.unit}" if self.unit else ""
        return f"{sign} {self.target:g}{unit}: {'reached' if self.reaches_target else 'missed'}"


def measure_repeatedly(repeats: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Call the functions in turn, `repeats` times, and return the values of each."""
    values: list[list[float]] = [[] for _ in measures]
    for _ in range(repeats):
        for kept, measure in zip(values, measures, strict=True):
            kept.append(measure())
    return values


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> tuple[float, ...]:
    """Return how many times as fast ours is, from the seconds of each repeat."""
    return tuple(a / b for a, b in zip(theirs, ours, strict=True))


def seconds_of(*commands: Sequence[str], env: Mapping[str, str] | None = None) -> float:
    """Start all commands together and return the seconds until the last one ends.

    Raises RuntimeError if one fails.
    """
    start = time.perf_counter()
    processes = [
        subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **(env or {})}
        )
        for command in commands
    ]
    errors = [process.communicate()[1].decode(errors="replace") for process in processes]
    seconds = time.perf_counter() - start
    for command, process, error in zip(commands, processes, errors, strict=True):
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{error}")
    return seconds


def initbench(*arguments: str) -> list[str]:
    """Return the command line of an initbench command."""
    return [sys.executable, "-m", "initbench", *arguments]


def script(name: str, *arguments: str) -> list[str]:
    """Return the command line of a module of this folder.

    It is not run as a file: its folder would then be searched for modules, and torch imports one called cuda.
    """
    return [sys.executable, "-m", f"benchmarks.{name}", *arguments]


def machine() -> dict[str, Any]:
    """Return the processor, its number of cores, the versions and the load."""
    import torch

    from initbench.runner.environment import machine_record

    found = machine_record(torch.device("cpu"))
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "?"
    return {
        "processor": str(found["processor"]),
        "cores": found["cores"],
        "torch": str(torch.__version__).partition("+")[0],
        "python": platform.python_version(),
        "load": load,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def load_stored() -> dict[str, Any]:
    """Return the stored measurements by processor."""
    if not STORED.exists():
        return {}
    stored: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return stored


def stored_measurements(processor: str) -> dict[str, Measurement]:
    """Return the stored measurements of a processor by name."""
    entries = load_stored().get(processor, {}).get("measurements", {})
    return {
        name: Measurement(**{**entry, "values": tuple(entry["values"])}) for name, entry in entries.items()
    }


def store(measured: Sequence[Measurement], circumstances: Mapping[str, Any]) -> None:
    """Store the measurements under their processor, and rewrite the table of the README."""
    stored = load_stored()
    entry = stored.setdefault(circumstances["processor"], {"measurements": {}})
    entry["machine"] = dict(circumstances)
    for measurement in measured:
        rounded = tuple(float(f"{value:.4g}") for value in measurement.values)
        entry["measurements"][measurement.name] = {**asdict(measurement), "values": rounded}
    STORED.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(text: str) -> str:
    """Return the text of the README with the tables of the stored measurements."""
    parts = []
    for processor, entry in load_stored().items():
        where = entry["machine"]
        title = f"{processor}, {where['cores']} cores, torch {where['torch']}, Python {where['python']},"
        title += f" {where['date']}, load average {where['load']} at the start:"
        rows = [
            [measurement.name, measurement.words, measurement.target_words]
            for measurement in stored_measurements(processor).values()
        ]
        parts.append(f"{title}\n\n{table(['measurement', 'median (min to max)', 'target'], rows)}")
    return between(text, BEGIN, END, "\n\n".join(parts))
