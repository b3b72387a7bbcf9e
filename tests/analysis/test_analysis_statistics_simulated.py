"""Coverage, false-alarm rate and power of the statistics on simulated runs with known distributions."""

from __future__ import annotations

import math

import pytest
from scipy.special import ndtri, stdtrit

from benchmarks.compare_statistics import LEVEL, SEEDS, Share, coverage, family_errors, power
from benchmarks.simulated_arms import LAWS, NORMAL, experiments
from initbench.analysis.stats.summary import summarise

REPLICATIONS, FAMILIES = 10_000, 1_500
RUNS_DIVERGE = LAWS[1]


def standard_error(share: float, n: int) -> float:
    return math.sqrt(share * (1.0 - share) / n)


def covers(found: Share) -> bool:
    """Return whether a coverage is 95 %, up to the error of Welch's approximation (2 %) and of sampling."""
    return abs(found.value - 0.95) <= 0.02 and found.value > 0.95 - 4.0 * standard_error(0.95, found.n)


def too_narrow(n: int) -> Share:
    """Return the coverage with the normal quantile instead of Student's, which must be too low."""
    hits = 0
    for (arm,) in experiments([NORMAL.first], n, REPLICATIONS, shared=False, diverging=0.0, seed=n):
        found = summarise(list(arm.values()))
        assert found.mean is not None and found.std is not None
        hits += abs(found.mean) <= float(ndtri(0.975)) * found.std / math.sqrt(n)
    return Share(hits, REPLICATIONS)


@pytest.mark.slow
@pytest.mark.parametrize("n", SEEDS)
def test_intervals_of_normal_values_cover_the_truth(n: int) -> None:
    assert covers(coverage(NORMAL, n, REPLICATIONS, "mean"))
    assert covers(coverage(NORMAL, n, REPLICATIONS, "Welch"))
    assert covers(coverage(NORMAL, n, REPLICATIONS, "paired"))
    assert not covers(too_narrow(n))


@pytest.mark.slow
@pytest.mark.parametrize("n", SEEDS)
def test_runs_that_diverge_whatever_they_reach_leave_the_coverage(n: int) -> None:
    for kind in ("mean", "paired"):
        assert covers(coverage(RUNS_DIVERGE, n, REPLICATIONS, kind))


@pytest.mark.slow
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("n", SEEDS)
def test_ten_equal_arms_give_a_false_alarm_in_at_most_one_family_of_twenty(n: int, paired: bool) -> None:
    adjusted, unadjusted = family_errors(NORMAL, n, FAMILIES, paired=paired)
    most = LEVEL + 3.0 * standard_error(LEVEL, FAMILIES)
    assert adjusted.value <= most < unadjusted.value


@pytest.mark.slow
def test_seventeen_seeds_a_side_show_one_sigma_in_four_cases_of_five() -> None:
    for paired in (False, True):
        for n in (10, 17):
            found, said = power(n, REPLICATIONS, paired=paired)
            assert abs(found.value - said) <= 4.0 * standard_error(said, REPLICATIONS) + 0.005 * (not paired)
    unpaired, fewer = power(17, REPLICATIONS, paired=False)[0], power(14, REPLICATIONS, paired=False)[0]
    assert unpaired.value == pytest.approx(0.8, abs=0.02)
    assert fewer.value != pytest.approx(0.8, abs=0.02)


def test_the_twin_that_has_to_fail_fails_where_it_should() -> None:
    assert stdtrit(2, 0.975) > 2 * ndtri(0.975)
    assert not covers(Share(920, 1000)) and covers(Share(950, 1000)) and not covers(Share(980, 1000))
