"""Confidence sequences: intervals that hold at all sample sizes at once, for sampling until a decision.

A fixed-n interval covers the true value with its confidence only at a sample size that is chosen in advance.
If sampling stops as soon as the interval excludes some value, it misses the truth far more often. The
intervals of this module may be looked at after every value, and sampling may stop for any reason.

scipy is imported inside the functions that need it, so that `--help` does not load it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from initbench.analysis.stats.confidence_intervals import Interval, validate_confidence
from initbench.analysis.stats.mean_difference import ROUNDING, mean_and_std
from initbench.analysis.stats.summary import summarise

PRIOR_PRECISION = 0.1
"""Precision c² of the normal mixture over effect sizes (mean / standard deviation).

It only determines at which sample sizes the sequence is narrow, not whether it is valid. With 0.1 a 95 %
interval exists from three values on, and at each sample size from 4 to 40 it is at most 16 % wider than with
the best precision for that size.
"""
_PRIOR_EVENTS = 0.5
"""Both parameters of the beta mixture over rates (Jeffreys)."""
_ROOT_TOLERANCE = 1e-12


def mean_sequence(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Return the interval at n = len(values) of a confidence sequence for the mean of normal values.

    The interval has all m that the sequential t test of "the mean is m" has not rejected. Its statistic is
    the likelihood ratio of t = √n (x̄ − m) / s, where the effect size (mean − m) / σ is distributed as
    N(0, 1/c²) under the alternative (and σ has the right Haar prior under both):

        E_n(m) = √(c² / (n + c²)) · [(1 + t²/(n − 1)) / (1 + c²/(n + c²) · t²/(n − 1))]^(n/2)

    If m is the mean, E_n is a nonnegative martingale that starts at E_1 = 1, so P(E_n ≥ 1/α for any n) ≤ α
    (Ville's inequality). E_n < 1/α is solved for t in closed form.
    Source: Wang & Ramdas 2025, Anytime-valid t-tests and confidence sequences for Gaussian means with unknown
    variance (after Lai 1976, On confidence sequences).

    Returns:
        The interval, of zero width if all values are equal up to rounding; None if there are too few values
        for an interval at this confidence (see `min_values`), or if a value is not finite.

    Raises:
        UsageError: The confidence is not between 0 and 1.
    """
    alpha, n = 1.0 - validate_confidence(confidence), len(values)
    if n < min_values(confidence) or not all(map(math.isfinite, values)):
        return None
    mean, std = mean_and_std(summarise(values))
    if std <= ROUNDING * max(map(abs, values)):
        return Interval(mean, mean, confidence)
    ratio = _variance_ratio(n)
    limit = math.exp((math.log(ratio) - 2.0 * math.log(alpha)) / n)  # of the term in brackets
    reach = std * math.sqrt((n - 1) / n * (limit - 1.0) / (1.0 - limit / ratio))
    return Interval(mean - reach, mean + reach, confidence) if math.isfinite(reach) else None


def min_values(confidence: float) -> int:
    """Return the smallest number of values for which `mean_sequence` has an interval.

    With fewer values, E_n stays below 1/α for every m.
    """
    threshold, n = -2.0 * math.log(1.0 - confidence), 2
    while (n - 1) * math.log(_variance_ratio(n)) <= threshold:
        n += 1
    return n


def _variance_ratio(n: int) -> float:
    """Return the variance of t under the alternative, divided by that under the null hypothesis."""
    return (n + PRIOR_PRECISION) / PRIOR_PRECISION


def rate_sequence(events: int, trials: int, confidence: float = 0.95) -> Interval | None:
    """Return the interval after `trials` of a confidence sequence for the probability of an event.

    The interval has all p for which the mixture likelihood ratio
    M(p) = B(k + ½, n − k + ½) / B(½, ½) / (p^k (1 − p)^(n − k)) is below 1/α. If p is the probability, M is a
    martingale with mean 1, so the sequence is exact for any number of trials (Ville's inequality).
    Source: Robbins 1970, Statistical methods related to the law of the iterated logarithm.

    Returns:
        The interval, or None for zero trials.

    Raises:
        UsageError: The confidence is not between 0 and 1.
    """
    from scipy.optimize import brentq
    from scipy.special import betaln, xlog1py, xlogy

    alpha = 1.0 - validate_confidence(confidence)
    if not trials:
        return None
    others = trials - events
    mixture = float(
        betaln(events + _PRIOR_EVENTS, others + _PRIOR_EVENTS) - betaln(_PRIOR_EVENTS, _PRIOR_EVENTS)
    )

    def excess(p: float) -> float:
        """Return ln M(p) − ln(1/α), which is negative inside of the interval."""
        return mixture - float(xlogy(events, p) + xlog1py(others, -p)) + math.log(alpha)

    observed = events / trials
    low = float(brentq(excess, 0.0, observed, xtol=_ROOT_TOLERANCE)) if events else 0.0
    high = float(brentq(excess, observed, 1.0, xtol=_ROOT_TOLERANCE)) if others else 1.0
    return Interval(low, high, confidence)
