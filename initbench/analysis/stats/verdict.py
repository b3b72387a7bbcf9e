"""What a difference amounts to, in a few fixed words."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from initbench.analysis.stats.mean_difference import MeanDifference, Method


class DifferenceVerdict(StrEnum):
    """The first arm beside the second."""

    BETTER = "better"
    WORSE = "worse"
    HIGHER = "higher"
    """Of a metric that is good neither high nor low; LOWER likewise."""
    LOWER = "lower"
    NO_DIFFERENCE = "no difference shown"
    """Which is not to say that there is none: the interval tells how large it may be."""
    EQUIVALENT = "equivalent within the margin"
    NOT_ENOUGH_SEEDS = "not enough seeds"
    DIVERGED = "diverged"
    """Every run did, so that there is no number to compare."""
    NOT_MEASURED = "not measured"
    """In one of the arms, or both."""
    UNDEFINED = "cannot be said"


def difference_verdict(
    difference: MeanDifference,
    better: Literal["higher", "lower"] | None,
    *,
    margin: float | None = None,
    p_adjusted: float | None = None,
) -> DifferenceVerdict:
    """The verdict of a difference, for a metric of which more is `better`, or less, or neither.

    With a `margin` m the arms are equivalent if the whole interval lies within ±m (on the log scale, between
    1 / (1 + m) and 1 + m), even if it excludes no difference: what is smaller than m was said not to matter.
    That is two one-sided tests, each at (1 − confidence) / 2 (Schuirmann 1987 takes twice that).
    Otherwise a difference counts if the interval excludes none or, in a family of comparisons, if
    `p_adjusted` < 1 − confidence.
    """
    if difference.interval is None or difference.p is None or difference.difference is None:
        return (
            DifferenceVerdict.NOT_ENOUGH_SEEDS
            if difference.method == Method.NOT_ENOUGH_SEEDS
            else DifferenceVerdict.UNDEFINED
        )
    if margin is not None and _is_within_margin(difference, margin):
        return DifferenceVerdict.EQUIVALENT
    p = difference.p if p_adjusted is None else p_adjusted
    if not is_significant(p, difference.interval.confidence):
        return DifferenceVerdict.NO_DIFFERENCE
    is_higher = difference.difference > difference.null_value
    if better is None:
        return DifferenceVerdict.HIGHER if is_higher else DifferenceVerdict.LOWER
    return DifferenceVerdict.BETTER if is_higher == (better == "higher") else DifferenceVerdict.WORSE


def is_significant(p: float | None, confidence: float) -> bool:
    """Whether p, adjusted for its family where it has one, is below 1 − confidence; never without a test."""
    return p is not None and p < 1.0 - confidence


def _is_within_margin(difference: MeanDifference, margin: float) -> bool:
    assert difference.interval is not None and margin >= 0.0
    low, high = (1.0 / (1.0 + margin), 1.0 + margin) if difference.scale == "log" else (-margin, margin)
    return low <= difference.interval.low and difference.interval.high <= high
