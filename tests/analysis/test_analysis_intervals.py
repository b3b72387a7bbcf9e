"""Intervals of means and rates, compared with scipy.stats and with their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from initbench.analysis.stats.confidence_intervals import (
    Interval,
    mean_interval,
    rate_interval,
    summary_interval,
)
from initbench.analysis.stats.summary import Summary, summarise, summarise_geometric
from initbench.errors import UsageError

values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20)
positive = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=20)
confidences = st.floats(0.5, 0.999)


def ends(found: Interval | None) -> tuple[float, float]:
    assert found is not None
    return found.low, found.high


@settings(deadline=None)
@given(values, confidences)
def test_the_interval_of_a_mean_is_that_of_scipy(sample: list[float], confidence: float) -> None:
    assume(np.std(sample) > 1e-6)
    twin = stats.t.interval(confidence, len(sample) - 1, np.mean(sample), stats.sem(sample))
    assert ends(mean_interval(sample, confidence)) == pytest.approx(twin, rel=1e-9, abs=1e-9)
    assert mean_interval([None, *sample, None], confidence) == mean_interval(sample, confidence)


@settings(deadline=None)
@given(positive, st.floats(0.5, 0.99))
def test_a_geometric_mean_has_its_interval_on_the_log_scale(sample: list[float], confidence: float) -> None:
    logs = mean_interval([math.log(v) for v in sample], confidence)
    found = mean_interval(sample, confidence, "log")
    assert ends(found) == pytest.approx(tuple(map(math.exp, ends(logs))), rel=1e-9)
    assert found == summary_interval(summarise_geometric(sample), confidence, "log")


@settings(deadline=None)
@given(values, st.floats(-100.0, 100.0), st.floats(0.1, 10.0))
def test_shift_scale_and_order(sample: list[float], shift: float, scale: float) -> None:
    low, high = ends(mean_interval(sample))
    moved = mean_interval([scale * v + shift for v in reversed(sample)])
    assert ends(moved) == pytest.approx((scale * low + shift, scale * high + shift), rel=1e-7, abs=1e-7)


def test_one_value_has_no_interval_and_says_so_by_none() -> None:
    assert mean_interval([]) is mean_interval([3.0]) is mean_interval([3.0, None]) is None
    assert mean_interval([3.0], scale="log") is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_has_no_interval(bad: float) -> None:
    assert (
        mean_interval([1.0, 2.0, bad])
        is mean_interval([bad, bad])
        is mean_interval([1.0, bad, 2.0], scale="log")
        is None
    )


def test_the_log_scale_is_for_positive_values() -> None:
    assert mean_interval([1.0, 0.0, 2.0], scale="log") is mean_interval([1.0, -1.0], scale="log") is None


@settings(deadline=None)
@given(st.floats(-1e300, 1e300), st.integers(2, 50))
def test_seeds_that_are_all_the_same_have_an_interval_without_width(value: float, n: int) -> None:
    found = mean_interval([value] * n)
    assert ends(found) == (value, value)
    assert found is not None and found.is_degenerate and found.contains(value)
    assert summarise([value] * n) == Summary(value, 0.0, n)


def test_sizes_at_the_end_of_float64_neither_raise_nor_pretend() -> None:
    assert summarise([1e308] * 3 + [-1e308] * 3).mean == pytest.approx(0.0, abs=1e293)
    assert summarise([1e308, 1e308, 1.0]).mean == pytest.approx(1e308 / 1.5)
    assert summarise([1e200, -1e200]).std == pytest.approx(math.sqrt(2.0) * 1e200)
    wide = mean_interval([1e-300, 1e300], scale="log")
    assert wide is None or wide.high == math.inf


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, -0.5, math.nan])
def test_a_confidence_is_a_share(confidence: float) -> None:
    for ask in (lambda: mean_interval([1.0, 2.0], confidence), lambda: rate_interval(1, 2, confidence)):
        with pytest.raises(UsageError, match="between 0 and 1"):
            ask()


@settings(deadline=None)
@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), confidences)
def test_the_interval_of_a_rate_is_that_of_clopper_and_pearson(
    counts: tuple[int, int], confidence: float
) -> None:
    twin = stats.binomtest(*counts).proportion_ci(confidence, method="exact")
    assert ends(rate_interval(*counts, confidence)) == pytest.approx((twin.low, twin.high), abs=1e-9)


def test_a_rate_of_nothing() -> None:
    assert rate_interval(0, 0) is None
    assert ends(rate_interval(0, 3)) == pytest.approx((0.0, 1.0 - 0.025 ** (1 / 3)))
    assert ends(rate_interval(3, 3)) == pytest.approx((0.025 ** (1 / 3), 1.0))


@pytest.mark.parametrize("n", [3, 10, 20])
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5])
def test_the_interval_of_a_rate_covers_it_at_least_as_often_as_it_says(n: int, rate: float) -> None:
    covered = 0.0
    for k in range(n + 1):
        found = rate_interval(k, n)
        assert found is not None
        covered += stats.binom.pmf(k, n, rate) * found.contains(rate)
    assert covered >= 0.95
