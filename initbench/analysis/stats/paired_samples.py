"""The values of two arms side by side: those of the seeds that both have, where seeds are shared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from initbench.analysis.stats.summary import Scale

Value = TypeVar("Value")
Arm = Mapping[Any, float | None]
"""Values by seed, or by whatever else makes two runs partners; None for a run that has no value."""
MIN_VALUES = 2
"""Fewer values have no spread, and fewer pairs have none either."""


@dataclass(frozen=True)
class Samples:
    """The values of two arms, as logarithms on the log scale."""

    left: tuple[float, ...]
    right: tuple[float, ...]
    are_pairs: bool
    """Whether the i-th value of one belongs to the i-th of the other."""
    are_defined: bool
    """Whether all are finite and, on the log scale, were positive."""

    @property
    def are_enough(self) -> bool:
        """Whether both have a spread."""
        return min(len(self.left), len(self.right)) >= MIN_VALUES


def align_samples(a: Arm, b: Arm, paired: bool, scale: Scale) -> Samples:
    """What there is to compare of two arms."""
    known_a, known_b = drop_missing(a), drop_missing(b)
    pairs = shared_pairs(known_a, known_b) if paired else None
    left, right = tuple(known_a.values()), tuple(known_b.values())
    if pairs:
        left, right = zip(*pairs, strict=True)
    everything = (*left, *right)
    # A finite sum of sizes keeps every sum and difference below from overflowing.
    defined = math.isfinite(sum(map(abs, everything)))
    if scale == "log":
        defined = defined and all(value > 0.0 for value in everything)
        if defined:
            left, right = tuple(map(math.log, left)), tuple(map(math.log, right))
    return Samples(left, right, bool(pairs), defined)


def drop_missing(arm: Mapping[Any, Value | None]) -> dict[Any, Value]:
    """The seeds that have a value."""
    return {seed: value for seed, value in arm.items() if value is not None}


def shared_pairs(a: Mapping[Any, Value], b: Mapping[Any, Value]) -> list[tuple[Value, Value]] | None:
    """The pairs of values with the same seed, in the order of `a`; None where too few are shared.

    Enough are two pairs that hold at least half of the smaller arm: with fewer, the seeds left out
    would tell more than the pairing does. The rule looks at seeds alone, never at values.
    """
    pairs = [(value, b[seed]) for seed, value in a.items() if seed in b]
    return pairs if len(pairs) >= MIN_VALUES and 2 * len(pairs) >= min(len(a), len(b)) else None
