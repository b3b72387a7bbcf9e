"""Paired samples: the values of two arms, matched by seed if enough seeds are shared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from initbench.analysis.stats.summary import Scale

Value = TypeVar("Value")
Arm = Mapping[Any, float | None]
"""Values by seed, or by another key that pairs runs; None for a run that has no value."""
MIN_VALUES = 2
"""Number of values, or of pairs, from which on there is a standard deviation."""


@dataclass(frozen=True)
class Samples:
    """The values of two arms, as logarithms on the log scale."""

    left: tuple[float, ...]
    right: tuple[float, ...]
    are_pairs: bool
    """Whether the i-th value of `left` and the i-th value of `right` are a pair."""
    are_defined: bool
    """Whether all values are finite and, on the log scale, were positive."""

    @property
    def are_enough(self) -> bool:
        """Whether both arms have enough values for a standard deviation."""
        return min(len(self.left), len(self.right)) >= MIN_VALUES


def align_samples(a: Arm, b: Arm, paired: bool, scale: Scale) -> Samples:
    """Return the values of two arms; only the shared seeds if `paired` and enough of them are shared."""
    known_a, known_b = drop_missing(a), drop_missing(b)
    pairs = shared_pairs(known_a, known_b) if paired else None
    left, right = tuple(known_a.values()), tuple(known_b.values())
    if pairs:
        left, right = zip(*pairs, strict=True)
    everything = (*left, *right)
    # If the sum of the absolute values is finite, no later sum or difference overflows.
    defined = math.isfinite(sum(map(abs, everything)))
    if scale == "log":
        defined = defined and all(value > 0.0 for value in everything)
        if defined:
            left, right = tuple(map(math.log, left)), tuple(map(math.log, right))
    return Samples(left, right, bool(pairs), defined)


def drop_missing(arm: Mapping[Any, Value | None]) -> dict[Any, Value]:
    """Return the entries that have a value."""
    return {seed: value for seed, value in arm.items() if value is not None}


def shared_pairs(a: Mapping[Any, Value], b: Mapping[Any, Value]) -> list[tuple[Value, Value]] | None:
    """Return the pairs of values with the same seed, in the order of `a`; None if too few are shared.

    At least two pairs are needed, and at least half of the seeds of the smaller arm: otherwise more
    information is lost with the unshared seeds than is gained by pairing. The rule depends only on the seeds,
    never on the values.
    """
    pairs = [(value, b[seed]) for seed, value in a.items() if seed in b]
    return pairs if len(pairs) >= MIN_VALUES and 2 * len(pairs) >= min(len(a), len(b)) else None
