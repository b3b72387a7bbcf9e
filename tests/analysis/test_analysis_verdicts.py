"""Verdicts on differences."""

from __future__ import annotations

import math
from typing import Literal

import pytest

from initbench.analysis.stats.mean_difference import compare_means
from initbench.analysis.stats.verdict import DifferenceVerdict, difference_verdict, is_significant


def arm(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


HIGH, LOW, NEAR = arm(2.0, 2.1, 2.2), arm(1.0, 1.1, 1.3), arm(1.1, 1.2, 1.2)


def test_the_words_are_fixed() -> None:
    assert [str(word) for word in DifferenceVerdict] == [
        "better",
        "worse",
        "higher",
        "lower",
        "no difference shown",
        "equivalent within the margin",
        "not enough seeds",
        "diverged",
        "not measured",
        "cannot be said",
    ]


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize(
    ("better", "of_high", "of_low"),
    [
        ("higher", DifferenceVerdict.BETTER, DifferenceVerdict.WORSE),
        ("lower", DifferenceVerdict.WORSE, DifferenceVerdict.BETTER),
        (None, DifferenceVerdict.HIGHER, DifferenceVerdict.LOWER),
    ],
)
def test_the_direction_is_that_of_the_metric(
    better: Literal["higher", "lower"] | None,
    of_high: DifferenceVerdict,
    of_low: DifferenceVerdict,
    scale: Literal["linear", "log"],
) -> None:
    assert difference_verdict(compare_means(HIGH, LOW, scale=scale), better) == of_high
    assert difference_verdict(compare_means(LOW, HIGH, scale=scale), better) == of_low


def test_what_was_not_told_apart() -> None:
    assert difference_verdict(compare_means(NEAR, LOW), "higher") == DifferenceVerdict.NO_DIFFERENCE
    assert (
        difference_verdict(compare_means(HIGH, LOW), "higher", p_adjusted=0.2)
        == DifferenceVerdict.NO_DIFFERENCE
    )
    assert difference_verdict(compare_means(HIGH, LOW), "higher", p_adjusted=0.04) == DifferenceVerdict.BETTER
    assert (
        difference_verdict(compare_means(HIGH, LOW, confidence=0.999999), "higher")
        == DifferenceVerdict.NO_DIFFERENCE
    )


def test_equivalent_is_an_interval_within_the_margin() -> None:
    found = compare_means(NEAR, LOW)
    assert found.interval is not None
    widest = max(abs(found.interval.low), abs(found.interval.high))
    assert difference_verdict(found, "higher", margin=widest) == DifferenceVerdict.EQUIVALENT
    assert difference_verdict(found, "higher", margin=0.99 * widest) == DifferenceVerdict.NO_DIFFERENCE
    assert (
        difference_verdict(compare_means(LOW, NEAR), "higher", margin=widest) == DifferenceVerdict.EQUIVALENT
    )
    assert (
        difference_verdict(compare_means(HIGH, LOW), "higher", margin=2.0) == DifferenceVerdict.EQUIVALENT
    ), "asked for"
    assert difference_verdict(compare_means(HIGH, LOW), "higher", margin=0.5) == DifferenceVerdict.BETTER


def test_on_the_log_scale_the_margin_is_a_factor() -> None:
    found = compare_means(NEAR, LOW, scale="log")
    assert found.interval is not None
    widest = max(1.0 / found.interval.low, found.interval.high)
    assert difference_verdict(found, None, margin=1.001 * widest - 1.0) == DifferenceVerdict.EQUIVALENT
    assert difference_verdict(found, None, margin=0.999 * widest - 1.0) == DifferenceVerdict.NO_DIFFERENCE


def test_too_little_to_say() -> None:
    assert (
        difference_verdict(compare_means(arm(1.0), LOW), "higher", margin=9.0)
        == DifferenceVerdict.NOT_ENOUGH_SEEDS
    )
    assert difference_verdict(compare_means({}, LOW), "higher") == DifferenceVerdict.NOT_ENOUGH_SEEDS
    assert (
        difference_verdict(compare_means(arm(1.0, math.nan), LOW), "higher", margin=9.0)
        == DifferenceVerdict.UNDEFINED
    )


def test_seeds_without_spread() -> None:
    same = arm(0.1, 0.1)
    assert difference_verdict(compare_means(same, same), "higher") == DifferenceVerdict.NO_DIFFERENCE
    assert difference_verdict(compare_means(same, same), "higher", margin=0.0) == DifferenceVerdict.EQUIVALENT
    assert difference_verdict(compare_means(arm(0.2, 0.2), same), "higher") == DifferenceVerdict.NO_DIFFERENCE
    four = compare_means(arm(*[0.2] * 4), arm(*[0.1] * 4))
    assert (
        difference_verdict(four, "higher") == DifferenceVerdict.BETTER
    )  # 2 of the 70 ways to deal out 4 + 4 runs


def test_significant_is_below_the_level() -> None:
    assert is_significant(0.049, 0.95) and not is_significant(0.051, 0.95)
    assert not is_significant(None, 0.95)
