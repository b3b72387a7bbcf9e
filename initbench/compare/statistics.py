"""Summaries over seeds. No number is given where there is none to give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation (ddof 1) of n values; each None where it cannot be had."""

    mean: float | None
    std: float | None
    n: int


def summarise(values: Sequence[float | None]) -> Summary:
    """The mean and the standard deviation of the values that are there; std is None for fewer than two."""
    known = [v for v in values if v is not None]
    if not known:
        return Summary(None, None, 0)
    mean = math.fsum(known) / len(known) if all(map(math.isfinite, known)) else sum(known) / len(known)
    if len(known) < 2:
        return Summary(mean, None, len(known))
    return Summary(mean, math.sqrt(sum((v - mean) ** 2 for v in known) / (len(known) - 1)), len(known))


def geometric(values: Sequence[float | None]) -> Summary:
    """The geometric mean, and the standard deviation of the natural logarithms; zeros have neither."""
    known = [v for v in values if v is not None]
    if any(v <= 0 or not math.isfinite(v) for v in known):
        return Summary(None, None, len(known))
    logs = summarise([math.log(v) for v in known])
    return Summary(None if logs.mean is None else math.exp(logs.mean), logs.std, logs.n)
