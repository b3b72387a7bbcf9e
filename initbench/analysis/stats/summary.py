"""Means and standard deviations over seeds; a number that cannot be computed is None."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Scale = Literal["linear", "log"]
"""Whether means are taken of the values or of their logarithms; on the log scale, differences are ratios."""


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation (ddof 1) of n values; each is None if it cannot be computed."""

    mean: float | None
    std: float | None
    n: int


def summarise(values: Sequence[float | None]) -> Summary:
    """Return the mean and the standard deviation of the values that are not None.

    std is None for fewer than two values.
    """
    numbers = [v for v in values if v is not None]
    if not numbers:
        return Summary(None, None, 0)
    if min(numbers) == max(numbers) and all(
        map(math.isfinite, numbers)
    ):  # min and max are meaningless if a value is NaN
        # A sum divided by n may differ from the common value by rounding, which would look like a spread.
        return Summary(float(numbers[0]), 0.0 if len(numbers) > 1 else None, len(numbers))
    mean = _safe_mean(numbers)
    if len(numbers) < 2:
        return Summary(mean, None, len(numbers))
    deviations = (v - mean for v in numbers)
    return Summary(mean, math.hypot(*deviations) / math.sqrt(len(numbers) - 1), len(numbers))


def _safe_mean(numbers: Sequence[float]) -> float:
    if math.isfinite(sum(map(abs, numbers))):
        return math.fsum(numbers) / len(numbers)
    return sum(v / len(numbers) for v in numbers)


def summarise_geometric(values: Sequence[float | None]) -> Summary:
    """Return the geometric mean, and the standard deviation of the natural logarithms.

    Both are None if a value is not positive and finite.
    """
    numbers = [v for v in values if v is not None]
    if any(v <= 0 or not math.isfinite(v) for v in numbers):
        return Summary(None, None, len(numbers))
    logs = summarise([math.log(v) for v in numbers])
    return Summary(None if logs.mean is None else math.exp(logs.mean), logs.std, logs.n)
