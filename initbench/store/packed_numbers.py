"""The evaluations and layers of a run as one array of numbers: 8 bytes each, on disk and in memory.

Parsing them as text would take most of the time of reading a summary. As Python objects they would take most
of the memory of a comparison: 40 kB for a run of 20 layers, and thousands of runs are compared at once.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from typing import Any

from initbench.store.record_schema import is_list, is_mapping, is_natural, is_table, is_text
from initbench.store.run_directory import Record

LAYER_ACTIVATIONS = {
    "act_std": "std",
    "act_mean": "mean",
    "zero_fraction": "zero_fraction",
    "dead_fraction": "dead_fraction",
    "saturated_fraction": "saturated_fraction",
    "effective_rank": "effective_rank",
}
"""Statistics of the activation of a layer, and their keys in layers.jsonl."""
LAYER_STATISTICS = ("q", *LAYER_ACTIVATIONS, "delta_q", "weight_gradient", "weight_std", "unit_spread")
"""E[h²] of the pre-activation, statistics of the activation, E[δ²] at the pre-activation, ‖∂L/∂W‖, the std of
the weights, and the largest relative spread over units (0 if all units are equal)."""
RUNNING_STATISTICS = ("running_mean_gap", "running_var_ratio")
"""Additional statistics of layers that are followed by batch norm."""
SHIFT_STATISTICS = ("gradient_shift", "gradient_shift_cosine", "input_mean_drift", "input_std_drift")
"""Statistics of internal covariate shift, only at TRAIN: means over the updates where it was measured."""
Layer = dict[str, float | None]
"""Statistics of one weight layer by name: LAYER_STATISTICS, and RUNNING_STATISTICS in nets with batch norm;
at TRAIN, SHIFT_STATISTICS. `act_std` of a head is None."""
Evaluations = list[list[float | None]]
"""[step, train_loss, val_loss, val_accuracy] of each evaluation."""
EVALUATION_KEYS = ("step", "train_loss", "val_loss", "val_accuracy")
"""Keys of an evaluation that `Evaluations` has in this order."""

_COLUMNS = len(EVALUATION_KEYS)
_LAYER_NAMES: tuple[list[str], ...] = (
    *([], [*LAYER_STATISTICS], [*LAYER_STATISTICS, *RUNNING_STATISTICS], [*SHIFT_STATISTICS]),
)
_Layout = tuple[tuple[str, int, tuple[str, ...]], ...]


@dataclass(frozen=True)
class PackedNumbers:
    """The numbers of all evaluations and layers of a run."""

    evaluations: int
    """Number of evaluations."""
    layout: _Layout
    """Moment, number of layers and names of their statistics, for each moment."""
    missing: tuple[int, ...]
    """Positions of numbers that are None."""
    values: bytes
    """All numbers as float64, those of evaluations first."""

    def __hash__(self) -> int:
        """Return the hash of the numbers alone, which Python computes only once."""
        return hash(self.values)

    @classmethod
    def pack(cls, evaluations: Evaluations, layers: Mapping[str, Sequence[Layer]]) -> PackedNumbers:
        """Pack the numbers; all layers of a moment must have the same statistics."""
        numbers = list(chain.from_iterable(evaluations))
        for layer in chain.from_iterable(layers.values()):
            numbers += layer.values()
        floats = (math.nan if number is None else number for number in numbers)
        return cls(
            len(evaluations),
            _shared((moment, len(rows), tuple(rows[0] if rows else ())) for moment, rows in layers.items()),
            tuple(i for i, number in enumerate(numbers) if number is None),
            struct.pack(f"<{len(numbers)}d", *floats),
        )

    @classmethod
    def from_record(cls, record: Record) -> PackedNumbers:
        """Return the numbers in a record for which IS_PACKED holds.

        Raises ValueError if the array does not fit the numbers of evaluations and layers.
        """
        moments = record["layers"].items()
        packed = cls(
            record["evaluations"],
            _shared((moment, count, tuple(names)) for moment, (count, *names) in moments),
            tuple(record["missing"]),
            base64.b64decode(record["values"], validate=True),
        )
        if len(packed.values) != 8 * packed.size or not all(i < packed.size for i in packed.missing):
            raise ValueError("there are not as many numbers as expected")
        return packed

    def as_record(self) -> Record:
        """Return the numbers as they are stored in a summary."""
        return {
            "evaluations": self.evaluations,
            "layers": {moment: [count, *names] for moment, count, names in self.layout},
            "missing": list(self.missing),
            "values": base64.b64encode(self.values).decode(),
        }

    @property
    def size(self) -> int:
        """Number of numbers."""
        return _COLUMNS * self.evaluations + sum(count * len(names) for _, count, names in self.layout)

    def unpack(self) -> tuple[Evaluations, dict[str, list[Layer]]]:
        """Return the evaluations, and the layers of each moment."""
        numbers: list[float | None] = list(struct.unpack(f"<{self.size}d", self.values))
        for i in self.missing:
            numbers[i] = None
        remaining = iter(numbers)
        evaluations = [list(islice(remaining, _COLUMNS)) for _ in range(self.evaluations)]
        layers = {
            moment: [dict(zip(names, islice(remaining, len(names)), strict=True)) for _ in range(count)]
            for moment, count, names in self.layout
        }
        return evaluations, layers


def _shared(moments: Iterator[tuple[str, int, tuple[str, ...]]]) -> _Layout:
    """Return the layout, as one object for all runs of the same kind of net."""
    return _first_equal(tuple(moments))


@lru_cache(maxsize=256)
def _first_equal(layout: _Layout) -> _Layout:
    return layout


def _is_layout(value: Any, path: str) -> Iterator[str]:
    """Check that the value is a list of the number of layers and, if there are any, of their statistics."""
    count, *names = value if isinstance(value, list) and value else [None]
    if type(count) is not int or count < 0 or names not in _LAYER_NAMES or bool(names) != bool(count):
        yield f"{path} is not a number of layers with their statistics"


IS_PACKED = is_mapping(
    evaluations=is_natural, layers=is_table(_is_layout), missing=is_list(is_natural), values=is_text
)
"""Check of a record that `PackedNumbers.as_record` returns."""
