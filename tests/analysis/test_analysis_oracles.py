"""The statistics on 1,000 random cases, against statsmodels, pingouin and mpmath."""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Callable, Sequence
from fractions import Fraction

import mpmath
import pytest

from initbench.analysis.stats.confidence_intervals import mean_interval, rate_interval
from initbench.analysis.stats.fisher import fisher
from initbench.analysis.stats.mean_difference import Method, compare_means, hedges_correction
from initbench.analysis.stats.multiple_comparisons import holm
from initbench.analysis.stats.power import t_power
from initbench.analysis.stats.summary import summarise, summarise_geometric

CASES = 125
"""Number of cases of each kind."""
Draw = Callable[[random.Random], float]
KINDS: dict[str, tuple[Draw, Sequence[int]]] = {
    "normal": (lambda stream: stream.gauss(0.0, 1.0), (3, 4, 5, 8, 20)),
    "accuracies with ties": (lambda stream: round(stream.betavariate(20, 2), 2), (3, 4, 5, 8, 20)),
    "counts": (lambda stream: float(stream.randrange(0, 12) * 50), (3, 4, 5, 8, 20)),
    "no variance": (lambda _: 0.1, (2, 3, 5, 10)),
    "one or two values": (lambda stream: stream.gauss(0.9, 0.1), (1, 2)),
    "huge": (lambda stream: stream.gauss(0.0, 1.0) * 1e150, (2, 3, 5, 8)),
    "tiny": (lambda stream: stream.gauss(0.0, 1.0) * 1e-150, (2, 3, 5, 8)),
    "small spread about a large mean": (lambda stream: 1e6 + stream.gauss(0.0, 1e-3), (2, 3, 5, 8)),
}


def cases(kind: str) -> list[tuple[list[float], list[float]]]:
    """Return pairs of samples; every second pair has equal sizes."""
    draw, sizes = KINDS[kind]
    stream = random.Random(kind)
    drawn = []
    for number in range(CASES):
        first = stream.choice(sizes)
        second = first if number % 2 else stream.choice(sizes)
        drawn.append(([draw(stream) for _ in range(first)], [draw(stream) for _ in range(second)]))
    return drawn


def exact_moments(values: Sequence[float]) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Return mean and variance (ddof 1), computed in exact fractions."""
    parts = [Fraction(value) for value in values]
    mean = sum(parts) / len(parts)
    variance = sum((part - mean) ** 2 for part in parts) / (len(parts) - 1)
    with mpmath.workdps(50):
        return _real(mean), _real(variance)


def _real(value: Fraction) -> mpmath.mpf:
    return mpmath.mpf(value.numerator) / value.denominator


def tail(t: mpmath.mpf, df: float) -> mpmath.mpf:
    """Return the two-sided tail probability of Student's t, by the incomplete beta function."""
    with mpmath.workdps(30):
        return mpmath.betainc(mpmath.mpf(df) / 2, mpmath.mpf(1) / 2, 0, df / (df + t * t), regularized=True)


def arm(values: Sequence[float]) -> dict[int, float | None]:
    return dict(enumerate(values))


@pytest.mark.parametrize("kind", KINDS)
def test_mean_deviation_and_interval_are_those_of_exact_arithmetic(kind: str) -> None:
    for values, _ in cases(kind):
        summary, between = summarise(values), mean_interval(values)
        assert summary.n == len(values)
        if len(values) == 1:
            assert (summary.mean, summary.std, between) == (values[0], None, None)
            continue
        mean, variance = exact_moments(values)
        deviation = mpmath.sqrt(variance)
        rounding = 1e-15 * max(map(abs, values))
        assert summary.mean == pytest.approx(float(mean), rel=1e-13, abs=rounding)
        assert summary.std == pytest.approx(float(deviation), rel=1e-9, abs=4 * rounding)
        assert between is not None and between.low <= summary.mean <= between.high
        if variance == 0:
            assert between.is_degenerate
            continue
        t = (mpmath.mpf(between.high) - mean) / (deviation / mpmath.sqrt(len(values)))
        if rounding < 1e-8 * deviation:
            assert float(tail(t, len(values) - 1)) == pytest.approx(0.05, rel=1e-6)


