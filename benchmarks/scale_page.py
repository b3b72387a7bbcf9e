"""Write the measured parts of docs/scale.md from the samples of `benchmarks.scale`."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.directory_fanout import OPERATIONS, Fanout
from benchmarks.measurements import machine
from benchmarks.scale import (
    COMMANDS,
    COMPARE,
    FEW_POINTS,
    LIST,
    MERGE,
    SYNCED,
    TRAIN,
    Footprint,
    Sample,
)
from docs.generators.markdown import NOTHING, between, page, table

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
SHARD = 100_000
"""Runs per store in the plan."""
PLANNED = 10_000_000
_HOUR = 3600.0
Figure = Callable[[Sample], float]


def write(samples: Sequence[Sample], footprint: Footprint, fanouts: Sequence[Fanout]) -> None:
    """Replace the measured parts of docs/scale.md; its prose is not generated."""
    text = PAGE.read_text(encoding="utf-8")
    parts = {
        "circumstances": _circumstances(samples),
        "commands": tables(samples),
        "directories": _directories(fanouts),
        "plan": _plan(samples, footprint),
    }
    for name, content in parts.items():
        text = between(text, f"<!-- begin: {name} -->", f"<!-- end: {name} -->", content.strip())
    PAGE.write_text(text, encoding="utf-8")


def tables(samples: Sequence[Sample]) -> str:
    """Return the tables of CPU time, wall time and memory of all commands at all sizes."""
    kinds = [
        (shape, command)
        for shape in ("points", "seeds")
        for command in COMMANDS
        if any((sample.shape, sample.command) == (shape, command) for sample in samples)
    ]
    sizes = sorted({sample.size for sample in samples})
    names = [command if shape == "points" else f"{command} ({FEW_POINTS} points)" for shape, command in kinds]
    of_kinds = [[sample for sample in samples if (sample.shape, sample.command) == kind] for kind in kinds]
    head = [f"{size:,} runs" for size in sizes]
    cpu = [
        [name, *(_per_run_text(own, size, 1e3) for size in sizes[1:]), _growth(own, sizes)]
        for name, own in zip(names, of_kinds, strict=True)
    ]
    wall = [
        [name, *(_spread(own, size, lambda sample: sample.wall, 2) for size in sizes)]
        for name, own in zip(names, of_kinds, strict=True)
    ]
    memory = [
        [name, *(_spread(own, size, lambda sample: sample.peak / 1e6, 0) for size in sizes), _kilobytes(own)]
        for name, own in zip(names, of_kinds, strict=True)
    ]
    return page(
        "### CPU time per run",
        f"Milliseconds of user and system time per run, beyond those of the command at {sizes[0]} runs.",
        table(["command", *head[1:], f"{sizes[-1]:,} / {sizes[1]:,}"], cpu),
        "### Wall time of the command",
        "Seconds; median (min to max) where n is more than 1.",
        table(["command", *head], wall),
        "### Peak memory of the process",
        "MB; the last column is the growth per run from the smallest size to the largest.",
        table(["command", *head, "kB per run"], memory),
    )


def _of_size(samples: Sequence[Sample], size: int) -> list[Sample]:
    return [sample for sample in samples if sample.size == size]


def _median(samples: Sequence[Sample], size: int, figure: Figure) -> float | None:
    values = [figure(sample) for sample in _of_size(samples, size)]
    return statistics.median(values) if values else None


def per_run(samples: Sequence[Sample], size: int, figure: Figure) -> float | None:
    """Return the growth of a figure per run, from the smallest size to this one; None if it is unknown."""
    smallest = min(sample.size for sample in samples)
    first, last = _median(samples, smallest, figure), _median(samples, size, figure)
    if first is None or last is None or size == smallest:
        return None
    return (last - first) / (_of_size(samples, size)[0].runs - _of_size(samples, smallest)[0].runs)


def _cpu(sample: Sample) -> float:
    return sample.cpu


def _per_run_text(samples: Sequence[Sample], size: int, factor: float) -> str:
    value = per_run(samples, size, _cpu)
    return NOTHING if value is None else f"{factor * value:.3g}"


def _growth(samples: Sequence[Sample], sizes: Sequence[int]) -> str:
    first, last = per_run(samples, sizes[1], _cpu), per_run(samples, sizes[-1], _cpu)
    return NOTHING if not first or last is None or first <= 0.0 else f"{last / first:.2f}"


def _spread(samples: Sequence[Sample], size: int, figure: Figure, digits: int) -> str:
    values = [figure(sample) for sample in _of_size(samples, size)]
    if not values:
        return NOTHING
    spread = f" ({min(values):,.{digits}f} to {max(values):,.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.median(values):,.{digits}f}{spread}"


def _kilobytes(samples: Sequence[Sample]) -> str:
    value = per_run(samples, max(sample.size for sample in samples), lambda sample: sample.peak)
    return NOTHING if value is None else f"{value / 1e3:.1f}"


def _circumstances(samples: Sequence[Sample]) -> str:
    where = machine()
    sizes = " ".join(f"{size}" for size in sorted({sample.size for sample in samples}))
    return (
        f"Written by `python -m benchmarks.scale --sizes {sizes} --write` on {where['date']}:"
        f" {where['processor']}, {where['cores']} cores, torch {where['torch']}, Python {where['python']},"
        f" load average {where['load']} at the end."
    )


def _directories(fanouts: Sequence[Fanout]) -> str:
    rows = [
        [
            f"{fanout.entries:,}",
            "256 directories" if fanout.sharded else "one directory",
            *(f"{fanout.times[name]:.1f}" for name in OPERATIONS),
        ]
        for fanout in fanouts
    ]
    return table(["entries", "layout", *OPERATIONS], rows)


def _plan(samples: Sequence[Sample], footprint: Footprint) -> str:
    def of(command: str) -> list[Sample]:
        return [sample for sample in samples if (sample.shape, sample.command) == ("points", command)]

    def figure(command: str, value: Figure) -> float:
        own = of(command)
        return per_run(own, max(sample.size for sample in own), value) or 0.0

    synced = [sample.wall / sample.runs for sample in of(SYNCED)]
    train, listing, comparison, merging = (figure(name, _cpu) for name in (TRAIN, LIST, COMPARE, MERGE))
    memory = figure(COMPARE, lambda sample: sample.peak)
    rows = [
        ["driver, CPU time", f"{train * SHARD / 60:.0f} min", f"{train * PLANNED / _HOUR:.0f} h"],
        [
            "driver, wall time with synced files",
            f"{max(synced, default=0.0) * SHARD / 60:.0f} min",
            f"{max(synced, default=0.0) * PLANNED / _HOUR:.0f} h",
        ],
        ["`ls`, CPU time", f"{listing * SHARD:.0f} s", f"{listing * PLANNED / 60:.0f} min"],
        ["`compare`, CPU time", f"{comparison * SHARD:.0f} s", f"{comparison * PLANNED / 60:.0f} min"],
        ["`compare`, memory", f"{memory * SHARD / 1e9:.1f} GB", f"{memory * PLANNED / 1e9:.0f} GB"],
        ["`merge`, CPU time", f"{merging * SHARD / 60:.0f} min", f"{merging * PLANNED / _HOUR:.0f} h"],
        ["space", f"{footprint.bytes * SHARD / 1e9:.1f} GB", f"{footprint.bytes * PLANNED / 1e9:.0f} GB"],
        [
            "files and directories",
            f"{footprint.entries * SHARD / 1e6:.1f} million",
            f"{footprint.entries * PLANNED / 1e6:.0f} million",
        ],
        [
            "`runs.parquet`",
            f"{footprint.row * SHARD / 1e6:.0f} MB",
            f"{footprint.row * PLANNED / 1e9:.1f} GB",
        ],
    ]
    return table(["", f"a store of {SHARD:,} runs", f"{PLANNED:,} runs"], rows)
