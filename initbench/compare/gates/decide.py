"""Whether a condition holds, given how sure its numbers are: yes, no, or not decided."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from initbench.compare.gates.estimate import estimate
from initbench.compare.gates.estimates import Estimate
from initbench.compare.gates.known import Sides
from initbench.compare.gates.tree import All, Any, Comparison, Near, Node, Not


class State(StrEnum):
    """What a gate came to."""

    TRIGGERED = "triggered"
    """The whole interval fulfils the condition."""
    CLEAR = "clear"
    """The whole interval fulfils its opposite."""
    UNDECIDED = "undecided"


_OPPOSITE = {
    State.TRIGGERED: State.CLEAR,
    State.CLEAR: State.TRIGGERED,
    State.UNDECIDED: State.UNDECIDED,
}


@dataclass(frozen=True)
class Part:
    """One comparison of a gate, in one place."""

    condition: Comparison | Near
    state: State
    found: Estimate
    confidence: float


def decide(condition: Node, sides: Sides, confidence: float) -> tuple[State, list[Part]]:
    """The state of a condition, with its comparisons; and, or, not follow Kleene's three-valued logic."""
    if isinstance(condition, Comparison | Near):
        part = _compare(condition, sides, confidence)
        return part.state, [part]
    below = [decide(child, sides, confidence) for child in condition.children]
    states = [state for state, _ in below]
    parts = [part for _, found in below for part in found]
    if isinstance(condition, Not):
        return _OPPOSITE[states[0]], parts
    assert isinstance(condition, All | Any)
    decisive, other = State.CLEAR, State.TRIGGERED
    if isinstance(condition, Any):
        decisive, other = other, decisive
    if decisive in states:
        return decisive, parts
    return (State.UNDECIDED if State.UNDECIDED in states else other), parts


def _compare(condition: Comparison | Near, sides: Sides, confidence: float) -> Part:
    by_ratio = isinstance(condition, Comparison) and condition.relation not in ("==", "!=")
    found = estimate(condition.left, condition.right, sides, confidence, by_ratio=by_ratio)
    state = State.UNDECIDED
    if found.low is not None and found.high is not None:
        state = _state(condition, found.low, found.high, is_ratio=found.is_ratio)
    return Part(condition, state, found, confidence)


def _state(condition: Comparison | Near, low: float, high: float, *, is_ratio: bool) -> State:
    """Of the interval of left − right."""
    if isinstance(condition, Near):
        margin = math.log1p(condition.margin) if is_ratio else condition.margin
        holds, fails = -margin <= low and high <= margin, high < -margin or margin < low
    else:
        holds, fails = _RELATIONS[condition.relation](low, high)
    return State.TRIGGERED if holds else State.CLEAR if fails else State.UNDECIDED


_RELATIONS: dict[str, Callable[[float, float], tuple[bool, bool]]] = {
    "<": lambda low, high: (high < 0.0, low >= 0.0),
    "<=": lambda low, high: (high <= 0.0, low > 0.0),
    ">": lambda low, high: (low > 0.0, high <= 0.0),
    ">=": lambda low, high: (low >= 0.0, high < 0.0),
    "==": lambda low, high: (low == high == 0.0, high < 0.0 or low > 0.0),
    "!=": lambda low, high: (high < 0.0 or low > 0.0, low == high == 0.0),
}
"""Whether all of an interval fulfils the relation to 0, and whether none of it does."""
