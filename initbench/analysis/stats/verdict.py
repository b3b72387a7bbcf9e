"""Verdicts on a difference, such as better, worse or no difference shown."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from initbench.analysis.stats.mean_difference import MeanDifference, Method


class DifferenceVerdict(StrEnum):
    """Verdict on the first arm, compared with the second."""

    BETTER = "better"
    WORSE = "worse"
    HIGHER = "higher"
    """For a metric without a better direction; LOWER likewise."""
    LOWER = "lower"
    NO_DIFFERENCE = "no difference shown"
    """A difference may still exist: the interval shows how large it can be."""
    EQUIVALENT = "equivalent within the margin"
    NOT_ENOUGH_SEEDS = "not enough seeds"
    DIVERGED = "diverged"
    """Every run of an arm diverged, so there is no number to compare."""
    NOT_MEASURED = "not measured"
    """One of the arms, or both, has no value."""
    UNDEFINED = "cannot be said"


def difference_verdict(
    difference: MeanDifference,
    better: Literal["higher", "lower"] | None,
    *,
    margin: float | None = None,
    p_adjusted: float | None = None,
) -> DifferenceVerdict:
    """Return the verdict on a difference.

    Args:
        difference: The difference of the two arms.
        better: Which values of the metric are better; None if neither high nor low values are.
        margin: Largest difference that does not matter. With a margin m the arms are equivalent if the whole
            interval is within ±m (on the log scale, between 1 / (1 + m) and 1 + m), even if it excludes zero
            difference. This amounts to two one-sided tests at level (1 − confidence) / 2 each (Schuirmann
            1987 uses twice that level).
        p_adjusted: p-value adjusted for its family of comparisons; the p-value of `difference` if None. The
            difference is significant if it is below 1 − confidence.
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
    """Return whether p is below 1 − confidence; False if there is no test (None)."""
    return p is not None and p < 1.0 - confidence


def _is_within_margin(difference: MeanDifference, margin: float) -> bool:
    assert difference.interval is not None and margin >= 0.0
    low, high = (1.0 / (1.0 + margin), 1.0 + margin) if difference.scale == "log" else (-margin, margin)
    return low <= difference.interval.low and difference.interval.high <= high
