"""Fisher's exact test of two rates, such as the shares of runs that diverge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from initbench.analysis.stats.paired_samples import drop_missing

Events = Mapping[Any, bool | None]
"""Whether the event occurred, by seed; None if that is unknown for a run."""


class RateMethod(StrEnum):
    """Test that was applied to two rates."""

    FISHER = "Fisher's exact"
    NO_RUNS = "none, no runs"


@dataclass(frozen=True)
class RateDifference:
    """The difference of two rates, rate of a − rate of b, with its test."""

    difference: float | None
    p: float | None
    """Two-sided p-value of the hypothesis that the rates are equal; None if an arm has no runs."""
    n_a: int
    n_b: int
    """Number of runs used from the second arm; `n_a` likewise from the first."""
    method: RateMethod


def compare_rates(a: Events, b: Events) -> RateDifference:
    """Test whether an event is as frequent in one arm as in the other, by Fisher's exact test (1935).

    The test is valid, and conservative, for few runs. Shared seeds are ignored: if runs of one seed are
    correlated, they tend to diverge together, which makes the test more conservative. McNemar's test, which
    uses only the pairs that disagree, could not distinguish 5 of 5 from 0 of 5.
    """
    known_a, known_b = drop_missing(a), drop_missing(b)
    n_a, n_b = len(known_a), len(known_b)
    if not n_a or not n_b:
        return RateDifference(None, None, n_a, n_b, RateMethod.NO_RUNS)
    k_a, k_b = sum(known_a.values()), sum(known_b.values())
    return RateDifference(k_a / n_a - k_b / n_b, fisher(k_a, n_a, k_b, n_b), n_a, n_b, RateMethod.FISHER)


def fisher(k_a: int, n_a: int, k_b: int, n_b: int) -> float:
    """Return the two-sided p-value of Fisher's exact test of k_a events in n_a against k_b in n_b.

    Given K = k_a + k_b, k_a is hypergeometric: P(k) = C(n_a, k) C(n_b, K − k) / C(n_a + n_b, K). p is the sum
    of P(k) over all k with P(k) ≤ P(k_a). It is computed in integers, so that ties are exact.
    Source: Fisher 1935, The logic of inductive inference.
    """
    total = k_a + k_b
    fewest, most = max(0, total - n_b), min(n_a, total)
    weight = math.comb(n_a, fewest) * math.comb(n_b, total - fewest)
    weights = [weight]
    for k in range(fewest, most):
        weight = weight * (n_a - k) * (total - k) // ((k + 1) * (n_b - total + k + 1))
        weights.append(weight)
    observed = weights[k_a - fewest]
    return sum(w for w in weights if w <= observed) / sum(weights)
