"""Verdicts on claims from runs: supported, contradicted or undecided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from initbench.analysis.gates.evaluate import Gate, GateResult, GateState, evaluate_gates
from initbench.analysis.gates.parser import parse_condition
from initbench.analysis.tables import Table
from initbench.config.lesson_schema import Claim
from initbench.study.claim_limits import ArmRecord, reasons_undecided


class ClaimVerdict(StrEnum):
    """Verdict on a claim."""

    SUPPORTED = "supported"
    """The whole confidence interval fulfils the condition."""
    CONTRADICTED = "contradicted"
    """The whole confidence interval fulfils the opposite."""
    UNDECIDED = "undecided"
    """Neither: too few seeds, numbers too close to the limit, or a reason from `claim_limits`."""


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
