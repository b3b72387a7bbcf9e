"""Evaluation of gates: a condition holds, does not hold, or is undecided at the given confidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from initbench.analysis.baseline import find_row
from initbench.analysis.gates.estimate import Estimate, estimate_difference
from initbench.analysis.gates.expression import (
    And,
    Approx,
    Comparison,
    GateNode,
    LayerStatistic,
    Not,
    Or,
    Quantity,
    RowName,
)
from initbench.analysis.gates.parser import parse_gate, with_caret
from initbench.analysis.gates.run_values import Operands
from initbench.analysis.operands import Operand, RunsOperand, keys_varying_in_rows, runs_operand
from initbench.analysis.regression.matching import Matching
from initbench.analysis.regression.reference import Reference
from initbench.analysis.tables import Row, Table
from initbench.errors import UsageError


class GateState(StrEnum):
    """Result of a gate or of a condition."""

    TRIGGERED = "triggered"
    """The condition holds on the whole interval."""
    CLEAR = "clear"
    """The condition holds nowhere on the interval."""
    UNDECIDED = "undecided"
    """The condition holds on part of the interval, or there is no interval."""


_OPPOSITE = {
    GateState.TRIGGERED: GateState.CLEAR,
    GateState.CLEAR: GateState.TRIGGERED,
    GateState.UNDECIDED: GateState.UNDECIDED,
}


@dataclass(frozen=True)
class ComparisonResult:
    """The result of one comparison of a gate for one row, or for the rows that it names."""

    condition: Comparison | Approx
    state: GateState
    estimate: Estimate
    confidence: float


def evaluate_condition(
    condition: GateNode, operands: Operands, confidence: float, *, always_valid: bool = False
) -> tuple[GateState, list[ComparisonResult]]:
    """Return the state of a condition, and the results of all of its comparisons.

    `and`, `or` and `not` follow Kleene's three-valued logic.
    """
    if isinstance(condition, Comparison | Approx):
        part = _evaluate_comparison(condition, operands, confidence, always_valid=always_valid)
        return part.state, [part]
    children = [
        evaluate_condition(child, operands, confidence, always_valid=always_valid)
        for child in condition.children
    ]
    states = [state for state, _ in children]
    parts = [part for _, child_parts in children for part in child_parts]
    if isinstance(condition, Not):
        return _OPPOSITE[states[0]], parts
    assert isinstance(condition, And | Or)
    decisive, other = GateState.CLEAR, GateState.TRIGGERED
    if isinstance(condition, Or):
        decisive, other = other, decisive
    if decisive in states:
        return decisive, parts
    return (GateState.UNDECIDED if GateState.UNDECIDED in states else other), parts


def _evaluate_comparison(
    condition: Comparison | Approx, operands: Operands, confidence: float, *, always_valid: bool
) -> ComparisonResult:
    by_ratio = isinstance(condition, Comparison) and condition.relation not in ("==", "!=")
    estimate = estimate_difference(
        condition.left,
        condition.right,
        operands,
        confidence,
        by_ratio=by_ratio,
        always_valid=always_valid,
    )
    state = GateState.UNDECIDED
    if estimate.low is not None and estimate.high is not None:
        state = _state_of_interval(condition, estimate.low, estimate.high, is_ratio=estimate.is_ratio)
    return ComparisonResult(condition, state, estimate, confidence)


def _state_of_interval(
    condition: Comparison | Approx, low: float, high: float, *, is_ratio: bool
) -> GateState:
    """Return the state of a comparison, given the interval of left − right."""
    if isinstance(condition, Approx):
        margin = math.log1p(condition.margin) if is_ratio else condition.margin
        holds, fails = -margin <= low and high <= margin, high < -margin or margin < low
    else:
        holds, fails = _RELATIONS[condition.relation](low, high)
    return GateState.TRIGGERED if holds else GateState.CLEAR if fails else GateState.UNDECIDED


_RELATIONS: dict[str, Callable[[float, float], tuple[bool, bool]]] = {
    "<": lambda low, high: (high < 0.0, low >= 0.0),
    "<=": lambda low, high: (high <= 0.0, low > 0.0),
    ">": lambda low, high: (low > 0.0, high <= 0.0),
    ">=": lambda low, high: (low >= 0.0, high < 0.0),
    "==": lambda low, high: (low == high == 0.0, high < 0.0 or low > 0.0),
    "!=": lambda low, high: (high < 0.0 or low > 0.0, low == high == 0.0),
}
"""By relation: whether it holds between the whole interval and 0, and whether it holds nowhere on it."""


FAIL_IF, FAIL_UNLESS = "--fail-if", "--fail-unless"
MAX_REASONS = 5
"""Maximum number of rows whose reasons are listed in an error."""


@dataclass(frozen=True)
class Gate:
    """A condition that makes the command fail."""

    text: str
    condition: GateNode
    """The condition that makes the command fail; for a requirement, the negation of `text`."""
    option: str = FAIL_IF
    """Command-line option that takes such gates."""

    @property
    def is_requirement(self) -> bool:
        """Whether the command fails unless `text` is shown to hold; otherwise it fails if `text` is."""
        return self.option == FAIL_UNLESS

    @property
    def quantities(self) -> list[Quantity]:
        """Quantities in the condition, in order."""
        return self.condition.quantities


@dataclass(frozen=True)
class GateCase:
    """The result of a gate for one row, or for the rows that it names."""

    label: str
    """Label of the row; empty if the gate names all of its rows."""
    dataset: str
    state: GateState
    parts: list[ComparisonResult]


@dataclass(frozen=True)
class GateResult:
    """The result of a gate over all rows."""

    gate: Gate
    cases: list[GateCase]
    gaps: list[str] = field(default_factory=list)
    """Why the gate could not be evaluated everywhere, such as a row that is in only one of the states."""

    @property
    def state(self) -> GateState:
        """Triggered if any case is; clear if all cases are and nothing is in `gaps`; otherwise undecided."""
        states = {case.state for case in self.cases}
        if GateState.TRIGGERED in states:
            return GateState.TRIGGERED
        return GateState.CLEAR if states == {GateState.CLEAR} and not self.gaps else GateState.UNDECIDED

    @property
    def decisive(self) -> list[GateCase]:
        """Cases with the same state as the gate."""
        return [case for case in self.cases if case.state == self.state]

    @property
    def undecided(self) -> list[GateCase]:
        """Cases that are undecided."""
        return [case for case in self.cases if case.state == GateState.UNDECIDED]

    def fails(self, *, strict: bool) -> bool:
        """Return whether the command fails. An undecided requirement fails, as it was not shown to hold."""
        demanding = strict or self.gate.is_requirement
        return self.state == GateState.TRIGGERED or (demanding and self.state == GateState.UNDECIDED)


def read_gates(texts: Sequence[str], requirements: Sequence[str] = ()) -> list[Gate]:
    """Parse gates.

    Args:
        texts: Conditions that must not hold.
        requirements: Conditions that must hold.

    Raises:
        UsageError: A text is not a valid gate; the message shows the column.
    """
    gates = [Gate(text, parse_gate(text, FAIL_IF)) for text in texts]
    return gates + [Gate(text, Not(parse_gate(text, FAIL_UNLESS)), FAIL_UNLESS) for text in requirements]


def evaluate_gates(
    gates: Sequence[Gate],
    tables: Sequence[Table],
    confidence: float = 0.95,
    reference: Reference | None = None,
    *,
    strict: bool = False,
    always_valid: bool = False,
) -> list[GateResult]:
    """Evaluate gates on the rows of all tables.

    A quantity without a row name is evaluated for each row in turn.

    Args:
        gates: The gates.
        tables: The current state.
        confidence: Between 0 and 1.
        reference: The earlier state that `before.` refers to.
        strict: Whether a gate that cannot be evaluated is undecided, with the reason in its gaps, instead of
            raising an error.
        always_valid: Whether intervals are those of confidence sequences, because the number of runs was
            chosen by their results. A reference document cannot be used then.

    Raises:
        UsageError: Unless `strict`: a row or a layer does not exist, rows are not in the same table, there is
            no run, or `before.` is used without a reference.
    """
    evaluator = _GateEvaluator(tables, confidence, reference, always_valid=always_valid)
    return [evaluator.evaluate_or_explain(gate) if strict else evaluator.evaluate(gate) for gate in gates]


class _GateEvaluator:
    """Evaluates gates; the operand of each row is built once and shared by all gates."""

    def __init__(
        self,
        tables: Sequence[Table],
        confidence: float,
        reference: Reference | None,
        *,
        always_valid: bool,
    ) -> None:
        self._tables, self._confidence, self._earlier = tables, confidence, reference
        self._always_valid = always_valid
        self._matching = None if reference is None else Matching(tables, reference)
        self._ready: dict[tuple[int, int], RunsOperand] = {}
        self._varying = {id(table): keys_varying_in_rows(table) for table in tables}

    def evaluate(self, gate: Gate) -> GateResult:
        """Evaluate the gate wherever it applies; raise UsageError if it cannot be evaluated at all."""
        if not self._tables:
            raise UsageError(f"{gate.option}: no runs to evaluate")
        self._check_names(gate)
        gaps = self._unmatched_row_gaps(gate)
        located = [entry for table in self._tables for entry in self._operands_of_table(gate, table)]
        if not located:
            self._raise_no_cases(gate, gaps)
        self._check_layers(gate, [operands for *_, operands in located])
        cases = [
            GateCase(label, dataset, *self._evaluate_case(gate, operands))
            for label, dataset, operands in located
        ]
        return GateResult(gate, cases, gaps)

    def _evaluate_case(self, gate: Gate, operands: Operands) -> tuple[GateState, list[ComparisonResult]]:
        return evaluate_condition(gate.condition, operands, self._confidence, always_valid=self._always_valid)

    def evaluate_or_explain(self, gate: Gate) -> GateResult:
        """Evaluate the gate; one that cannot be evaluated is undecided, with the reason in its gaps."""
        try:
            return self.evaluate(gate)
        except UsageError as error:
            (problem, *_) = str(error).removeprefix(f"{gate.option}: ").splitlines()
            return GateResult(gate, [], [f"at {problem}" if problem.startswith("column") else problem])

    def _unmatched_row_gaps(self, gate: Gate) -> list[str]:
        """Return a message for each row that lacks the earlier state that the gate refers to.

        If the gate also refers to the current state of each row, rows that only the earlier state has are
        reported, too.
        """
        states = {quantity.row.earlier for quantity in gate.quantities if quantity.row.name is None}
        if self._matching is None or True not in states:
            return []
        only_now = self._matching.only_now.items()
        only_earlier = self._matching.only_before if states == {True, False} else []
        return [
            *(f"{label} is only in the current state: {reason}" for label, reason in only_now),
            *(f"{label} is only in the earlier state" for label in only_earlier),
        ]

    def _operands_of_table(self, gate: Gate, table: Table) -> Iterator[tuple[str, str, Operands]]:
        """Yield the label, data set and operands of each case of the gate in a table."""
        names = list(dict.fromkeys(quantity.row for quantity in gate.quantities))
        by_name = {name: self._named_operand(table, name) for name in names if name.name is not None}
        named_operands = {name: operand for name, operand in by_name.items() if operand is not None}
        if len(named_operands) < len(by_name):
            return
        unnamed = [name for name in names if name.name is None]
        if not unnamed:
            yield "", table.dataset, named_operands
            return
        named_rows = [find_row(table, name.name) for name in by_name if name.name and not name.earlier]
        for row in table.rows:
            candidates = {name: self._operand_of_each_row(table, row, name) for name in unnamed}
            operands = {name: operand for name, operand in candidates.items() if operand is not None}
            if len(operands) == len(candidates) and not any(row is named_row for named_row in named_rows):
                yield row.label, table.dataset, {**named_operands, **operands}

    def _operand_of_each_row(self, table: Table, row: Row, name: RowName) -> Operand | None:
        if name.earlier:
            return self._matching.earlier_operand(table, row) if self._matching else None
        return self._runs_operand(table, row)

    def _named_operand(self, table: Table, name: RowName) -> Operand | None:
        assert name.name is not None
        row = find_row(table, name.name)
        if not name.earlier:
            return self._runs_operand(table, row) if row else None
        assert self._earlier is not None and self._matching is not None
        matched = self._matching.earlier_operand(table, row) if row else None
        return matched or self._earlier.find_row(table, name.name)

    def _runs_operand(self, table: Table, row: Row) -> RunsOperand:
        cache_key = id(table), id(row)
        if cache_key not in self._ready:
            self._ready[cache_key] = runs_operand(row, table.target, self._varying[id(table)])
        return self._ready[cache_key]

    def _check_names(self, gate: Gate) -> None:
        for quantity in gate.quantities:
            name = quantity.row
            if name.earlier and self._earlier is None:
                raise _gate_error(
                    gate, quantity, "before. needs an earlier state; pass --against RUNS_DIR or compare.json"
                )
            if name.name is None or any(self._named_operand(table, name) for table in self._tables):
                continue
            labels = [row.label for table in self._tables for row in table.rows]
            if name.earlier:
                assert self._earlier is not None
                labels = self._earlier.row_labels()
            raise _gate_error(gate, quantity, _unknown_row_message(name, labels))

    def _raise_no_cases(self, gate: Gate, gaps: Sequence[str]) -> None:
        names = sorted({repr(q.row.name) for q in gate.quantities if q.row.name is not None})
        quantity = gate.quantities[0]
        if len(names) > 1:
            problem = (
                f"{' and '.join(names)} are not in the same table: their data, precision or budgets differ"
            )
            raise _gate_error(gate, quantity, problem)
        if any(q.row.earlier for q in gate.quantities):
            reasons = "".join(f"; {gap}" for gap in gaps[:MAX_REASONS])
            raise _gate_error(gate, quantity, f"no row is in both states{reasons}")
        raise _gate_error(gate, quantity, "there is no other row to compare with")

    def _check_layers(self, gate: Gate, all_operands: Sequence[Operands]) -> None:
        for quantity in gate.quantities:
            if not isinstance(quantity, LayerStatistic):
                continue
            operands = [operands[quantity.row] for operands in all_operands]
            runs = [
                run
                for operand in operands
                if isinstance(operand, RunsOperand)
                for run in operand.runs.values()
            ]
            depths = [len(run.hidden(quantity.moment)) for run in runs]
            if any(depths) and max(depths) < abs(quantity.layer):
                problem = (
                    f"there is no layer {quantity.layer}: the deepest net has {max(depths)} hidden layers"
                )
                raise _gate_error(gate, quantity, problem)


def _unknown_row_message(name: RowName, labels: Sequence[str]) -> str:
    from initbench.registry import unknown_name_message

    assert name.name is not None
    message = unknown_name_message("row", name.name, dict.fromkeys(labels))
    hint = "; put spaces around a minus sign" if "-" in name.name else ""
    return message + hint


def _gate_error(gate: Gate, quantity: Quantity, problem: str) -> UsageError:
    return UsageError(f"{gate.option}: {with_caret(gate.text, quantity.column, problem)}")
