"""How often runs diverge in two arms, by exact tests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from initbench.compare.pairing import known, shared

Events = Mapping[Any, bool | None]
"""Whether it happened, by seed; None for a run of which it is not known."""


class RateMethod(StrEnum):
    """How two rates were tested."""

    MCNEMAR = "exact McNemar"
    FISHER = "Fisher's exact"
    TOO_FEW_SHARED = "Fisher's exact, too few shared seeds"
    NO_RUNS = "none, no runs"


@dataclass(frozen=True)
class RateDifference:
    """The rate in a less the rate in b."""

    difference: float | None
    p: float | None
    """Two-sided, of equal rates; None where an arm has no runs."""
    n_a: int
    n_b: int
    """Runs that were used: of paired seeds, the pairs."""
    method: RateMethod


def rate_difference(a: Events, b: Events, *, paired: bool = False) -> RateDifference:
    """Test whether an event is as frequent in one arm as in the other.

    Fisher's exact test (1935), or McNemar's in its exact form (1947) where `paired` says that seeds are
    shared and enough of them are (`pairing.shared`). Both are valid for few runs, and cautious then.
    """
    known_a, known_b = known(a), known(b)
    pairs = shared(known_a, known_b) if paired else None
    if pairs:
        only_a, only_b = sum(x and not y for x, y in pairs), sum(y and not x for x, y in pairs)
        n = len(pairs)
        return RateDifference((only_a - only_b) / n, mcnemar(only_a, only_b), n, n, RateMethod.MCNEMAR)
    n_a, n_b = len(known_a), len(known_b)
    if not n_a or not n_b:
        return RateDifference(None, None, n_a, n_b, RateMethod.NO_RUNS)
    k_a, k_b = sum(known_a.values()), sum(known_b.values())
    method = RateMethod.TOO_FEW_SHARED if paired else RateMethod.FISHER
    return RateDifference(k_a / n_a - k_b / n_b, fisher(k_a, n_a, k_b, n_b), n_a, n_b, method)


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
    seen = weights[k_a - fewest]
    return sum(w for w in weights if w <= seen) / sum(weights)


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact McNemar test, which is a sign test of the pairs that disagree: its two-sided p.

    Of m = only_a + only_b of them, either kind is Binomial(m, ½); p = min(1, 2 P(X ≤ min(only_a, only_b))).
    Source: McNemar 1947, Note on the sampling error of the difference between correlated proportions.
    """
    pairs = only_a + only_b
    weight = tail = 1
    for k in range(min(only_a, only_b)):
        weight = weight * (pairs - k) // (k + 1)
        tail += weight
    return min(1.0, 2 * tail / (1 << pairs))
