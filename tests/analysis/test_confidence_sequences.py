"""Confidence sequences against their definitions, and their coverage while values are added."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import integrate, special, stats

from benchmarks.compare_statistics import rounds, running_coverage, seeds_until_decided
from benchmarks.simulated_arms import NORMAL
from initbench.analysis.stats.confidence_intervals import Interval, mean_interval, rate_interval
from initbench.analysis.stats.confidence_sequences import (
    PRIOR_PRECISION,
    mean_sequence,
    min_values,
    rate_sequence,
)
from initbench.errors import UsageError

VALUES = [0.91, 0.94, 0.9, 0.97, 0.92, 0.95, 0.93]
ALPHA = 0.05


def mixture_ratio(values: list[float], mean: float) -> float:
    """Return the likelihood ratio of t by numerical integration over the effect size."""
    n = len(values)
    t = (np.mean(values) - mean) / (np.std(values, ddof=1) / math.sqrt(n))
    prior = stats.norm(scale=1.0 / math.sqrt(PRIOR_PRECISION))

    def integrand(effect: float) -> float:
        return float(stats.nct.pdf(t, n - 1, effect * math.sqrt(n)) * prior.pdf(effect))

    evidence, _ = integrate.quad(integrand, -15.0, 15.0, points=[0.0, t / math.sqrt(n)], limit=200)
    return evidence / float(stats.t.pdf(t, n - 1))


@pytest.mark.parametrize("n", [3, 4, 7])
@pytest.mark.parametrize("confidence", [0.95, 0.9])
def test_at_the_ends_the_likelihood_ratio_is_one_over_alpha(n: int, confidence: float) -> None:
    values = VALUES[:n]
    interval = mean_sequence(values, confidence)
    assert interval is not None
    for end in (interval.low, interval.high):
        assert mixture_ratio(values, end) == pytest.approx(1.0 / (1.0 - confidence), rel=1e-3)
    assert (interval.low + interval.high) / 2.0 == pytest.approx(np.mean(values))
    assert interval.high - interval.low > 1.2 * width(mean_interval(values, confidence))


def width(interval: Interval | None) -> float:
    assert interval is not None
    return interval.high - interval.low


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99, 0.9999])
def test_there_is_an_interval_from_the_smallest_number_of_values_on(confidence: float) -> None:
    n = min_values(confidence)
    values = np.random.default_rng(0).normal(size=n).tolist()
    assert mean_sequence(values, confidence) is not None
    assert mean_sequence(values[:-1], confidence) is None
    # t is infinite at most: this is the largest likelihood ratio of n values
    assert ((n + PRIOR_PRECISION) / PRIOR_PRECISION) ** ((n - 1) / 2.0) > 1.0 / (1.0 - confidence)


def test_values_without_an_interval() -> None:
    assert mean_sequence([]) is None and mean_sequence([1.0, 2.0]) is None
    assert mean_sequence([1.0, math.inf, 2.0, 3.0]) is None
    assert mean_sequence([2.0] * 5) == Interval(2.0, 2.0, 0.95)
    assert mean_sequence([1e300, -1e300, 1e300, 5e307]) is not None
    assert rate_sequence(0, 0) is None
    with pytest.raises(UsageError):
        mean_sequence(VALUES, 1.0)


def test_running_coverage_of_normal_values_is_kept_and_that_of_student_is_lost() -> None:
    coverage = running_coverage(NORMAL, 2_000, "paired")
    error = math.sqrt(ALPHA * (1.0 - ALPHA) / 2_000)
    assert coverage.always_valid.value >= 1.0 - ALPHA - 3.0 * error
    assert coverage.fixed.value < 0.85 < 0.93 < coverage.fixed_at_end.value


def test_equal_arms_are_seldom_decided_and_large_differences_soon() -> None:
    error = math.sqrt(ALPHA * (1.0 - ALPHA) / 1_000)
    assert seeds_until_decided(0.0, 1_000)[0].value <= ALPHA + 3.0 * error
    decided, seeds = seeds_until_decided(4.0, 200)
    assert decided.value == 1.0 and seeds < 6.0
    assert rounds() == [3, 5, 7, 9, 12, 16, 21, 28, 37, 40]


@pytest.mark.parametrize(("events", "trials"), [(0, 7), (7, 7), (3, 20), (19, 20)])
def test_ends_of_a_rate_solve_its_definition(events: int, trials: int) -> None:
    interval = rate_sequence(events, trials)
    assert interval is not None and interval.contains(events / trials)
    for end in {interval.low, interval.high} - {0.0, 1.0}:
        likelihood = end**events * (1.0 - end) ** (trials - events)
        mixture = special.beta(events + 0.5, trials - events + 0.5) / special.beta(0.5, 0.5)
        assert mixture / likelihood == pytest.approx(1.0 / ALPHA, rel=1e-6)


def miss_probability(interval_of: Callable[[int, int], Interval | None], p: float, trials: int) -> float:
    """Return the exact probability that any interval of the first `trials` trials misses the rate p."""
    alive = {0: 1.0}  # probability of each number of events, without a miss so far
    for n in range(1, trials + 1):
        following: dict[int, float] = {}
        for events, mass in alive.items():
            following[events] = following.get(events, 0.0) + mass * (1.0 - p)
            following[events + 1] = following.get(events + 1, 0.0) + mass * p
        alive = {
            events: mass
            for events, mass in following.items()
            if (interval := interval_of(events, n)) is not None and interval.contains(p)
        }
    return 1.0 - sum(alive.values())


@pytest.mark.parametrize("p", [0.02, 0.1, 0.3, 0.5, 0.85])
def test_a_rate_is_missed_at_any_trial_with_at_most_alpha(p: float) -> None:
    assert 0.0 <= miss_probability(rate_sequence, p, 40) <= ALPHA


def test_clopper_and_pearson_miss_a_rate_more_often_if_looked_at_repeatedly() -> None:
    assert miss_probability(rate_interval, 0.3, 40) > 1.5 * ALPHA
