"""Exact tests of rates, against scipy.stats."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from initbench.compare.rates import RateDifference, RateMethod, fisher, mcnemar, rate_difference

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


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_a_sign_test(only_a: int, only_b: int) -> None:
    twin = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(twin, rel=1e-9)


def test_three_of_three_against_none_is_not_enough() -> None:
    assert fisher(3, 3, 0, 3) == pytest.approx(0.1)
    assert mcnemar(3, 0) == 0.25
    assert fisher(4, 4, 0, 4) < 0.05 < fisher(3, 4, 0, 4)


def test_large_counts_stay_exact() -> None:
    assert fisher(1000, 2000, 1000, 2000) == 1.0
    assert fisher(0, 2000, 2000, 2000) == pytest.approx(0.0, abs=1e-300)
    assert mcnemar(5000, 5000) == 1.0


@settings(deadline=None)
@given(runs, runs)
def test_without_pairs_all_runs_count(a: Runs, b: Runs) -> None:
    found = rate_difference(a, b)
    k_a, k_b = sum(a.values()), sum(b.values())
    assert found.difference == pytest.approx(k_a / len(a) - k_b / len(b))
    assert found.p == fisher(k_a, len(a), k_b, len(b))
    assert (found.n_a, found.n_b, found.method) == (len(a), len(b), RateMethod.FISHER)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=15))
def test_of_shared_seeds_those_that_disagree_count(pairs: list[tuple[bool, bool]]) -> None:
    a, b = {i: x for i, (x, _) in enumerate(pairs)}, {i: y for i, (_, y) in enumerate(pairs)}
    found = rate_difference(a, dict(reversed(b.items())), paired=True)
    only_a, only_b = sum(x and not y for x, y in pairs), sum(y and not x for x, y in pairs)
    assert found.difference == pytest.approx((only_a - only_b) / len(pairs))
    assert found.p == mcnemar(only_a, only_b)
    assert (found.n_a, found.n_b, found.method) == (len(pairs), len(pairs), RateMethod.MCNEMAR)


def test_too_few_shared_seeds_and_too_few_runs_say_so() -> None:
    a, b = dict.fromkeys(range(4), True), dict.fromkeys(range(3, 7), False)
    assert rate_difference(a, b, paired=True).method == RateMethod.TOO_FEW_SHARED
    assert rate_difference(a, b, paired=True).p == rate_difference(a, b).p == fisher(4, 4, 0, 4)
    assert rate_difference({}, a) == RateDifference(None, None, 0, 4, RateMethod.NO_RUNS)
    assert rate_difference({0: None}, a, paired=True) == rate_difference({}, a)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("n", [3, 5, 10, 20])
def test_false_positives_are_at_most_as_frequent_as_the_level(n: int, rate: float) -> None:
    chance = [stats.binom.pmf(k, n, rate) for k in range(n + 1)]
    wrong = sum(
        chance[i] * chance[j] for i in range(n + 1) for j in range(n + 1) if fisher(i, n, j, n) <= 0.05
    )
    assert wrong <= 0.05
