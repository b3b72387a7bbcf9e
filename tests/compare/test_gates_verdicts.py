"""What gates come to, at the border of each verdict, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from scipy import stats

from initbench.compare.facts import RunFacts
from initbench.compare.gates.decide import Part, State
from initbench.compare.gates.judge import Judgement, judge, read_gates
from initbench.compare.rows import tables
from initbench.report.gates import case_lines, sentence
from tests.compare.stored_runs import stored

TRIGGERED, CLEAR, UNDECIDED = State.TRIGGERED, State.CLEAR, State.UNDECIDED


def arm(name: str, values: list[float | None], **given: Any) -> list[RunFacts]:
    """Runs whose test accuracy is as given; None for a run that diverged."""
    return [
        stored(name, seed, test=value, status="finished" if value is not None else "diverged", **given)
        for seed, value in enumerate(values)
    ]


def verdict(text: str, *arms: list[RunFacts], confidence: float = 0.95) -> Judgement:
    (found,) = judge(read_gates([text]), tables(run for one in arms for run in one), confidence)
    return found


def part(judgement: Judgement) -> Part:
    ((one,),) = [case.parts for case in judgement.cases]
    return one


VALUES = [0.90, 0.92, 0.97]
MEAN = sum(VALUES) / 3
REACH = stats.t.ppf(0.975, 2) * stats.tstd(VALUES) / math.sqrt(3)
LOW, HIGH = MEAN - REACH, MEAN + REACH
"""The interval of the mean, 0.8404 to 1.0196."""
A_BIT = 1e-9


@pytest.mark.parametrize(
    ("gate", "state"),
    [
        (f"test_accuracy < {HIGH + A_BIT}", TRIGGERED),
        (f"test_accuracy < {HIGH - A_BIT}", UNDECIDED),
        (f"test_accuracy < {LOW + A_BIT}", UNDECIDED),
        (f"test_accuracy < {LOW - A_BIT}", CLEAR),
        (f"test_accuracy <= {HIGH + A_BIT}", TRIGGERED),
        (f"test_accuracy <= {LOW - A_BIT}", CLEAR),
        (f"test_accuracy > {LOW - A_BIT}", TRIGGERED),
        (f"test_accuracy > {LOW + A_BIT}", UNDECIDED),
        (f"test_accuracy > {HIGH - A_BIT}", UNDECIDED),
        (f"test_accuracy > {HIGH + A_BIT}", CLEAR),
        (f"test_accuracy >= {LOW - A_BIT}", TRIGGERED),
        (f"{HIGH + A_BIT} > test_accuracy", TRIGGERED),
        (f"{HIGH - A_BIT} > test_accuracy", UNDECIDED),
        (f"test_accuracy == {MEAN}", UNDECIDED),
        (f"test_accuracy == {HIGH + A_BIT}", CLEAR),
        (f"test_accuracy != {MEAN}", UNDECIDED),
        (f"test_accuracy != {LOW - A_BIT}", TRIGGERED),
        (f"{LOW - A_BIT} < test_accuracy < {HIGH + A_BIT}", TRIGGERED),
        (f"{LOW + A_BIT} < test_accuracy < {HIGH + A_BIT}", UNDECIDED),
        (f"{HIGH + A_BIT} < test_accuracy < 2", CLEAR),
        (f"not test_accuracy < {HIGH + A_BIT}", CLEAR),
        (f"not test_accuracy < {MEAN}", UNDECIDED),
        (f"test_accuracy ≈ {MEAN} within {REACH + A_BIT}", TRIGGERED),
        (f"test_accuracy ≈ {MEAN} within {REACH - A_BIT}", UNDECIDED),
        (f"test_accuracy ≈ {HIGH + 0.1} within {0.1 + A_BIT}", UNDECIDED),
        (f"test_accuracy ≈ {HIGH + 0.1} within {0.1 - A_BIT}", CLEAR),
        (f"2 * test_accuracy - 1 < {2 * HIGH - 1 + A_BIT}", TRIGGERED),
        (f"2 * test_accuracy - 1 < {2 * HIGH - 1 - A_BIT}", UNDECIDED),
        (f"-test_accuracy / 2 > {-HIGH / 2 - A_BIT}", TRIGGERED),
        (f"-test_accuracy / 2 > {-HIGH / 2 + A_BIT}", UNDECIDED),
    ],
)
def test_the_border_of_each_verdict(gate: str, state: State):
    assert verdict(gate, arm("a", VALUES)).state == state


def test_the_numbers_of_a_verdict():
    found = part(verdict("test_accuracy < 0.95", arm("a", VALUES))).found
    assert found.difference == pytest.approx(MEAN - 0.95)
    assert (found.low, found.high) == pytest.approx((LOW - 0.95, HIGH - 0.95))
    assert found.n == (3,) and found.missing == 0
    said = sentence(part(verdict("test_accuracy < 0.95", arm("a", VALUES))))
    assert said == "test_accuracy = 0.93, 95 % interval 0.8404 to 1.02, n = 3 (t): only part of it < 0.95"


def test_confidence_moves_the_border():
    reach = stats.t.ppf(0.995, 2) * stats.tstd(VALUES) / math.sqrt(3)
    for border, state in ((MEAN + reach + A_BIT, TRIGGERED), (MEAN + reach - A_BIT, UNDECIDED)):
        assert verdict(f"test_accuracy < {border}", arm("a", VALUES), confidence=0.99).state == state


def test_three_valued_logic():
    yes, no, open_ = "test_accuracy < 9", "test_accuracy > 9", f"test_accuracy < {MEAN}"
    truth = {yes: TRIGGERED, no: CLEAR, open_: UNDECIDED}
    both = {(yes, no): CLEAR, (open_, no): CLEAR, (yes, open_): UNDECIDED, (yes, yes): TRIGGERED}
    either = {(yes, no): TRIGGERED, (open_, no): UNDECIDED, (yes, open_): TRIGGERED, (no, no): CLEAR}
    for text, state in truth.items():
        assert verdict(text, arm("a", VALUES)).state == state
    for word, table in (("and", both), ("or", either)):
        for (left, right), state in table.items():
            assert verdict(f"{left} {word} {right}", arm("a", VALUES)).state == state
            assert verdict(f"{right} {word} {left}", arm("a", VALUES)).state == state


def test_shared_seeds_are_pairs():
    """The differences are −0.1, −0.12, −0.11: shown, although the arms overlap widely."""
    a, b = arm("a", [0.5, 0.7, 0.9]), arm("b", [0.6, 0.82, 1.01])
    judgement = verdict("a.test_accuracy < b.test_accuracy", a, b)
    assert judgement.state == TRIGGERED
    reach = stats.t.ppf(0.975, 2) * 0.01 / math.sqrt(3)
    found = part(judgement).found
    assert found.method == "paired t" and found.n == (3,)
    assert (found.low, found.high) == pytest.approx((-0.11 - reach, -0.11 + reach))
    assert verdict(f"b.test_accuracy - a.test_accuracy > {0.11 - reach - A_BIT}", a, b).state == TRIGGERED
    assert verdict(f"b.test_accuracy - a.test_accuracy > {0.11 - reach + A_BIT}", a, b).state == UNDECIDED


def test_other_seeds_are_welch():
    a = arm("a", [0.5, 0.7, 0.9])
    b = [replace(run, seed=run.seed + 10) for run in arm("b", [0.6, 0.82, 1.01])]
    found = part(verdict("a.test_accuracy < 2 * b.test_accuracy", a, b)).found
    left = [run.final["test_accuracy"] for run in a]
    right = [2 * run.final["test_accuracy"] for run in b]
    expected = stats.ttest_ind(left, right, equal_var=False).confidence_interval(0.95)
    assert found.method == "Welch t" and found.n == (3, 3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_other_batches_are_welch():
    a, b = arm("a", [0.5, 0.7, 0.9]), arm("b", [0.6, 0.82, 1.01], config={"data": {"val_fraction": 0.2}})
    assert part(verdict("a.test_accuracy < b.test_accuracy", a, b)).found.method == "Welch t"


def test_quotients_of_rows_are_taken_seed_by_seed():
    a, b = arm("a", [0.4, 0.8, 0.9]), arm("b", [0.2, 0.4, 0.45])
    found = part(verdict("a.test_accuracy / b.test_accuracy > 1.9", a, b))
    assert found.state == TRIGGERED and found.found.difference == pytest.approx(0.1)
    apart = [replace(run, seed=run.seed + 10) for run in b]
    refused = part(verdict("a.test_accuracy / b.test_accuracy > 1.9", a, apart))
    assert refused.state == UNDECIDED
    assert "seeds in common are compared two at a time, by their sum or difference" in refused.found.problem


def test_three_rows_need_shared_seeds():
    arms = [
        arm(name, values) for name, values in {"a": [0.1, 0.2], "b": [0.2, 0.31], "c": [0.4, 0.5]}.items()
    ]
    gate = "a.test_accuracy + b.test_accuracy < 2 * c.test_accuracy"
    assert part(verdict(gate, *arms)).found.method == "paired t"
    apart = [replace(run, seed=run.seed + 10) for run in arms[2]]
    assert "two at a time" in part(verdict(gate, *arms[:2], apart)).found.problem


def test_one_seed_decides_nothing():
    found = part(verdict("test_accuracy < 0.99", arm("a", [0.5])))
    assert found.state == UNDECIDED
    assert sentence(found) == "test_accuracy = 0.5, n = 1: one run has no interval: train more seeds"
    assert (
        part(verdict("a.test_accuracy < b.test_accuracy", arm("a", [0.1]), arm("b", [0.9]))).state
        == UNDECIDED
    )


@pytest.mark.parametrize(
    ("gate", "state"),
    [
        ("mean(test_accuracy) < 0.51", TRIGGERED),
        ("mean(test_accuracy) < 0.5", CLEAR),
        ("max(test_accuracy) <= 0.5", TRIGGERED),
        ("min(test_accuracy) == 0.5", TRIGGERED),
    ],
)
def test_one_seed_is_judged_as_it_is_by_aggregates(gate: str, state: State):
    assert verdict(gate, arm("a", [0.5])).state == state


def test_aggregates_are_numbers_of_these_runs():
    a = arm("a", [0.5, 0.6, 0.9, None])
    for gate in ("min(test_accuracy) == 0.5", "max(test_accuracy) == 0.9", "mean(divergence_rate) == 25 %"):
        assert verdict(gate, a).state == TRIGGERED
    assert part(verdict("mean(test_accuracy) < 1", a)).found.difference == pytest.approx(2.0 / 3 - 1)
    assert sentence(part(verdict("min(test_accuracy) < 0.4", a))).endswith("of these very runs: it does not")
    assert verdict("test_accuracy - mean(a.test_accuracy) < 9", a, arm("b", [0.1, 0.2])).state == TRIGGERED


def test_what_all_runs_have_alike_is_decided_exactly():
    a = arm("a", [0.5, 0.5])
    for gate, state in {
        "test_accuracy == 0.5": TRIGGERED,
        "test_accuracy != 0.5": CLEAR,
        "test_accuracy < 0.5": CLEAR,
        "test_accuracy <= 0.5": TRIGGERED,
        "test_accuracy ≈ 0.5 within 0": TRIGGERED,
        "a.test_accuracy == b.test_accuracy": TRIGGERED,
    }.items():
        assert verdict(gate, a, arm("b", [0.5, 0.5])).state == state
    assert "the same in all runs: all of it == 0.5" in sentence(part(verdict("test_accuracy == 0.5", a)))


def test_diverged_runs_are_counted_and_left_out():
    found = part(verdict("test_accuracy < 0.95", arm("a", [*VALUES, None, None])))
    assert found.found.n == (3,) and found.found.missing == 2
    assert (found.found.low, found.found.high) == pytest.approx((LOW - 0.95, HIGH - 0.95))
    assert "n = 3, 2 runs without a value" in sentence(found)
    nothing = part(verdict("test_accuracy < 0.95", arm("a", [None, None])))
    assert nothing.state == UNDECIDED
    assert nothing.found.problem == "no run has it: 2 of 2 diverged"


def test_a_pair_that_lacks_a_value_is_left_out():
    a, b = arm("a", [0.1, 0.2, 0.3]), arm("b", [0.5, None, 0.6])
    found = part(verdict("a.test_accuracy < b.test_accuracy", a, b)).found
    assert found.n == (2,) and found.missing == 1 and found.method == "paired t"


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_values_that_are_no_numbers_decide_nothing(broken: float):
    a = arm("a", [0.5, 0.6, 0.7])
    a[1].final["test_accuracy"] = broken
    found = part(verdict("test_accuracy < 9", a))
    assert found.state == UNDECIDED and found.found.problem
    assert verdict("0 / 0 * test_accuracy < 9", arm("a", [0.5, 0.6])).state == UNDECIDED
    assert verdict("1e300 * 1e300 * test_accuracy - test_accuracy * 1e300 * 1e300 < 9", a).state == UNDECIDED
    assert verdict("mean(test_accuracy) / 0 < 9", arm("a", [0.5, 0.6])).state == UNDECIDED


@pytest.mark.parametrize(("events", "n"), [(0, 5), (1, 5), (5, 5), (1, 1)])
def test_divergences_by_clopper_and_pearson(events: int, n: int):
    a = arm("a", [None] * events + [0.5] * (n - events))
    expected = stats.binomtest(events, n).proportion_ci(0.95, method="exact")
    low, high = expected.low, expected.high
    assert verdict(f"divergence_rate >= {max(0.0, low - A_BIT)}", a).state == TRIGGERED
    assert verdict(f"divergence_rate > {low + A_BIT}", a).state == UNDECIDED
    assert verdict(f"divergence_rate > {high + A_BIT}", a).state == CLEAR
    assert verdict(f"{high - A_BIT} > divergence_rate", a).state == UNDECIDED
    assert verdict(f"{high + A_BIT} > divergence_rate", a).state == TRIGGERED


def test_two_rates_of_divergence_by_an_exact_test():
    """McNemar: 5 pairs that disagree have p = 1/16, 6 have 1/32."""
    for n, state in ((5, UNDECIDED), (6, TRIGGERED)):
        a, b = arm("a", [None] * n), arm("b", [0.5] * n)
        assert verdict("a.divergence_rate > b.divergence_rate", a, b).state == state
        opposite = CLEAR if state == TRIGGERED else state
        assert verdict("a.divergence_rate < b.divergence_rate", a, b).state == opposite
        assert verdict("b.divergence_rate < a.divergence_rate", a, b).state == state
    apart = [replace(run, seed=run.seed + 10) for run in b]
    found = part(verdict("a.divergence_rate > b.divergence_rate", a, apart))
    assert found.state == TRIGGERED and "Fisher" in found.found.method


def test_geometric_means_are_compared_by_their_ratio():
    """E[δ²] first over last is 4, 1, 2: the logarithms are 2, 0, 1 times ln 2."""
    ratios = [4.0, 1.0, 2.0]
    a = [stored("a", i, gradients=(ratio, 1.0, 1.0)) for i, ratio in enumerate(ratios)]
    reach = math.exp(stats.t.ppf(0.975, 2) * math.log(2) / math.sqrt(3))
    assert verdict(f"grad_ratio_init < {2 * reach + 1e-6}", a).state == TRIGGERED
    assert verdict(f"grad_ratio_init < {2 * reach - 1e-6}", a).state == UNDECIDED
    assert verdict(f"grad_ratio_init ≈ 2 within {reach - 1 + 1e-6}", a).state == TRIGGERED
    assert verdict(f"grad_ratio_init ≈ 2 within {reach - 1 - 1e-6}", a).state == UNDECIDED
    assert "grad_ratio_init = 2, 95 % interval" in sentence(part(verdict("grad_ratio_init < 9", a)))


def test_a_target_that_no_run_reaches_is_further_than_any_step():
    a = [stored("a", seed, accuracies=(0.1, 0.2, 0.3)) for seed in range(2)]
    b = [stored("b", seed, accuracies=(0.1, 0.6 + seed / 10, 0.9)) for seed in range(2)]
    assert verdict("a.steps_to(50 %) > 1000000", a, b).state == TRIGGERED
    assert verdict("a.steps_to(50 %) > b.steps_to(50 %)", a, b).state == TRIGGERED
    assert verdict("b.steps_to(50 %) <= 10", a, b).state == TRIGGERED
    assert verdict("a.steps_to(50 %) < a.steps_to(60 %)", a, b).state == UNDECIDED
    mixed = [stored("a", 0, accuracies=(0.1, 0.2, 0.3)), stored("a", 1, accuracies=(0.1, 0.2, 0.6))]
    found = part(verdict("steps_to(50 %) > 5", mixed))
    assert found.state == UNDECIDED and found.found.problem.startswith("1 of 2 runs never get there")


def test_layers_and_slopes():
    a = [stored("a", seed, std=(4.0, 2.0, 1.0)) for seed in range(2)]
    for gate in (
        "layer[1].act_std@init == 4",
        "layer[-1].act_std@init == 1",
        "layer[-3].std@init == 4",
        "layer[-1].act_std@end == 77",
        "layer[-1].delta_q@init == 1",
        "slope(act_std@init) ≈ -0.693147 within 1e-6",
    ):
        assert verdict(gate, a).state == TRIGGERED
    assert verdict("slope(std@end) < 0", a).state == UNDECIDED
    assert (
        verdict("slope(std@init) < -1e9", [stored("a", s, std=(4.0, 0.0, 1.0)) for s in range(2)]).state
        == TRIGGERED
    )


def test_every_row_is_judged_and_those_that_trigger_are_named():
    judgement = verdict("test_accuracy < 0.8", arm("a", [0.9, 0.91]), arm("b", [0.1, 0.11]), arm("c", [0.7]))
    states = {case.label: case.state for case in judgement.cases}
    assert states == {"a": CLEAR, "b": TRIGGERED, "c": UNDECIDED}
    assert judgement.state == TRIGGERED
    (line,) = case_lines(judgement)
    assert line.startswith("b (digits): test_accuracy = 0.105")


def test_every_other_row_beside_one():
    judgement = verdict("test_accuracy < a.test_accuracy", arm("a", [0.9, 0.91]), arm("b", [0.1, 0.11]))
    assert [case.label for case in judgement.cases] == ["b"] and judgement.state == TRIGGERED
