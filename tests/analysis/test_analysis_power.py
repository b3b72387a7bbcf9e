"""The number of seeds needed, against scipy.stats and against simulated experiments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from initbench.analysis.stats.mean_difference import compare_means
from initbench.analysis.stats.power import MAX_SEEDS, SeedsNeeded, seeds_needed, t_power
from initbench.errors import UsageError

numbers = st.floats(-10.0, 10.0).map(lambda value: round(value, 3))
samples = st.lists(numbers, min_size=2, max_size=8).filter(lambda values: np.std(values) > 0.01)


def arm(*values: float | None) -> dict[int, float | None]:
    return dict(enumerate(values))


def two_arms(distance: float, std_a: float = 1.0, std_b: float = 1.0) -> tuple[dict[int, float | None], ...]:
    """Return arms of two seeds with exactly these means and standard deviations."""
    half = math.sqrt(0.5)
    return (
        arm(distance - half * std_a, distance + half * std_a),
        arm(-half * std_b, half * std_b),
    )


def count(found: SeedsNeeded | None) -> int:
    assert found is not None and not found.more
    return found.seeds


@settings(deadline=None)
@given(st.floats(0.0, 8.0), st.floats(1.0, 200.0), st.floats(0.5, 0.999))
def test_the_power_of_a_t_test_is_that_of_the_noncentral_t(
    delta: float, df: float, confidence: float
) -> None:
    critical = stats.t.ppf((1.0 + confidence) / 2.0, df)
    # scipy.stats takes the same function for the distribution; an integral over chi is a twin of its own.
    u, weights = np.polynomial.legendre.leggauss(400)
    level = (u + 1.0) / 2.0
    s = np.sqrt(stats.chi2.ppf(level, df) / df)
    beyond = stats.norm.sf(critical * s - delta) + stats.norm.cdf(-critical * s - delta)
    assert t_power(delta, df, confidence) == pytest.approx(float(weights @ beyond / 2.0), abs=2e-3)


@pytest.mark.parametrize("df", [1.0, 2.0, 5.0, 30.0, 198.0])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999, 0.999999])
def test_power_grows_with_the_difference_and_is_never_undefined(df: float, confidence: float) -> None:
    found = [
        t_power(delta, df, confidence) for delta in (0.0, 0.1, 1.0, 3.0, 5.0, 8.0, 20.0, 38.0, 60.0, 1e6)
    ]
    assert found == pytest.approx(sorted(found), abs=1e-9)
    assert found[0] == pytest.approx(1.0 - confidence) and found[-1] == pytest.approx(1.0, abs=0.7)


def test_a_difference_of_one_sigma_takes_seventeen_seeds_a_side() -> None:
    # The textbook figure for 80 % power at 5 %, two-sided (Cohen 1988, table 2.4.1).
    assert count(seeds_needed(*two_arms(1.0))) == 17
    assert count(seeds_needed(*two_arms(0.5))) == 64
    assert count(seeds_needed(*two_arms(1.0), power=0.9)) == 23


@settings(deadline=None)
@given(samples, samples, st.floats(0.5, 0.95), st.floats(0.8, 0.99), st.booleans())
def test_it_is_the_fewest_that_suffice(
    a: list[float], b: list[float], power: float, confidence: float, paired: bool
) -> None:
    found = seeds_needed(arm(*a), arm(*b), power=power, confidence=confidence, paired=paired)
    if found is None or found.more:
        return

    def reached(n: int) -> float:
        if compare_means(arm(*a), arm(*b), paired=paired).method == "paired t":
            differences = [x - y for x, y in zip(a, b, strict=False)]
            delta, df = abs(np.mean(differences)) * math.sqrt(n) / np.std(differences, ddof=1), n - 1.0
        else:
            x, y = np.var(a, ddof=1), np.var(b, ddof=1)
            delta = abs(np.mean(a) - np.mean(b)) / math.sqrt((x + y) / n)
            df = (n - 1) * (x + y) ** 2 / (x**2 + y**2)
        return t_power(float(delta), float(df), confidence)

    assert reached(found.seeds) >= power - 1e-9
    assert found.seeds == 2 or reached(found.seeds - 1) < power + 1e-9


@settings(deadline=None)
@given(samples, samples, st.floats(-100.0, 100.0), st.sampled_from([0.25, 4.0]))
def test_shift_scale_and_exchange(a: list[float], b: list[float], shift: float, scale: float) -> None:
    one = seeds_needed(arm(*a), arm(*b))
    other = seeds_needed(arm(*(scale * v + shift for v in b)), arm(*(scale * v + shift for v in a)))
    assert one is not None and other is not None
    assert abs(one.seeds - other.seeds) <= 1, "rounding may move it by one at the very border"


def test_what_cannot_be_said_and_what_nobody_would_train() -> None:
    assert seeds_needed(arm(1.0), arm(2.0, 3.0)) is None
    assert seeds_needed({}, {}) is None
    assert seeds_needed(arm(1.0, 1.0), arm(2.0, 2.0)) is None
    assert seeds_needed(arm(1.0, 2.0), arm(2.0, 3.0), paired=True) is None, "differences without spread"
    for bad in (math.nan, math.inf):
        assert seeds_needed(arm(1.0, bad), arm(2.0, 3.0)) is None
    assert seeds_needed(arm(1.0, 0.0), arm(2.0, 3.0), scale="log") is None
    assert seeds_needed(*two_arms(0.0)) == SeedsNeeded(MAX_SEEDS, more=True)
    assert str(seeds_needed(*two_arms(0.01))) == "> 1000"
    assert str(seeds_needed(*two_arms(1.0))) == "17"
    assert count(seeds_needed(*two_arms(1e6))) == 2
    with pytest.raises(UsageError):
        seeds_needed(*two_arms(1.0), confidence=95)


def test_logarithms_and_pairs() -> None:
    a, b = two_arms(1.0)
    exponents = [{seed: math.exp(v or 0.0) for seed, v in x.items()} for x in (a, b)]
    assert seeds_needed(exponents[0], exponents[1], scale="log") == seeds_needed(a, b)
    c, d = arm(1.0, 2.0, 4.0), arm(0.5, 1.6, 3.4)
    paired, unpaired = seeds_needed(c, d, paired=True), seeds_needed(c, d)
    assert paired is not None and unpaired is not None and paired.seeds < 5 < unpaired.seeds


@pytest.mark.parametrize(("std_b", "paired"), [(1.0, False), (3.0, False), (1.0, True)])
def test_that_many_seeds_do_reach_the_power_and_fewer_do_not(std_b: float, paired: bool) -> None:
    distance, replications = 1.5, 4000
    needed = count(seeds_needed(*two_arms(distance, 1.0, std_b), power=0.8))
    if paired:
        left = arm(distance - math.sqrt(0.5), distance + math.sqrt(0.5))
        needed = count(seeds_needed(left, arm(0.0, 0.0), power=0.8, paired=True))
    stream = np.random.default_rng(needed)

    def share(n: int) -> float:
        x = stream.normal(distance, 1.0, (replications, n))
        y = stream.normal(0.0, std_b, (replications, n))
        if paired:
            x, y = x + y, y
        hits = 0
        for own, other in zip(x.tolist(), y.tolist(), strict=True):
            p = compare_means(arm(*own), arm(*other), paired=paired).p
            assert p is not None
            hits += p < 0.05
        return hits / replications

    error = math.sqrt(0.8 * 0.2 / replications)
    assert share(needed) > 0.8 - 4.0 * error
    assert share(math.floor(0.8 * needed)) < 0.8 - 4.0 * error
