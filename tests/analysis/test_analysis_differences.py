"""Differences between arms, compared with scipy.stats, and their invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from initbench.analysis.stats.confidence_intervals import Interval
from initbench.analysis.stats.mean_difference import (
    MeanDifference,
    Method,
    compare_means,
    compare_summaries,
    hedges_correction,
)
from initbench.analysis.stats.summary import summarise, summarise_geometric
from initbench.errors import UsageError

numbers = st.floats(-100.0, 100.0).map(lambda value: round(value, 3))
arms = st.dictionaries(st.integers(0, 30), numbers, min_size=2, max_size=15)
same_seeds = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=15).map(
    lambda pairs: ({i: a for i, (a, _) in enumerate(pairs)}, {i: b for i, (_, b) in enumerate(pairs)})
)
Arm = dict[int, float]


def arm(*values: float | None) -> dict[int, float | None]:
    return dict(enumerate(values))


def spread(sample: Arm) -> float:
    return float(np.std(list(sample.values())))


def assert_like(found: MeanDifference, twin: object, mean: float) -> None:
    assert found.difference == pytest.approx(mean, abs=1e-9)
    assert found.p == pytest.approx(twin.pvalue, rel=1e-6, abs=1e-12)  # type: ignore[attr-defined]
    between = twin.confidence_interval(0.9)  # type: ignore[attr-defined]
    assert found.interval is not None and found.interval.confidence == 0.9
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(between), rel=1e-6, abs=1e-6)


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")  # scipy's, of an arm without any spread
@settings(deadline=None)
@given(arms, arms)
def test_without_pairs_it_is_welch(a: Arm, b: Arm) -> None:
    assume(spread(a) > 0.01 or spread(b) > 0.01)
    left, right = list(a.values()), list(b.values())
    found = compare_means(a, b, confidence=0.9)
    twin = stats.ttest_ind(left, right, equal_var=False)
    assert_like(found, twin, float(np.mean(left) - np.mean(right)))
    assert (found.method, found.n_a, found.n_b) == (Method.WELCH, len(a), len(b))


@settings(deadline=None)
@given(same_seeds)
def test_with_shared_seeds_it_is_the_paired_t(both: tuple[Arm, Arm]) -> None:
    a, b = both
    differences = [a[seed] - b[seed] for seed in a]
    assume(float(np.std(differences)) > 0.01)
    found = compare_means(a, dict(reversed(b.items())), paired=True, confidence=0.9)
    twin = stats.ttest_rel(list(a.values()), list(b.values()))
    assert_like(found, twin, float(np.mean(differences)))
    assert (found.method, found.n_a, found.n_b) == (Method.PAIRED, len(a), len(a))


def test_pairs_are_the_seeds_that_both_have_and_where_both_have_a_value() -> None:
    a: dict[int, float | None] = {0: 1.0, 1: 2.0, 2: 4.0, 3: None, 4: 100.0}
    b: dict[int, float | None] = {4: None, 3: -100.0, 2: 1.0, 1: 1.0, 0: 0.5, 7: -100.0}
    found = compare_means(a, b, paired=True)
    assert found.difference == pytest.approx((0.5 + 1.0 + 3.0) / 3.0)
    assert (found.n_a, found.n_b, found.method) == (3, 3, Method.PAIRED)


@pytest.mark.parametrize(
    ("shared", "method"),
    [(0, Method.TOO_FEW_SHARED), (1, Method.TOO_FEW_SHARED), (2, Method.TOO_FEW_SHARED), (3, Method.PAIRED)],
)
def test_too_few_shared_seeds_fall_back_to_welch_and_say_so(shared: int, method: Method) -> None:
    a = {seed: float(seed % 4) for seed in range(6)}
    b = {seed + 6 - shared: float(seed % 3) for seed in range(6)}
    found = compare_means(a, b, paired=True)
    assert found.method == method
    if method == Method.TOO_FEW_SHARED:
        assert found.interval == compare_means(a, b).interval
        assert (found.n_a, found.n_b) == (6, 6)


@settings(deadline=None)
@given(arms, arms, st.booleans())
def test_exchanging_the_arms_turns_the_sign_and_nothing_else(a: Arm, b: Arm, paired: bool) -> None:
    one, other = compare_means(a, b, paired=paired), compare_means(b, a, paired=paired)
    assert one.p == pytest.approx(other.p) and one.method == other.method
    assert one.difference is not None and other.difference is not None
    assert one.difference == pytest.approx(-other.difference, abs=1e-9)
    assert one.interval is not None and other.interval is not None
    assert one.interval.low == pytest.approx(-other.interval.high, abs=1e-9)
    if one.effect_size is None or other.effect_size is None:
        assert one.effect_size is other.effect_size
    else:
        assert one.effect_size == pytest.approx(-other.effect_size, abs=1e-9)


@settings(deadline=None)
@given(same_seeds, st.floats(-100.0, 100.0), st.floats(0.1, 10.0), st.booleans())
def test_shift_and_scale(both: tuple[Arm, Arm], shift: float, scale: float, paired: bool) -> None:
    a, b = both
    one = compare_means(a, b, paired=paired)
    assert one.interval is not None and one.p is not None and one.difference is not None
    assume(one.interval.high - one.interval.low > 0.01)
    moved = compare_means(*({s: scale * v + shift for s, v in x.items()} for x in both), paired=paired)
    assert moved.difference == pytest.approx(scale * one.difference, abs=1e-7)
    assert moved.p == pytest.approx(one.p, rel=1e-5, abs=1e-9)
    assert moved.effect_size == (
        None if one.effect_size is None else pytest.approx(one.effect_size, rel=1e-5, abs=1e-7)
    )


@settings(deadline=None)
@given(same_seeds, st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_seeds_is_nothing(both: tuple[Arm, Arm], paired: bool, random: object) -> None:
    a, b = both
    seeds = list(a)
    random.shuffle(seeds)  # type: ignore[attr-defined]
    again = compare_means({seed: a[seed] for seed in seeds}, b, paired=paired)
    one = compare_means(a, b, paired=paired)
    assert again.p == pytest.approx(one.p, rel=1e-6, abs=1e-12)
    assert again.difference == pytest.approx(one.difference, abs=1e-9)


@settings(deadline=None)
@given(arms, arms, st.booleans(), st.floats(0.5, 0.999))
def test_the_interval_excludes_no_difference_where_p_is_small(
    a: Arm, b: Arm, paired: bool, confidence: float
) -> None:
    found = compare_means(a, b, paired=paired, confidence=confidence)
    assert found.p is not None and found.interval is not None
    assume(abs(found.p - (1.0 - confidence)) > 1e-9)
    assume(found.method not in (Method.SIGN, Method.PERMUTATION))
    assert found.interval.contains(0.0) == (found.p >= 1.0 - confidence)


positive_arms = st.dictionaries(st.integers(0, 30), st.floats(1e-3, 1e3), min_size=2, max_size=9)


@settings(deadline=None)
@given(positive_arms, positive_arms, st.booleans())
def test_on_the_log_scale_differences_are_ratios(a: Arm, b: Arm, paired: bool) -> None:
    found = compare_means(a, b, paired=paired, scale="log")
    logs = compare_means(*({s: math.log(v) for s, v in x.items()} for x in (a, b)), paired=paired)
    assert found.difference is not None and logs.difference is not None
    assert found.difference == pytest.approx(math.exp(logs.difference))
    assert (found.p, found.effect_size, found.method) == (logs.p, logs.effect_size, logs.method)
    assert found.interval is not None and logs.interval is not None
    assert math.log(found.interval.low) == pytest.approx(logs.interval.low) or logs.interval.low < -700
    assert (found.null_value, logs.null_value) == (1.0, 0.0)


@settings(deadline=None)
@given(positive_arms, positive_arms)
def test_summaries_alone_give_the_same_difference(a: Arm, b: Arm) -> None:
    left, right = list(a.values()), list(b.values())
    assert compare_summaries(summarise(left), summarise(right)) == compare_means(a, b)
    spreads = [summarise_geometric(values).std or 0.0 for values in (left, right)]
    assume(max(spreads) > 1e-9)  # below, the last digits of a logarithm decide whether there is any
    found = compare_summaries(summarise_geometric(left), summarise_geometric(right), scale="log")
    twin = compare_means(a, b, scale="log")
    assert found.difference == pytest.approx(twin.difference)
    assert found.p == pytest.approx(twin.p, rel=1e-6, abs=1e-9)
    assert (found.method, found.scale) == (Method.WELCH, "log")


def test_summaries_of_too_little() -> None:
    assert compare_summaries(summarise([3.0]), summarise([1.0, 2.0])) == compare_means(
        arm(3.0), arm(1.0, 2.0)
    )
    assert compare_summaries(summarise([math.nan, 1.0]), summarise([1.0, 2.0])).method == Method.UNDEFINED
    with pytest.raises(UsageError, match="between 0 and 1"):
        compare_summaries(summarise([1.0, 2.0]), summarise([1.0, 2.0]), confidence=95)


@pytest.mark.parametrize("paired", [False, True])
def test_one_seed_has_a_difference_and_no_test(paired: bool) -> None:
    found = compare_means(arm(3.0), arm(1.0, 2.0), paired=paired)
    assert found == MeanDifference(1.5, None, None, None, 1, 2, Method.NOT_ENOUGH_SEEDS)
    assert compare_means(arm(8.0), arm(2.0), scale="log").difference == pytest.approx(4.0)
    empty = compare_means(arm(None), arm(1.0, 2.0), paired=paired)
    assert empty == MeanDifference(None, None, None, None, 0, 2, Method.NOT_ENOUGH_SEEDS)
    assert compare_means({}, {}).difference is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("paired", [False, True])
def test_of_a_value_that_is_not_finite_nothing_can_be_said(bad: float, paired: bool) -> None:
    found = compare_means(arm(1.0, bad, 2.0), arm(1.0, 2.0, 4.0), paired=paired)
    assert found == MeanDifference(None, None, None, None, 3, 3, Method.UNDEFINED)


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_on_the_log_scale_values_are_positive(bad: float) -> None:
    found = compare_means(arm(1.0, bad), arm(1.0, 2.0), scale="log")
    assert found == MeanDifference(None, None, None, None, 2, 2, Method.UNDEFINED, "log")


@pytest.mark.parametrize("paired", [False, True])
def test_without_spread_the_interval_has_no_width_and_there_is_no_effect_size(paired: bool) -> None:
    apart = compare_means(arm(0.3, 0.3, 0.3), arm(0.1, 0.1, 0.1), paired=paired)
    assert apart.interval == Interval(0.3 - 0.1, 0.3 - 0.1, 0.95)
    assert apart.interval.is_degenerate
    assert apart.p == pytest.approx(0.25 if paired else 0.1)  # ½ of ½³ on either side; 2 of 20 ways
    assert (apart.method, apart.effect_size) == (Method.SIGN if paired else Method.PERMUTATION, None)
    same = compare_means(arm(0.1, 0.1, 0.1), arm(0.1, 0.1, 0.1), paired=paired)
    assert (same.difference, same.interval, same.p) == (0.0, Interval(0.0, 0.0, 0.95), 1.0)


def test_the_last_digits_are_no_spread() -> None:
    """0.9 − 0.8 and 0.91 − 0.81 differ in the 16th digit, which must not yield an enormous t."""
    a, b = arm(0.9, 0.91, 0.92), arm(0.8, 0.81, 0.82)
    found = compare_means(a, b, paired=True)
    assert (found.method, found.p) == (Method.SIGN, 0.25)
    assert found.interval is not None and found.interval.is_degenerate


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("paired", [False, True])
def test_on_coarse_values_equal_arms_are_rarely_told_apart(n: int, paired: bool) -> None:
    """Numbers of steps on a grid as coarse as the spread of seeds: equal differences are then common."""
    rng = np.random.default_rng(5)
    draws = np.round(rng.normal(5.0, 1.0, size=(2000, 2, n))).tolist()
    found = [compare_means(arm(*a), arm(*b), paired=paired).p for a, b in draws]
    share = np.mean([p < 0.05 for p in found])
    assert share < 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5


def test_one_arm_without_spread_leaves_the_degrees_of_freedom_of_the_other() -> None:
    found = compare_means(arm(1.0, 1.0, 1.0), arm(2.0, 3.0, 4.0, 5.0))
    assert found.p == pytest.approx(stats.ttest_1samp([2.0, 3.0, 4.0, 5.0], 1.0).pvalue)


@pytest.mark.parametrize("paired", [False, True])
def test_sizes_at_the_ends_of_float64(paired: bool) -> None:
    small = compare_means(arm(1.0, 2.0, 4.0), arm(3.0, 5.0, 4.0), paired=paired)
    for size in (1e-200, 1e200, 1e300):
        a, b = arm(*(size * v for v in (1.0, 2.0, 4.0))), arm(*(size * v for v in (3.0, 5.0, 4.0)))
        found = compare_means(a, b, paired=paired)
        assert found.p == pytest.approx(small.p)
        assert found.effect_size == pytest.approx(small.effect_size)
    assert compare_means(arm(1e308, 1e308), arm(1.0, -1e308), paired=paired).method == Method.UNDEFINED


def test_a_confidence_is_a_share() -> None:
    with pytest.raises(UsageError, match=r"between 0 and 1, such as 0\.95; got 95"):
        compare_means(arm(1.0, 2.0), arm(1.0, 3.0), confidence=95)


def test_hedges_correction_is_near_his_approximation_and_exact_where_that_is_easy() -> None:
    assert hedges_correction(2) == pytest.approx(1.0 / math.sqrt(math.pi))
    assert hedges_correction(3) == pytest.approx(math.sqrt(math.pi / 6.0))
    assert hedges_correction(4) == pytest.approx(math.sqrt(2.0 / math.pi))
    for df in (2, 3, 4, 10, 20, 50, 1000):
        assert hedges_correction(df) == pytest.approx(1.0 - 3.0 / (4.0 * df - 1.0), abs=0.01)


def test_hedges_g_of_a_textbook_case() -> None:
    a, b = arm(5.0, 7.0, 9.0), arm(1.0, 3.0, 5.0, 7.0)
    pooled = math.sqrt((2 * 4.0 + 3 * 20.0 / 3) / 5)
    assert compare_means(a, b).effect_size == pytest.approx(hedges_correction(5) * 3.0 / pooled)


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.95])
@pytest.mark.parametrize(("paired", "n", "bias"), [(False, 4, 0.0), (True, 4, 0.04), (True, 6, 0.01)])
def test_the_effect_size_is_unbiased_and_without_the_correction_would_not_be(
    paired: bool, n: int, bias: float, correlation: float
) -> None:
    truth, replications = 1.0, 8000
    stream = np.random.default_rng(n + round(100 * correlation))
    found = []
    for _ in range(replications):
        common, own = stream.normal(size=n), stream.normal(size=(2, n))
        x, y = math.sqrt(correlation) * common + math.sqrt(1.0 - correlation) * own
        if not paired:
            x = stream.normal(size=n)
        g = compare_means(arm(*(x + truth)), arm(*y), paired=paired).effect_size
        assert g is not None
        found.append(g)
    error = float(np.std(found)) / math.sqrt(replications)
    # Pairs have no exact correction, for want of their true correlation.
    allowed = 4.0 * error + bias
    mean = float(np.mean(found))
    assert abs(mean - truth) < allowed
    df = 2 * (n - 1) / (1 + correlation**2) if paired else 2 * n - 2
    assert abs(mean / hedges_correction(df) - truth) > allowed


def test_two_pairs_have_no_unbiased_effect_size() -> None:
    found = compare_means(arm(1.0, 2.0), arm(3.0, 5.0), paired=True)
    assert found.effect_size is None and found.p is not None
