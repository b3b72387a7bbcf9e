"""Whether a claim holds, from runs: supported, contradicted or undecided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from initbench.analysis.gates.evaluate import Gate, GateResult, GateState, judge
from initbench.analysis.gates.parser import parse_condition
from initbench.analysis.tables import Table
from initbench.config.lesson_schema import Claim
from initbench.study.claim_limits import ArmRecord, reasons


class ClaimVerdict(StrEnum):
    """What came of a claim."""

    SUPPORTED = "supported"
    """The whole interval fulfils its condition."""
    CONTRADICTED = "contradicted"
    """The whole interval fulfils the opposite."""
    UNDECIDED = "undecided"
    """Neither: there are too few seeds, the numbers lie too close to the border, or a reason in `limits`."""


@dataclass(frozen=True)
class ClaimResult:
    """A claim, and what it came to."""

    claim: Claim
    judgement: GateResult
    n: int
    """The fewest runs that a number behind it comes from."""
    reasons: tuple[str, ...] = ()
    """Why it is left undecided, whatever its numbers say."""

    @property
    def verdict(self) -> ClaimVerdict:
        """Of a claim about every arm: supported if all of them show it, contradicted if one does not."""
        if self.reasons:
            return ClaimVerdict.UNDECIDED
        states = {case.state for case in self.judgement.cases}
        if GateState.CLEAR in states:
            return ClaimVerdict.CONTRADICTED
        return ClaimVerdict.SUPPORTED if states == {GateState.TRIGGERED} else ClaimVerdict.UNDECIDED


def judged(
    claims: Sequence[Claim],
    table: Table,
    confidence: float = 0.95,
    arms: Mapping[str, ArmRecord] | None = None,
) -> list[ClaimResult]:
    """Judge claims on a table whose rows are the arms. Raises UsageError for layers that no arm has.

    `arms` has by row what `limits.reasons` looks at; without it the numbers alone decide.
    """
    gates = [Gate(claim.holds_if, parse_condition(claim.holds_if)) for claim in claims]
    found = judge(gates, [table], confidence)
    return [
        ClaimResult(claim, judgement, _runs(judgement, table), tuple(reasons(judgement, arms or {})))
        for claim, judgement in zip(claims, found, strict=True)
    ]


def _runs(judgement: GateResult, table: Table) -> int:
    """Numbers of these very runs (min, max) have no sample size of their own: then that of their arms."""
    used = [n for case in judgement.cases for part in case.parts for n in part.found.n]
    named = {quantity.row.name for quantity in judgement.gate.quantities}
    rows = [row.n for row in table.rows if None in named or row.label in named]
    return min(used or rows, default=0)
