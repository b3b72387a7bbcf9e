"""How often runs diverge, beside a constant or another row, by exact methods."""

from __future__ import annotations

import math

from initbench.compare.gates import algebra
from initbench.compare.gates.estimates import Estimate
from initbench.compare.gates.known import Sides, UnknownError, aggregated
from initbench.compare.gates.tree import Metric, Node
from initbench.compare.intervals import rate_interval
from initbench.compare.rates import rate_difference
from initbench.compare.sides import Side


def rates(rate: Metric, other: Node, sides: Sides, confidence: float, sign: float) -> Estimate:
    """sign · (rate − other), by Clopper and Pearson's interval of the rate, or an exact test of two rates."""
    side = sides[rate.row]
    if isinstance(other, Metric) and other.is_rate:
        return _two_rates(side, sides[other.row], confidence)
    try:
        limit = algebra.constant(algebra.bound(other, lambda node: aggregated(node, sides)))
    except UnknownError as unknown:
        return Estimate(None, None, None, (), "", str(unknown))
    found = rate_interval(sum(side.events.values()), side.n, confidence)
    if found is None:
        return Estimate(None, None, None, (0,), "", "no run is complete")
    seen = sum(side.events.values()) / side.n
    low, high = sorted((sign * (found.low - limit), sign * (found.high - limit)))
    return Estimate(sign * (seen - limit), low, high, (side.n,), "Clopper–Pearson")


def _two_rates(a: Side, b: Side, confidence: float) -> Estimate:
    """The interval is all of one sign where an exact test tells the rates apart, and of both where not."""
    found = rate_difference(a.events, b.events)
    n = (found.n_a, found.n_b)
    if found.p is None or found.difference is None:
        return Estimate(None, None, None, n, "", "no run is complete")
    method = f"{found.method}, p = {found.p:.2g}"
    least = math.nextafter(0.0, 1.0)
    low, high = (-1.0, 1.0) if found.p >= 1.0 - confidence else (least, 1.0)
    if found.difference < 0.0:
        low, high = -high, -low
    return Estimate(found.difference, low, high, n, method)
