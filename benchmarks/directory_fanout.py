"""Measure how a directory bears many entries: all in one, or in 256 subdirectories by a prefix of two digits.

    python -m benchmarks.directory_fanout [--entries N …] [--folder DIR]

The entries are empty files with names as long as run ids. The time of each operation is CPU time of this
process, which includes the work of the file system, per entry.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ENTRIES = (10_000, 100_000, 1_000_000)
OPERATIONS = ("create", "look up", "list", "rename", "remove")


@dataclass(frozen=True)
class Fanout:
    """Microseconds per entry of each operation in one layout."""

    entries: int
    sharded: bool
    times: dict[str, float]


def measure(entries: int, folder: Path, *, sharded: bool) -> Fanout:
    """Create, look up, list, rename and remove this number of entries below `folder`."""
    root = Path(tempfile.mkdtemp(prefix="fanout-", dir=folder))
    names = [f"tiny.lr{i // 50:06d}-s{i % 50}-{_digits(i)}" for i in range(entries)]
    paths = [str(root / name[-10:-8] / name) if sharded else str(root / name) for name in names]
    parents = sorted({os.path.dirname(path) for path in paths})  # noqa: PTH120 - a million of them
    for parent in parents:
        Path(parent).mkdir(exist_ok=True)
    shuffled = random.Random(0).sample(paths, len(paths))
    times = {
        "create": _per_entry(_create, paths),
        "look up": _per_entry(os.stat, shuffled),
        "list": _per_entry(lambda parent: [entry.name for entry in os.scandir(parent)], parents, entries),
        "rename": _per_entry(lambda path: os.rename(path, f"{path}.new"), shuffled),  # noqa: PTH104
        "remove": _per_entry(lambda path: os.unlink(f"{path}.new"), paths),  # noqa: PTH108
    }
    shutil.rmtree(root)
    return Fanout(entries, sharded, times)


def _digits(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:10]


def _create(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))


def _per_entry(act: Callable[[str], object], paths: Sequence[str], entries: int | None = None) -> float:
    start = time.process_time()
    for path in paths:
        act(path)
    return 1e6 * (time.process_time() - start) / (entries or len(paths))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--entries", type=int, nargs="+", default=ENTRIES)
    parser.add_argument("--folder", type=Path, default=Path("/tmp"), help="on the file system to measure")
    options = parser.parse_args()
    for entries in options.entries:
        for sharded in (False, True):
            fanout = measure(entries, options.folder, sharded=sharded)
            times = ", ".join(f"{name} {value:.1f}" for name, value in fanout.times.items())
            print(f"{entries:>9,} entries, {'256 directories' if sharded else 'flat':15} µs each: {times}")


if __name__ == "__main__":
    main()
