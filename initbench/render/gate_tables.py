"""Results of gates, as sentences and as plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from initbench.analysis.gates.estimate import Estimate
from initbench.analysis.gates.evaluate import ComparisonResult, Gate, GateCase, GateResult, GateState
from initbench.analysis.gates.expression import Approx, Comparison, GateNode, Not, Relation
from initbench.analysis.gates.linear_form import constant_value
from initbench.render.text import plural

_SHARE = {
    GateState.TRIGGERED: "the whole interval is",
    GateState.CLEAR: "no part of the interval is",
    GateState.UNDECIDED: "only part of the interval is",
}
_CONSTANT = {
    GateState.TRIGGERED: "it is",
    GateState.CLEAR: "it is not",
    GateState.UNDECIDED: "undecided whether it is",
}
_CONDITION = {state: str(state) for state in GateState}
_REQUIREMENT = {
    GateState.TRIGGERED: "did not hold",
    GateState.CLEAR: "held",
    GateState.UNDECIDED: "undecided",
}
_OPPOSITE: dict[Relation, Relation] = {
    "<": ">=",
    "<=": ">",
    ">": "<=",
    ">=": "<",
    "==": "!=",
    "!=": "==",
}
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
MAX_CASES = 10
"""Largest number of rows listed below a gate."""


def verdict_line(judgement: GateResult) -> str:
    """Return a line with the state, the gate, and the number of rows that decided it."""
    count = len(judgement.cases)
    rows = "" if count < 2 else f" ({len(judgement.decisive)} of {plural(count, 'row')})"
    words = _REQUIREMENT if judgement.gate.is_requirement else _CONDITION
    return f"{words[judgement.state]}: {judgement.gate.text}{rows}"


def gate_name(gate: Gate) -> str:
    """Return the text of the gate, with the prefix `fail unless` for a requirement."""
    return f"fail unless {gate.text}" if gate.is_requirement else gate.text


def held_line(judgement: GateResult) -> str:
    """Return a line with the required condition and whether it held."""
    gate = judgement.gate
    wanted = gate.text if gate.is_requirement else negate_condition(gate.condition)
    return f"{_REQUIREMENT[judgement.state]}: {wanted}"


def negate_condition(condition: GateNode) -> str:
    """Return the negation of a condition in the grammar of gates."""
    if isinstance(condition, Comparison):
        return str(Comparison(condition.left, _OPPOSITE[condition.relation], condition.right))
    if isinstance(condition, Not):
        return str(condition.inner)
    return str(Not(condition))


def case_lines(judgement: GateResult) -> list[str]:
    """Return one sentence per comparison in the decisive rows, and one per reason why rows are missing.

    Empty for a gate that is clear in several rows. Each list has at most MAX_CASES entries.
    """
    if judgement.state == GateState.CLEAR and len(judgement.cases) > 1:
        return []
    listed_cases = judgement.decisive[:MAX_CASES]
    lines = [_case_prefix(case) + comparison_sentence(part) for case in listed_cases for part in case.parts]
    if (rest := len(judgement.decisive) - len(listed_cases)) > 0:
        lines.append(f"… and {plural(rest, 'more row')}")
    lines += [f"not evaluated: {gap}" for gap in judgement.gaps[:MAX_CASES]]
    if (rest := len(judgement.gaps) - MAX_CASES) > 0:
        lines.append(f"not evaluated for {plural(rest, 'more reason')}")
    if judgement.state == GateState.TRIGGERED and (open_cases := judgement.undecided):
        names = [case.label for case in open_cases[:MAX_CASES]]
        more = ["…"] if len(open_cases) > len(names) else []
        lines.append(f"undecided in {plural(len(open_cases), 'row')}: {', '.join([*names, *more])}")
    return lines


def _case_prefix(case: GateCase) -> str:
    return f"{case.label} ({case.dataset}): " if case.label else f"{case.dataset}: "


def comparison_sentence(part: ComparisonResult) -> str:
    """Return the numbers of a comparison and the reason for its result, in one sentence."""
    estimate = part.estimate
    observed = _observed_value(part)
    if estimate.is_exact:
        holds = "holds" if part.state == GateState.TRIGGERED else "does not hold"
        return f"{observed}, exact for these runs: the condition {holds}"
    counts = _counts(estimate)
    if estimate.low is None or estimate.high is None:
        return f"{', '.join([observed, *counts])}: {estimate.problem}"
    if "p =" in estimate.method:
        is_significant = not estimate.low < 0.0 < estimate.high
        outcome = "significant difference" if is_significant else "no significant difference"
        return f"{', '.join([observed, *counts])}, {estimate.method}: {outcome}"
    low, high = _displayed_value(part, estimate.low), _displayed_value(part, estimate.high)
    ends = f"{_number(min(low, high))} to {_number(max(low, high))}"
    if low == high:
        goal = _goal_text(part.condition, is_ratio=estimate.is_ratio)
        return f"{', '.join([observed, *counts])}, the same in all runs: {_CONSTANT[part.state]} {goal}"
    interval = f"{_percent(part.confidence)} interval {ends}"
    return f"{', '.join([observed, interval, *counts])} ({estimate.method}): {_interval_share(part)}"


def _observed_value(part: ComparisonResult) -> str:
    """Return the compared quantity and its mean, as in `final_val_accuracy = 0.94`."""
    value = (
        "unknown"
        if part.estimate.difference is None
        else _number(_displayed_value(part, part.estimate.difference))
    )
    return f"{_subject(part)} = {value}"


def _subject(part: ComparisonResult) -> str:
    left_side, right_side = part.condition.left, part.condition.right
    if _constant(right_side) is not None:
        return str(left_side)
    if _constant(left_side) is not None:
        return str(right_side)
    sign = "/" if part.estimate.is_ratio else "−"
    return f"{_parenthesized(left_side)} {sign} {_parenthesized(right_side)}"


def _parenthesized(node: GateNode) -> str:
    return str(node) if node.precedence > 3 else f"({node})"


def _constant(node: GateNode) -> float | None:
    """Return the value of a side that contains no quantity; None for any other side."""
    return None if node.quantities else constant_value(node)


def _interval_share(part: ComparisonResult) -> str:
    """Return how much of the interval satisfies the condition, as in `the whole interval is < 0.95`."""
    return f"{_SHARE[part.state]} {_goal_text(part.condition, is_ratio=part.estimate.is_ratio)}"


def _goal_text(condition: Comparison | Approx, *, is_ratio: bool) -> str:
    """Return the condition on the displayed value, as in `< 0.95` or `within 0.01 of 0`."""
    left_side, right_side = _constant(condition.left), _constant(condition.right)
    neutral = 1.0 if is_ratio else 0.0
    limit = right_side if right_side is not None else left_side if left_side is not None else neutral
    if isinstance(condition, Approx):
        factor = f"a factor {_number(1.0 + condition.margin)}" if is_ratio else _number(condition.margin)
        return f"within {factor} of {_number(limit)}"
    relation: str = condition.relation
    if right_side is None and left_side is not None:
        relation = _FLIPPED.get(relation, relation)
    return f"{relation} {_number(limit)}"


def _displayed_value(part: ComparisonResult, difference: float) -> float:
    """Convert left − right to the displayed value.

    That is one side if the other is a constant, otherwise the difference or the ratio of both sides.
    """
    left_side, right_side = _constant(part.condition.left), _constant(part.condition.right)
    if part.estimate.is_ratio:
        ratio = _exp(difference if right_side is not None or left_side is None else -difference)
        return ratio * (right_side if right_side is not None else left_side if left_side is not None else 1.0)
    if right_side is None and left_side is not None:
        return left_side - difference
    return difference + (right_side or 0.0)


def _exp(logarithm: float) -> float:
    return math.exp(logarithm) if logarithm < 709.0 else math.inf


def _counts(estimate: Estimate) -> list[str]:
    n = [f"n = {' and '.join(map(str, estimate.n))}"] if estimate.n else []
    return [*n, f"{plural(estimate.missing, 'run')} without a value"] if estimate.missing else n


def _number(value: float) -> str:
    if math.isinf(value):
        return "never" if value > 0 else "−∞"
    return f"{value:.4g}".replace("-", "−", 1) if value < 0 else f"{value:.4g}"


def _percent(confidence: float) -> str:
    return f"{100 * confidence:.6g} %"


def gates_document(judgements: Sequence[GateResult]) -> list[dict[str, Any]]:
    """Return the gates as plain data, for the key "gates" of a JSON document."""
    return [
        {
            "gate": judgement.gate.text,
            "kind": "fail_unless" if judgement.gate.is_requirement else "fail_if",
            "state": str(judgement.state),
            "held": held_line(judgement),
            "not_judged": judgement.gaps,
            "cases": [_case(case) for case in judgement.cases],
        }
        for judgement in judgements
    ]


def _case(case: GateCase) -> dict[str, Any]:
    return {
        "row": case.label or None,
        "dataset": case.dataset,
        "state": str(case.state),
        "comparisons": [part_document(part) for part in case.parts],
    }


def part_document(part: ComparisonResult) -> dict[str, Any]:
    """Return a comparison as plain data."""
    estimate = part.estimate
    has_interval = estimate.low is not None and "p =" not in estimate.method
    return {
        "condition": str(part.condition),
        "state": str(part.state),
        "difference": estimate.difference,
        "ci": [estimate.low, estimate.high] if has_interval else None,
        "scale": "log" if estimate.is_ratio else "linear",
        "margin": part.condition.margin if isinstance(part.condition, Approx) else None,
        "n": list(estimate.n),
        "missing": estimate.missing,
        "method": estimate.method,
        "why": comparison_sentence(part),
    }
