"""How often runs diverge in two arms, by exact tests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from initbench.analysis.stats.paired_samples import drop_missing

Events = Mapping[Any, bool | None]
"""Whether it happened, by seed; None for a run of which it is not known."""


class RateMethod(StrEnum):
    """How two rates were tested."""

    FISHER = "Fisher's exact"
    NO_RUNS = "none, no runs"


@dataclass(frozen=True)
class RateDifference:
    """The rate in a less the rate in b."""

    difference: float | None
    p: float | None
    """Two-sided, of equal rates; None where an arm has no runs."""
    n_a: int
    n_b: int
    """Runs that were used."""
    method: RateMethod


def compare_rates(a: Events, b: Events) -> RateDifference:
    """Test whether an event is as frequent in one arm as in the other, by Fisher's exact test (1935).

    It is valid for few runs, and cautious then. Shared seeds are left out of account: runs of one seed
    diverge together if anything, which makes it more cautious still. McNemar's test, which sees nothing but
    pairs that disagree, could not tell 5 of 5 from 0 of 5.
    """
    known_a, known_b = drop_missing(a), drop_missing(b)
    n_a, n_b = len(known_a), len(known_b)
    if not n_a or not n_b:
        return RateDifference(None, None, n_a, n_b, RateMethod.NO_RUNS)
    k_a, k_b = sum(known_a.values()), sum(known_b.values())
    return RateDifference(k_a / n_a - k_b / n_b, fisher(k_a, n_a, k_b, n_b), n_a, n_b, RateMethod.FISHER)


def fisher(k_a: int, n_a: int, k_b: int, n_b: int) -> float:
    """Fisher's exact test of k_a events in n_a against k_b in n_b: its two-sided p.

    With K = k_a + k_b given, k_a is hypergeometric: P(k) = C(n_a, k) C(n_b, K − k) / C(n_a + n_b, K). p is
    the sum over all k that are no more probable than the one seen, in whole numbers, so that ties are ties.
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
