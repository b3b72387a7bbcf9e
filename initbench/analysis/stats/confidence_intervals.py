"""Confidence intervals of a mean and of a rate.

scipy is imported inside the functions that need it, so that `--help` does not load it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from initbench.analysis.stats.summary import Scale, Summary, summarise, summarise_geometric
from initbench.errors import UsageError


@dataclass(frozen=True)
class Interval:
    """A confidence interval: all values that the data do not rule out at that level of confidence."""

    low: float
    high: float
    confidence: float

    @property
    def is_degenerate(self) -> bool:
        """Whether the interval has no width because all values were equal.

        The spread over seeds is then unknown, and the interval says nothing about other seeds.
        """
        return self.low == self.high

    def contains(self, value: float) -> bool:
        """Return whether `value` is in the closed interval."""
        return self.low <= value <= self.high


def mean_interval(
    values: Sequence[float | None], confidence: float = 0.95, scale: Scale = "linear"
) -> Interval | None:
    """Return Student's interval of the mean of the distribution that the values are drawn from.

    See `summary_interval`. Missing values (None) are ignored.
    """
    return summary_interval((summarise_geometric if scale == "log" else summarise)(values), confidence, scale)


def summary_interval(summary: Summary, confidence: float = 0.95, scale: Scale = "linear") -> Interval | None:
    """Return Student's interval of a mean: mean ± t(n − 1) · std / √n.

    t is the quantile at (1 + confidence) / 2. With `scale="log"` the summary is geometric, and the interval
    is computed for the logarithm of the mean. It is exact if the values (or their logarithms) are normal.
    Source: Student 1908, The probable error of a mean.

    Returns:
        The interval, of zero width if all values are equal; None for fewer than two values, or if a value is
        not finite.

    Raises:
        UsageError: The confidence is not between 0 and 1.
    """
    validate_confidence(confidence)
    if summary.mean is None or summary.std is None or summary.n < 2:
        return None
    middle = math.log(summary.mean) if scale == "log" else summary.mean
    return t_interval(middle, summary.std / math.sqrt(summary.n), summary.n - 1, confidence, scale)


def t_interval(middle: float, error: float, df: float, confidence: float, scale: Scale) -> Interval | None:
    """Return the interval `middle` ± t(df) · `error`, or None if one of the two terms is not finite.

    On the log scale `middle` and `error` are logarithms, and the ends are their exponentials.
    """
    reach = t_quantile((1.0 + confidence) / 2.0, df) * error if error else 0.0
    low, high = middle - reach, middle + reach
    if scale == "log":
        low, high = safe_exp(low), safe_exp(high)
    return Interval(low, high, confidence) if math.isfinite(middle) and math.isfinite(reach) else None


def safe_exp(logarithm: float) -> float:
    """Return exp(logarithm), or infinity if it exceeds float64."""
    return math.exp(logarithm) if logarithm < 709.0 else math.inf


def rate_interval(events: int, trials: int, confidence: float = 0.95) -> Interval | None:
    """Return the exact interval of the probability of an event that occurred `events` times in `trials`.

    At the lower end, k events or more have probability (1 − confidence) / 2; at the upper end, k events or
    fewer have it. The ends are quantiles of Beta(k, n − k + 1) and Beta(k + 1, n − k). The coverage is at
    least `confidence`, and mostly higher.
    Source: Clopper & Pearson 1934.

    Returns:
        The interval, or None for zero trials.

    Raises:
        UsageError: The confidence is not between 0 and 1.
    """
    from scipy.special import betaincinv

    assert 0 <= events <= trials
    tail = (1.0 - validate_confidence(confidence)) / 2.0
    if not trials:
        return None
    others = trials - events
    low = float(betaincinv(events, others + 1, tail)) if events else 0.0
    high = float(betaincinv(events + 1, others, 1.0 - tail)) if others else 1.0
    return Interval(low, high, confidence)


def validate_confidence(confidence: float) -> float:
    """Return the confidence; raise UsageError if it is not between 0 and 1."""
    if not 0.0 < confidence < 1.0:
        raise UsageError(f"the confidence must be between 0 and 1, such as 0.95; got {confidence}")
    return confidence


def t_quantile(probability: float, df: float) -> float:
    """Return the quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def t_two_sided(t: float, df: float) -> float:
    """Return the two-sided p-value of t: P(|T| ≥ |t|) for T with Student's t distribution."""
    from scipy.special import stdtr

    return min(1.0, 2.0 * float(stdtr(df, -abs(t))))
