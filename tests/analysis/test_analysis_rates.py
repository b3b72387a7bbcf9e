"""Exact tests of rates, against scipy.stats."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from initbench.analysis.stats.fisher import RateDifference, RateMethod, compare_rates, fisher

counts = st.integers(1, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
Runs = dict[int, bool]
runs = st.dictionaries(st.integers(0, 20), st.booleans(), min_size=1, max_size=15)


@settings(deadline=None)
@given(counts, counts)
def test_fisher_is_that_of_scipy(a: tuple[int, int], b: tuple[int, int]) -> None:
    (k_a, n_a), (k_b, n_b) = a, b
    twin = stats.fisher_exact([[k_a, n_a - k_a], [k_b, n_b - k_b]]).pvalue
    assert fisher(k_a, n_a, k_b, n_b) == pytest.approx(twin, rel=1e-9)
    assert fisher(k_b, n_b, k_a, n_a) == fisher(k_a, n_a, k_b, n_b)
    assert fisher(n_a - k_a, n_a, n_b - k_b, n_b) == fisher(k_a, n_a, k_b, n_b)


def test_three_of_three_against_none_is_not_enough() -> None:
    assert fisher(3, 3, 0, 3) == pytest.approx(0.1)
    assert fisher(4, 4, 0, 4) < 0.05 < fisher(3, 4, 0, 4)


def test_large_counts_stay_exact() -> None:
    assert fisher(1000, 2000, 1000, 2000) == 1.0
    assert fisher(0, 2000, 2000, 2000) == pytest.approx(0.0, abs=1e-300)


@settings(deadline=None)
@given(runs, runs)
def test_without_pairs_all_runs_count(a: Runs, b: Runs) -> None:
    found = compare_rates(a, b)
    k_a, k_b = sum(a.values()), sum(b.values())
    assert found.difference == pytest.approx(k_a / len(a) - k_b / len(b))
    assert found.p == fisher(k_a, len(a), k_b, len(b))
    assert (found.n_a, found.n_b, found.method) == (len(a), len(b), RateMethod.FISHER)


def test_an_arm_without_runs_has_no_rate() -> None:
    a = dict.fromkeys(range(4), True)
    assert compare_rates({}, a) == RateDifference(None, None, 0, 4, RateMethod.NO_RUNS)
    assert compare_rates({0: None}, a) == compare_rates({}, a)


def test_pairs_that_diverge_together_make_the_test_more_cautious() -> None:
    """With equal rates of 1/2, at most 5 % of 2,000 samples of 6 pairs are significant at 5 %."""
    chance = random.Random(3)
    rejected = 0
    for _ in range(2000):
        shared = [chance.random() < 0.5 for _ in range(6)]
        own = [[x if chance.random() < 0.5 else chance.random() < 0.5 for x in shared] for _ in range(2)]
        a, b = (dict(enumerate(one)) for one in own)
        rejected += (compare_rates(a, b).p or 0.0) < 0.05
    assert rejected / 2000 < 0.05


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("n", [3, 5, 10, 20])
def test_false_positives_are_at_most_as_frequent_as_the_level(n: int, rate: float) -> None:
    chance = [stats.binom.pmf(k, n, rate) for k in range(n + 1)]
    wrong = sum(
        chance[i] * chance[j] for i in range(n + 1) for j in range(n + 1) if fisher(i, n, j, n) <= 0.05
    )
    assert wrong <= 0.05
