"""Verdicts on claims from runs: supported, contradicted or undecided.

A claim is left undecided although its numbers are clear if the tuning or the evaluation was too coarse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from statistics import fmean

from initbench.analysis.gates.evaluate import (
    ComparisonResult,
    Gate,
    GateResult,
    GateState,
    evaluate_gates,
)
from initbench.analysis.gates.expression import (
    GateNode,
    LayerAggregate,
    LayerStatistic,
    Number,
    Quantity,
    StepsTo,
)
from initbench.analysis.gates.parser import parse_condition
from initbench.analysis.metrics import steps_to
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.tables import Table
from initbench.config.study import Claim
from initbench.study.tuning import Tuning


class ClaimVerdict(StrEnum):
    """Verdict on a claim."""

    SUPPORTED = "supported"
    """The whole confidence interval fulfils the condition."""
    CONTRADICTED = "contradicted"
    """The whole confidence interval fulfils the opposite."""
    UNDECIDED = "undecided"
    """Neither: too few seeds, numbers too close to the limit, or a reason from `reasons_undecided`."""


@dataclass(frozen=True)
class ClaimResult:
    """A claim with its result."""

    claim: Claim
    judgement: GateResult
    n: int
    """Smallest number of runs behind any of its numbers."""
    reasons: tuple[str, ...] = ()
    """Reasons why the claim is undecided regardless of its numbers."""

    @property
    def verdict(self) -> ClaimVerdict:
        """Verdict; a claim about every arm is supported if all arms show it, contradicted if one does not."""
        if self.reasons:
            return ClaimVerdict.UNDECIDED
        states = {case.state for case in self.judgement.cases}
        if GateState.CLEAR in states:
            return ClaimVerdict.CONTRADICTED
        return ClaimVerdict.SUPPORTED if states == {GateState.TRIGGERED} else ClaimVerdict.UNDECIDED


def evaluate_claims(
    claims: Sequence[Claim],
    table: Table,
    confidence: float = 0.95,
    arms: Mapping[str, ArmRecord] | None = None,
) -> list[ClaimResult]:
    """Judge claims on a table whose rows are the arms. Raises UsageError for layers that no arm has.

    `arms` maps rows to the records that `reasons_undecided` checks; without it the numbers alone decide.
    """
    gates = [Gate(claim.holds_if, parse_condition(claim.holds_if)) for claim in claims]
    results = evaluate_gates(gates, [table], confidence)
    return [
        ClaimResult(claim, result, _sample_size(result, table), tuple(reasons_undecided(result, arms or {})))
        for claim, result in zip(claims, results, strict=True)
    ]


def _sample_size(result: GateResult, table: Table) -> int:
    """Return the smallest sample size; min and max have none of their own and use that of their arms."""
    counts = [n for case in result.cases for part in case.parts for n in part.estimate.n]
    row_names = {quantity.row.name for quantity in result.gate.quantities}
    rows = [row.n for row in table.rows if None in row_names or row.label in row_names]
    return min(counts or rows, default=0)


@dataclass(frozen=True)
class ArmRecord:
    """The runs of one arm, and how it was tuned."""

    runs: Sequence[RunSummary]
    tuning: Tuning | None


def reasons_undecided(result: GateResult, arms: Mapping[str, ArmRecord]) -> Iterator[str]:
    """Yield a sentence for each reason not to decide the claim behind `result` on these runs."""
    for name, arm in arms.items():
        tuning = arm.tuning
        if (
            tuning is not None
            and tuning.range_edge is not None
            and _depends_on_tuned_key(name, tuning.key, result)
        ):
            yield _edge_sentence(name, tuning)
    parts = [part for case in result.cases for part in case.parts]
    yield from dict.fromkeys(
        reason for part in parts if (reason := _coarse_evaluation(part, arms)) is not None
    )


def _depends_on_tuned_key(name: str, key: str, result: GateResult) -> bool:
    """Return whether the claim reads a quantity of the arm that the tuned key can change.

    Quantities measured before the first update do not depend on keys of `train`.
    """
    quantities = [q for q in result.gate.quantities if q.row.name in (name, None)]
    return any(not (key.startswith("train.") and _is_at_init(quantity)) for quantity in quantities)


def _is_at_init(quantity: Quantity) -> bool:
    return isinstance(quantity, LayerStatistic | LayerAggregate) and quantity.moment == "init"


def _edge_sentence(name: str, tuning: Tuning) -> str:
    values = [trial.value for trial in tuning.tried]
    return (
        f"{name} is best at {tuning.key}={tuning.chosen.value:g}, the {tuning.range_edge} end "
        f"of the {len(values)} values tried ({values[0]:g} to {values[-1]:g}): a better one may lie beyond"
    )


def _coarse_evaluation(part: ComparisonResult, arms: Mapping[str, ArmRecord]) -> str | None:
    """Return a sentence if two step counts differ by less than the evaluation interval, else None."""
    left_side, right_side = part.condition.left, part.condition.right
    if not any(isinstance(side, StepsTo) for side in (left_side, right_side)):
        return None
    steps = [_mean_steps(side, arms) for side in (left_side, right_side)]
    if steps[0] is None or steps[1] is None:
        return None
    interval = max(
        _evaluation_interval(arm.runs)
        for side in (left_side, right_side)
        if (arm := _arm_of(side, arms)) is not None
    )
    difference = abs(steps[0] - steps[1])
    if (
        interval <= 1.0 or difference == 0.0 or difference >= interval
    ):  # counts are exact if every update is evaluated
        return None
    return (
        f"the accuracy is evaluated every {interval:g} updates,"
        f" which cannot show a difference of {difference:.3g}:"
        " give a smaller train.eval_every"
    )


def _arm_of(side: GateNode, arms: Mapping[str, ArmRecord]) -> ArmRecord | None:
    if not isinstance(side, StepsTo) or side.row.name is None:
        return None
    return arms.get(side.row.name)


def _mean_steps(side: GateNode, arms: Mapping[str, ArmRecord]) -> float | None:
    """Return the mean step count of an arm, or the value of a number; None for any other expression."""
    if isinstance(side, Number):
        return side.value
    arm = _arm_of(side, arms)
    if arm is None or not isinstance(side, StepsTo):
        return None
    counts = [steps_to(run, side.accuracy) for run in arm.runs]
    reached = [count for count in counts if count is not None and math.isfinite(count)]
    return fmean(reached) if reached else None


def _evaluation_interval(runs: Sequence[RunSummary]) -> float:
    """Return the largest number of updates between two evaluations."""
    evaluated_steps = [[step for step, *_ in run.evaluations if step is not None] for run in runs]
    return max(
        (following - previous for steps in evaluated_steps for previous, following in pairwise(steps)),
        default=0.0,
    )