def _welch(left: Sequence[float], right: Sequence[float]) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Return t and its degrees of freedom, computed in exact arithmetic."""
    (mean_a, var_a), (mean_b, var_b) = exact_moments(left), exact_moments(right)
    with mpmath.workdps(50):
        share_a, share_b = var_a / len(left), var_b / len(right)
        free = share_a**2 / (len(left) - 1) + share_b**2 / (len(right) - 1)
        return (mean_a - mean_b) / mpmath.sqrt(share_a + share_b), (share_a + share_b) ** 2 / free


@pytest.mark.parametrize("kind", KINDS)
def test_welch_is_that_of_exact_arithmetic(kind: str) -> None:
    for left, right in cases(kind):
        said = compare_means(arm(left), arm(right))
        if min(len(left), len(right)) < 2:
            assert (said.method, said.p, said.interval) == (Method.NOT_ENOUGH_SEEDS, None, None)
            continue
        if exact_moments(left)[1] == exact_moments(right)[1] == 0:
            assert said.p == (
                1.0 if left[0] == right[0] else 2 / math.comb(len(left) + len(right), len(left))
            )
            continue
        t, free = _welch(left, right)
        assert said.method is Method.WELCH
        assert said.p == pytest.approx(float(tail(t, float(free))), rel=1e-5, abs=1e-12)
        assert said.interval is not None
        assert said.interval.contains(0.0) == (said.p > 0.05)


@pytest.mark.parametrize("kind", ["normal", "accuracies with ties", "counts"])
def test_welch_is_that_of_statsmodels(kind: str) -> None:
    from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

    for left, right in cases(kind):
        if exact_moments(left)[1] + exact_moments(right)[1] == 0:
            continue
        twin = CompareMeans(DescrStatsW(left), DescrStatsW(right))
        said = compare_means(arm(left), arm(right))
        assert said.interval is not None
        low, high = twin.tconfint_diff(alpha=0.05, usevar="unequal")
        assert (said.interval.low, said.interval.high) == pytest.approx((low, high), rel=1e-9, abs=1e-9)
        assert said.p == pytest.approx(twin.ttest_ind(usevar="unequal")[1], rel=1e-8)


@pytest.mark.parametrize("kind", ["normal", "accuracies with ties", "counts"])
def test_pairs_and_effect_sizes_are_those_of_pingouin(kind: str) -> None:
    import pingouin

    shared = [(left, right) for left, right in cases(kind) if len(left) == len(right) > 2]
    for left, right in shared[:25]:
        if exact_moments([a - b for a, b in zip(left, right, strict=True)])[1] == 0:
            continue
        said = compare_means(arm(left), arm(right), paired=True)
        twin = pingouin.ttest(left, right, paired=True).iloc[0]
        assert said.method is Method.PAIRED and said.interval is not None
        assert said.p == pytest.approx(float(twin.filter(like="p").iloc[0]), rel=1e-6)
        between = twin["CI95"] if "CI95" in twin else twin["CI95%"]
        assert (said.interval.low, said.interval.high) == pytest.approx(tuple(between), abs=0.0051)
        unpaired = compare_means(arm(left), arm(right))
        if unpaired.effect_size is not None:
            cohen = pingouin.compute_effsize(left, right, eftype="cohen")
            wanted = hedges_correction(2.0 * len(left) - 2.0) * cohen
            assert unpaired.effect_size == pytest.approx(wanted, rel=1e-9)


def test_ratios_are_differences_of_logarithms() -> None:
    for left, right in cases("normal"):
        a, b = ([math.exp(value) for value in values] for values in (left, right))
        ratio, plain = compare_means(arm(a), arm(b), scale="log"), compare_means(arm(left), arm(right))
        assert ratio.p == pytest.approx(plain.p, rel=1e-9)
        assert ratio.difference == pytest.approx(math.exp(plain.difference or 0.0), rel=1e-12)
        assert summarise_geometric(a).mean == pytest.approx(
            float(mpmath.exp(exact_moments(left)[0])), rel=1e-12
        )


def test_holm_is_that_of_statsmodels(monkeypatch: pytest.MonkeyPatch) -> None:
    from statsmodels.stats.multitest import multipletests

    monkeypatch.setattr(gc, "collect", lambda: 0)  # which it calls every time, for half a second each
    stream = random.Random("holm")
    for _ in range(200):
        p_values = [
            round(stream.random() ** 3, stream.choice([2, 8])) for _ in range(stream.randrange(1, 30))
        ]
        assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]), rel=1e-12)


def test_exact_tests_of_rates_are_those_of_statsmodels_and_exact_arithmetic() -> None:
    from statsmodels.stats.proportion import proportion_confint

    stream = random.Random("rates")
    for _ in range(300):
        n_a, n_b = stream.randrange(1, 30), stream.randrange(1, 30)
        k_a, k_b = stream.randrange(n_a + 1), stream.randrange(n_b + 1)
        between = rate_interval(k_a, n_a)
        assert between is not None
        low, high = proportion_confint(k_a, n_a, method="beta")
        assert (between.low, between.high) == pytest.approx((low, high), rel=1e-9, abs=1e-12)
        weights = {
            k: math.comb(n_a, k) * math.comb(n_b, k_a + k_b - k)
            for k in range(max(0, k_a + k_b - n_b), min(n_a, k_a + k_b) + 1)
        }
        extreme = sum(weight for weight in weights.values() if weight <= weights[k_a])
        assert fisher(k_a, n_a, k_b, n_b) == float(Fraction(extreme, sum(weights.values())))


def test_power_is_that_of_statsmodels() -> None:
    from statsmodels.stats.power import TTestPower

    for n in (2, 3, 5, 8, 17, 40):
        for effect in (0.1, 0.5, 1.0, 2.0):
            wanted = TTestPower().power(effect, n, 0.05)
            assert t_power(effect * math.sqrt(n), n - 1.0, 0.95) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("kind", ["normal", "huge", "tiny"])
def test_a_wrong_statistic_would_be_seen(kind: str) -> None:
    """With n instead of n − 1 the same comparison fails in every case."""
    for values, _ in cases(kind):
        _, variance = exact_moments(values)
        biased = math.sqrt(1.0 - 1.0 / len(values)) * (summarise(values).std or 0.0)
        assert biased != pytest.approx(float(mpmath.sqrt(variance)), rel=1e-3, abs=0.0)
