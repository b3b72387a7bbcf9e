"""Intervals for a mean and for a rate. scipy is imported where it computes: `--help` does without it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from initbench.analysis.stats.summary import Scale, Summary, summarise, summarise_geometric
from initbench.errors import UsageError


@dataclass(frozen=True)
class Interval:
    """All values that the data do not speak against, at a level of confidence."""

    low: float
    high: float
    confidence: float

    @property
    def is_degenerate(self) -> bool:
        """Whether it has no width: every seed gave the same, so nothing is known about their spread.

        It then repeats what was seen, and promises nothing about further seeds.
        """
        return self.low == self.high

    def contains(self, value: float) -> bool:
        """Whether `value` lies in it, the ends included."""
        return self.low <= value <= self.high


def mean_interval(
    values: Sequence[float | None], confidence: float = 0.95, scale: Scale = "linear"
) -> Interval | None:
    """Student's interval for the mean of what the values are draws of; see `summary_interval`."""
    return summary_interval((summarise_geometric if scale == "log" else summarise)(values), confidence, scale)


def summary_interval(summary: Summary, confidence: float = 0.95, scale: Scale = "linear") -> Interval | None:
    """Student's interval for a mean, of its summary.

    mean ± t(n − 1) · std / √n, with t the quantile at (1 + confidence) / 2. With `scale="log"` the summary
    is geometric, and the same holds for the logarithm of its mean. Exact for normal values. None for fewer
    than two values, or where a value is not finite; without width where all are the same.
    Source: Student 1908, The probable error of a mean. Raises UsageError for a confidence outside (0, 1).
    """
    validate_confidence(confidence)
    if summary.mean is None or summary.std is None or summary.n < 2:
        return None
    middle = math.log(summary.mean) if scale == "log" else summary.mean
    return t_interval(middle, summary.std / math.sqrt(summary.n), summary.n - 1, confidence, scale)


def t_interval(middle: float, error: float, df: float, confidence: float, scale: Scale) -> Interval | None:
    """`middle` ± t(df) · `error`, carried from logarithms to ratios on the log scale; None if not finite."""
    reach = t_quantile((1.0 + confidence) / 2.0, df) * error if error else 0.0
    low, high = middle - reach, middle + reach
    if scale == "log":
        low, high = safe_exp(low), safe_exp(high)
    return Interval(low, high, confidence) if math.isfinite(middle) and math.isfinite(reach) else None


def safe_exp(logarithm: float) -> float:
    """exp(logarithm), infinite where float64 cannot hold it."""
    return math.exp(logarithm) if logarithm < 709.0 else math.inf


def rate_interval(events: int, trials: int, confidence: float = 0.95) -> Interval | None:
    """The exact interval for the probability of an event that came `events` times in `trials`.

    The ends are the probabilities at which as many events or more, or as many or fewer, have probability
    (1 − confidence) / 2: quantiles of Beta(k, n − k + 1) and Beta(k + 1, n − k). It covers at least
    `confidence`, mostly more. None without trials. Source: Clopper & Pearson 1934.
    Raises UsageError for a confidence outside (0, 1).
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
    """The confidence itself. Raises UsageError where it is not between 0 and 1."""
    if not 0.0 < confidence < 1.0:
        raise UsageError(f"a confidence lies between 0 and 1, such as 0.95; got {confidence}")
    return confidence


def t_quantile(probability: float, df: float) -> float:
    """The quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def t_two_sided(t: float, df: float) -> float:
    """The probability of a t further from 0 than this one, in either direction."""
    from scipy.special import stdtr

    return min(1.0, 2.0 * float(stdtr(df, -abs(t))))
