"""Power analysis: the number of seeds needed to show a difference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from initbench.analysis.stats.confidence_intervals import t_quantile, validate_confidence
from initbench.analysis.stats.mean_difference import mean_and_std, paired_differences, welch
from initbench.analysis.stats.paired_samples import MIN_VALUES, Arm, align_samples
from initbench.analysis.stats.summary import Scale, summarise

MAX_SEEDS = 1000
"""Upper bound of the search; if more seeds are needed, the result is "> 1000"."""


@dataclass(frozen=True)
class SeedsNeeded:
    """The number of seeds needed in each arm."""

    seeds: int
    more: bool = False
    """Whether more than `seeds` are needed."""

    def __str__(self) -> str:
        return f"> {self.seeds}" if self.more else str(self.seeds)


def seeds_needed(
    a: Arm,
    b: Arm,
    *,
    power: float = 0.8,
    confidence: float = 0.95,
    paired: bool = False,
    scale: Scale = "linear",
) -> SeedsNeeded | None:
    """Return the fewest seeds per arm with which the observed difference would be shown with power `power`.

    The test is that of `compare_means` with n seeds per arm, assuming that the true means and spreads equal
    the observed ones: t then has the noncentral distribution with δ = |d| / standard error (Johnson & Welch
    1940). The result is a rough estimate: with few seeds, d and the spread are uncertain by a factor, and n
    depends on its square. If 17 seeds are needed, an estimate from three seeds per arm lies between 4 and 350
    in four of five cases (docs/results.md). Use it for planning; it does not justify adding seeds until p is
    small.

    Returns:
        The number of seeds; None for fewer than two seeds, no spread, or a value that is not finite.

    Raises:
        UsageError: The confidence is not between 0 and 1.
    """
    validate_confidence(confidence)
    assert 0.0 < power < 1.0
    samples = align_samples(a, b, paired, scale)
    if not samples.are_defined or not samples.are_enough:
        return None
    if samples.are_pairs:
        mean, spread = mean_and_std(summarise(paired_differences(samples)))
        return _fewest_seeds(mean, lambda n: (spread / math.sqrt(n), n - 1.0), power, confidence)
    (mean_a, std_a), (mean_b, std_b) = (
        mean_and_std(summarise(samples.left)),
        mean_and_std(summarise(samples.right)),
    )
    return _fewest_seeds(mean_a - mean_b, lambda n: welch(std_a, n, std_b, n), power, confidence)


def _fewest_seeds(
    mean: float, error_of: Callable[[int], tuple[float, float]], power: float, confidence: float
) -> SeedsNeeded | None:
    """Search the fewest seeds by bisection.

    `error_of` returns the standard error and the degrees of freedom for n seeds per arm. The result is None
    if there is no spread.
    """
    if not error_of(MIN_VALUES)[0]:
        return None

    def suffices(n: int) -> bool:
        error, df = error_of(n)
        return t_power(abs(mean) / error, df, confidence) >= power

    low, high = MIN_VALUES, MAX_SEEDS
    if not suffices(high):
        return SeedsNeeded(MAX_SEEDS, more=True)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle + 1, high)
    return SeedsNeeded(low)


def t_power(delta: float, df: float, confidence: float) -> float:
    """Return the power of a two-sided t test: P(|t'(df, δ)| > t), t the critical value for `confidence`."""
    critical = t_quantile((1.0 + confidence) / 2.0, df)
    return 1.0 - _noncentral_t_cdf(critical, df, delta) + _noncentral_t_cdf(-critical, df, delta)


def _noncentral_t_cdf(t: float, df: float, delta: float) -> float:
    from scipy.special import nctdtr

    probability = float(nctdtr(df, delta, t))
    # scipy returns NaN if the probability is too small to compute; for the arguments used here it is far
    # below 1e-6.
    return 0.0 if math.isnan(probability) else probability
