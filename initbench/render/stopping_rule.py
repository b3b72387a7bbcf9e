"""Output of `initbench sweep --until`: the rounds, and what was decided, as lines and as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from initbench.analysis.gates.evaluate import GateCase, GateResult, GateState
from initbench.render.gate_tables import comparison_sentence, part_document
from initbench.render.terminal import print_uncut
from initbench.render.text import plural
from initbench.study.run_study import SweepResult
from initbench.study.stopping_rule import CONFIDENCE, StoppingRule, holds

MAX_CASES = 20
"""Largest number of rows that are listed below a decision."""
NOTE = (
    "The number of seeds depends on the results, so intervals, letters and tests in tables, which assume a"
    " fixed number, are too optimistic. Only the interval of --until holds."
)
_WORDS = {GateState.TRIGGERED: "true", GateState.CLEAR: "false", GateState.UNDECIDED: "undecided"}


def first_round_line(rule: StoppingRule) -> str:
    """Return a sentence on the runs that may follow those of a plan."""
    rows = f"row {rule.rows[0]}" if len(rule.rows) == 1 else f"each of {len(rule.rows)} rows"
    return (
        f"--until: these are the runs of the first round; further rounds train up to {rule.max_seeds} seeds"
        f" of {rows}, until {rule.gate.text} is decided"
    )


def round_line(judgement: GateResult, seeds: int, rows: Sequence[str]) -> str:
    """Return a sentence on a round that decided too little, and on the next one."""
    case = judgement.undecided[0]
    part = next(part for part in case.parts if part.state is GateState.UNDECIDED)
    names = ", ".join(rows[:3]) + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
    label = f"{case.label}: " if case.label else ""
    return f"undecided: {label}{comparison_sentence(part)}; training {seeds} seeds of {names}"


def print_decision(console: Console, result: SweepResult, rule: StoppingRule, judgement: GateResult) -> None:
    """Print what was decided, after how many seeds, and by which intervals."""
    for line in decision_lines(result, rule, judgement):
        print_uncut(console, Text(line))


def decision_lines(result: SweepResult, rule: StoppingRule, judgement: GateResult) -> Iterator[str]:
    """Yield lines that say what was decided, after how many seeds, and by which intervals."""
    seeds = _count_seeds(result, rule)
    most = ", the maximum" if holds(judgement) is None and seeds == rule.max_seeds else ""
    yield f"until {rule.gate.text}: {_verdict(judgement)} after {plural(seeds, 'seed')}{most}"
    if judgement.gaps:
        yield f"    {'; '.join(judgement.gaps)}; run the same command again to continue"
        return
    for case in judgement.cases[:MAX_CASES]:
        label = f"{case.label}: {_WORDS[case.state]}, " if case.label else ""
        yield from (f"    {label}{comparison_sentence(part)}" for part in case.parts)
    if (rest := len(judgement.cases) - MAX_CASES) > 0:
        yield f"    … and {plural(rest, 'more row')}"
    if rule.comparisons > 1:
        yield f"    all {rule.comparisons} intervals hold at once with {100 * CONFIDENCE:g} % (Bonferroni)"
    yield NOTE


def decision_document(result: SweepResult, rule: StoppingRule, judgement: GateResult) -> dict[str, Any]:
    """Return what was decided as plain data."""
    return {
        "condition": rule.gate.text,
        "verdict": _verdict(judgement),
        "confidence": CONFIDENCE,
        "comparisons": rule.comparisons,
        "max_seeds": rule.max_seeds,
        "seeds": _count_seeds(result, rule),
        "not_evaluated": judgement.gaps,
        "cases": [_case_document(case) for case in judgement.cases],
    }


def _case_document(case: GateCase) -> dict[str, Any]:
    return {
        "row": case.label or None,
        "verdict": _WORDS[case.state],
        "comparisons": [{**part_document(part), "confidence": part.confidence} for part in case.parts],
    }


def _verdict(judgement: GateResult) -> str:
    return {True: "true", False: "false", None: "undecided"}[holds(judgement)]


def _count_seeds(result: SweepResult, rule: StoppingRule) -> int:
    """Return the largest number of seeds of a row of the rule."""
    return max(len(point.run_ids) for point in result.variants if point.label in rule.rows)
