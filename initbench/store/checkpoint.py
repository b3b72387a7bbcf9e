"""What an interrupted run goes on from: its last checkpoint, and what was reported until then.

A checkpoint is one safetensors file with the number of updates in its metadata, under "step". What a run
reported after it is cut off when the run is taken up again, for it is going to be reported again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from initbench.store import strictjson
from initbench.store.files import read_lines, write_atomic

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Resumption:
    """Where a run that was interrupted goes on."""

    step: int
    """Updates made."""
    state: bytes
    """The contents of its checkpoint."""
    snapshots: list[dict[str, Any]]
    """The probes reported until then."""


def checkpoint_step(directory: Path) -> int | None:
    """The step of the checkpoint in a run's directory; None when there is none that can be read."""
    try:
        with (directory / CHECKPOINT).open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            return int(strictjson.loads(file.read(size).decode())["__metadata__"]["step"])
    except (OSError, KeyError, TypeError, ValueError, OverflowError, MemoryError):
        return None


def cut_back(directory: Path, metrics: str, layers: str, shift: str) -> Resumption | None:
    """Cut the lines of a run's three files back to its checkpoint; None when it has to begin anew.

    Raises OSError when the system refuses.
    """
    step = checkpoint_step(directory)
    if step is None:
        return None
    kept = [_keep(directory / name, step) for name in (metrics, layers, shift)]
    return Resumption(step, (directory / CHECKPOINT).read_bytes(), kept[1])


def _keep(path: Path, step: int) -> list[dict[str, Any]]:
    lines = read_lines(path) if path.exists() else []
    entries = [strictjson.loads(line) for line in lines]
    kept = [line for line, entry in zip(lines, entries, strict=True) if entry["step"] <= step]
    if path.exists():  # the last line may be torn, which `read_lines` has left out
        write_atomic(path, "".join(line + "\n" for line in kept))
    return entries[: len(kept)]
