"""Selection of the rows that a gate refers to, and the errors if there are none."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from initbench.analysis.gates.evaluate import GateResult, GateState, evaluate_gates, read_gates
from initbench.analysis.regression.reference import ReferenceRuns
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.tables import build_tables
from initbench.errors import UsageError
from tests.analysis.test_gates_verdicts import arm

A, B = arm("relu_kaiming", [0.9, 0.91]), arm("relu_xavier", [0.1, 0.1101])
OTHER = arm("elsewhere", [0.5, 0.51], dataset="mnist")


def judged(text: str, runs=(*A, *B), before=None, by=()) -> GateResult:
    earlier = None if before is None else ReferenceRuns(build_tables(before, by=by))
    (found,) = evaluate_gates(read_gates([text]), build_tables(runs, by=by), reference=earlier)
    return found


@pytest.mark.parametrize(
    ("gate", "problem"),
    [
        (
            "relu_kaming.test_accuracy < 1",
            "column 1: unknown row 'relu_kaming'; did you mean 'relu_kaiming'?",
        ),
        ("1 > zzz.test_accuracy", "column 5: unknown row 'zzz'; choose from relu_kaiming, relu_xavier"),
        ("relu_kaiming.test_accuracy-relu_xavier.test_accuracy < 1", "put spaces around a minus sign"),
        ("layer[4].std@init > 1", "there is no layer 4: the deepest net has 3 hidden layers"),
        ("layer[-4].std@init > 1", "there is no layer -4"),
        ("before.test_accuracy < 1", "column 1: before. needs an earlier state; pass --against"),
    ],
)
def test_what_is_nowhere_is_a_mistake(gate: str, problem: str):
    with pytest.raises(UsageError, match=re.escape(problem)):
        judged(gate)


def test_no_runs_are_a_mistake():
    with pytest.raises(UsageError, match="no runs to evaluate"):
        judged("test_accuracy < 1", runs=())


def test_a_single_row_has_no_other():
    with pytest.raises(UsageError, match="there is no other row"):
        judged("test_accuracy < relu_kaiming.test_accuracy", runs=A)


def test_every_table_is_judged():
    found = judged("test_accuracy < 1", runs=(*A, *OTHER))
    assert {(case.label, case.dataset) for case in found.cases} == {
        ("relu_kaiming", "digits"),
        ("elsewhere", "mnist"),
    }


def test_rows_on_other_terms_are_not_compared():
    with pytest.raises(UsageError, match="not in the same table: their data, precision or budgets differ"):
        judged("elsewhere.test_accuracy < relu_kaiming.test_accuracy", runs=(*A, *OTHER))


def test_rows_of_keys_are_named_by_a_value_or_in_full():
    runs = [
        *arm("x", [0.9, 0.91], config={"model": {"depth": 4}}),
        *arm("y", [0.1, 0.2], config={"model": {"depth": 8}}),
    ]
    assert (
        judged('"4".test_accuracy > "8".test_accuracy', runs, by=["model.depth"]).state == GateState.TRIGGERED
    )
    assert (
        judged('"model.depth=4".test_accuracy > 0.5', runs, by=["model.depth"]).state == GateState.TRIGGERED
    )


def test_a_shallower_net_is_undecided_where_another_has_the_layer():
    deep = arm("deep", [0.5, 0.6], std=(1.0,) * 5, gradients=(1.0,) * 5)
    states = {case.label: case.state for case in judged("layer[5].std@init == 1", (*A, *deep)).cases}
    assert states == {"relu_kaiming": GateState.UNDECIDED, "deep": GateState.TRIGGERED}


def worse(runs: list[RunSummary], by: float) -> list[RunSummary]:
    """Return the runs with test accuracies lower by about `by`."""
    final = [
        {**run.final, "test_accuracy": (run.final["test_accuracy"] or 0.0) - by * (1.0 + run.seed / 50.0)}
        for run in runs
    ]
    return [replace(run, final=one, arm="new") for run, one in zip(runs, final, strict=True)]


def test_every_row_beside_its_own_past():
    now = [*worse(A, 0.02), *worse(B, 0.0), *arm("new", [0.5, 0.6])]
    found = judged("test_accuracy < before.test_accuracy - 1 %", now, before=[*A, *B])
    assert {case.label: case.state for case in found.cases} == {
        "relu_kaiming": GateState.TRIGGERED,
        "relu_xavier": GateState.CLEAR,
    }


def test_a_row_beside_the_past_of_another():
    gate = "relu_xavier.test_accuracy < before.relu_kaiming.test_accuracy"
    assert judged(gate, before=[*A, *B]).state == GateState.TRIGGERED
    assert (
        judged("before.gone.test_accuracy < 2", before=arm("gone", [0.5, 0.6])).state == GateState.TRIGGERED
    )
    with pytest.raises(UsageError, match="did you mean 'relu_xavier'"):
        judged("before.relu_xavie.test_accuracy < 1", before=[*A, *B])


def test_nothing_in_both_states():
    with pytest.raises(UsageError, match="no row is in both states"):
        judged("test_accuracy < before.test_accuracy", A, before=arm("other", [0.1, 0.2]))
