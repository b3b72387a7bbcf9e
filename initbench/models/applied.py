"""What apply_init says it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class SetTensor:
    """A tensor that was overwritten."""

    name: str
    fan_in: float
    fan_out: float
    std_asked: float | None
    """What the scheme draws with; None where weights are not independent draws, or are rescaled."""
    std: float
    """Root mean square of what the tensor holds now: its standard deviation about 0."""
    note: str = ""


@dataclass(frozen=True)
class LeftTensor:
    """A parameter that was left as it was."""

    name: str
    why: str


@dataclass(frozen=True)
class Report:
    """What apply_init set and what it left alone; `print` shows it as a table."""

    scheme: str
    activation: str
    seed: int
    set: tuple[SetTensor, ...]
    left: tuple[LeftTensor, ...]

    def as_data(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        header = ("set", "fan_in", "fan_out", "std asked", "std", "")
        rows = [
            (t.name, f"{t.fan_in:g}", f"{t.fan_out:g}", _number(t.std_asked), _number(t.std), t.note)
            for t in self.set
        ]
        lines = [f"{self.scheme}, activation {self.activation}, seed {self.seed}", *_aligned([header, *rows])]
        if self.left:
            lines += ["", *_aligned([("left alone", "why"), *((t.name, t.why) for t in self.left)])]
        return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in padded]
