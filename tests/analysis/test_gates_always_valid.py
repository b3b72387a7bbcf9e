"""Gates whose intervals are confidence sequences, because seeds were added until they are decided."""

from __future__ import annotations

from typing import Any

import pytest

from initbench.analysis.gates.evaluate import ComparisonResult, GateState, evaluate_gates, read_gates
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.stats.confidence_sequences import mean_sequence, rate_sequence
from initbench.analysis.tables import build_single_table
from tests.analysis.stored_runs import stored

TRIGGERED, CLEAR, UNDECIDED = GateState.TRIGGERED, GateState.CLEAR, GateState.UNDECIDED
A = [0.90, 0.93, 0.92, 0.95, 0.91, 0.94]
B = [0.81, 0.86, 0.82, 0.84, 0.83, 0.85]


def arm(name: str, values: list[float | None], **options: Any) -> list[RunSummary]:
    """Return runs with the given test accuracies; None makes a run that diverged."""
    return [
        stored(name, seed, test=value, status="finished" if value is not None else "diverged", **options)
        for seed, value in enumerate(values)
    ]


def compare(text: str, confidence: float = 0.95, **arms: list[RunSummary]) -> ComparisonResult:
    (result,) = evaluate_gates(read_gates([text]), [build_single_table(arms)], confidence, always_valid=True)
    ((part,),) = [case.parts for case in result.cases]
    return part


def test_a_difference_is_estimated_from_pairs() -> None:
    part = compare("a.test_accuracy > b.test_accuracy", a=arm("a", [*A]), b=arm("b", [*B]))
    interval = mean_sequence([x - y for x, y in zip(A, B, strict=True)])
    assert interval is not None and part.state is TRIGGERED
    assert (part.estimate.low, part.estimate.high) == pytest.approx((interval.low, interval.high))
    assert part.estimate.method == "always-valid t, pairs" and part.estimate.n == (6,)


def test_rows_on_other_batches_are_still_paired_by_seed() -> None:
    other = arm("b", [*B], config={"train": {"lr": 0.1, "batch_size": 7}})
    part = compare("a.test_accuracy - b.test_accuracy > 5 %", a=arm("a", [*A]), b=other)
    assert part.state is TRIGGERED and part.estimate.method == "always-valid t, pairs"


def test_seeds_that_only_one_row_has_or_that_diverged_are_not_used() -> None:
    part = compare("a.test_accuracy > b.test_accuracy", a=arm("a", [*A, 0.2]), b=arm("b", [None, *B[1:]]))
    interval = mean_sequence([x - y for x, y in zip(A[1:], B[1:], strict=True)])
    assert interval is not None
    assert (part.estimate.low, part.estimate.high) == pytest.approx((interval.low, interval.high))
    assert part.estimate.n == (5,) and part.estimate.missing == 2


def test_one_row_against_a_number() -> None:
    interval = mean_sequence(A)
    assert interval is not None
    for limit, state in (
        (interval.low - 1e-9, TRIGGERED),
        (interval.low + 1e-9, UNDECIDED),
        (interval.high + 1e-9, CLEAR),
    ):
        part = compare(f"a.test_accuracy > {limit!r}", a=arm("a", [*A]))
        assert part.state is state and part.estimate.method == "always-valid t"


@pytest.mark.parametrize(("seeds", "state"), [(3, UNDECIDED), (5, UNDECIDED), (6, TRIGGERED)])
def test_equal_values_decide_only_if_they_are_enough_for_a_sign_test(seeds: int, state: GateState) -> None:
    part = compare("a.test_accuracy > 0.5", a=arm("a", [0.9] * seeds))
    assert part.state is state and part.estimate.difference == pytest.approx(0.4)
    pairs = compare("a.test_accuracy > b.test_accuracy", a=arm("a", [0.9] * seeds), b=arm("b", [0.8] * seeds))
    assert pairs.state is state
    assert state is not UNDECIDED or "the same for all" in pairs.estimate.problem


def test_too_few_seeds_have_no_interval() -> None:
    part = compare("a.test_accuracy > 0.5", 0.9999, a=arm("a", A[:4]))
    assert part.state is UNDECIDED and part.estimate.problem == "an always-valid interval needs 6 seeds"
    assert (
        "no run has a value: 2 of 2 diverged"
        in compare(
            "a.test_accuracy > b.test_accuracy", a=arm("a", [None, None]), b=arm("b", [0.9, 0.8])
        ).estimate.problem
    )


def test_rates_have_confidence_sequences() -> None:
    a, b = arm("a", [None] * 9 + [0.5]), arm("b", [0.5] * 10)
    single = rate_sequence(9, 10)
    assert single is not None
    part = compare("a.divergence_rate > 0.2", a=a)
    assert (part.estimate.low, part.estimate.high) == pytest.approx((single.low - 0.2, single.high - 0.2))
    of_a, of_b = rate_sequence(9, 10, 0.975), rate_sequence(0, 10, 0.975)
    assert of_a is not None and of_b is not None
    both = compare("a.divergence_rate > b.divergence_rate", a=a, b=b)
    assert both.state is TRIGGERED and both.estimate.difference == pytest.approx(0.9)
    assert (both.estimate.low, both.estimate.high) == pytest.approx(
        (of_a.low - of_b.high, of_a.high - of_b.low)
    )
