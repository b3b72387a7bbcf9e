"""Results of gates near the limit of each verdict, computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from initbench.analysis.gates.evaluate import (
    ComparisonResult,
    GateResult,
    GateState,
    evaluate_gates,
    read_gates,
)
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.tables import build_tables
from initbench.render.gate_tables import case_lines, comparison_sentence
from tests.analysis.stored_runs import stored

TRIGGERED, CLEAR, UNDECIDED = GateState.TRIGGERED, GateState.CLEAR, GateState.UNDECIDED


def arm(name: str, values: list[float | None], **given: Any) -> list[RunSummary]:
    """Return runs with the given test accuracies; None makes a run that diverged."""
    return [
        stored(name, seed, test=value, status="finished" if value is not None else "diverged", **given)
        for seed, value in enumerate(values)
    ]


def verdict(text: str, *arms: list[RunSummary], confidence: float = 0.95) -> GateResult:
    (found,) = evaluate_gates(
        read_gates([text]), build_tables(run for one in arms for run in one), confidence
    )
    return found


def part(judgement: GateResult) -> ComparisonResult:
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
def test_the_border_of_each_verdict(gate: str, state: GateState):
    assert verdict(gate, arm("a", VALUES)).state == state


def test_the_numbers_of_a_verdict():
    found = part(verdict("test_accuracy < 0.95", arm("a", VALUES))).estimate
    assert found.difference == pytest.approx(MEAN - 0.95)
    assert (found.low, found.high) == pytest.approx((LOW - 0.95, HIGH - 0.95))
    assert found.n == (3,) and found.missing == 0
    said = comparison_sentence(part(verdict("test_accuracy < 0.95", arm("a", VALUES))))
    assert said.startswith("test_accuracy = 0.93, 95 % interval 0.8404 to 1.02, n = 3 (t): ")
    assert said.endswith(": only part of the interval is < 0.95")


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
    found = part(judgement).estimate
    assert found.method == "paired t" and found.n == (3,)
    assert (found.low, found.high) == pytest.approx((-0.11 - reach, -0.11 + reach))
    assert verdict(f"b.test_accuracy - a.test_accuracy > {0.11 - reach - A_BIT}", a, b).state == TRIGGERED
    assert verdict(f"b.test_accuracy - a.test_accuracy > {0.11 - reach + A_BIT}", a, b).state == UNDECIDED


def test_other_seeds_are_welch():
    a = arm("a", [0.5, 0.7, 0.9])
    b = [replace(run, seed=run.seed + 10) for run in arm("b", [0.6, 0.82, 1.01])]
    found = part(verdict("a.test_accuracy < 2 * b.test_accuracy", a, b)).estimate
    left = [run.final["test_accuracy"] for run in a]
    right = [2 * run.final["test_accuracy"] for run in b]
    expected = stats.ttest_ind(left, right, equal_var=False).confidence_interval(0.95)
    assert found.method == "Welch t" and found.n == (3, 3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_other_batches_are_welch():
    a, b = arm("a", [0.5, 0.7, 0.9]), arm("b", [0.6, 0.82, 1.01], config={"data": {"val_fraction": 0.2}})
    assert part(verdict("a.test_accuracy < b.test_accuracy", a, b)).estimate.method == "Welch t"


def test_quotients_of_rows_are_taken_seed_by_seed():
    a, b = arm("a", [0.4, 0.8, 0.9]), arm("b", [0.2, 0.401, 0.45])
    found = part(verdict("a.test_accuracy / b.test_accuracy > 1.9", a, b))
    assert found.state == TRIGGERED and found.estimate.difference == pytest.approx(0.1, rel=0.02)
    apart = [replace(run, seed=run.seed + 10) for run in b]
    refused = part(verdict("a.test_accuracy / b.test_accuracy > 1.9", a, apart))
    assert refused.state == UNDECIDED
    assert "share too few seeds can only be compared by their sum or difference" in refused.estimate.problem


def test_three_rows_need_shared_seeds():
    arms = [
        arm(name, values) for name, values in {"a": [0.1, 0.2], "b": [0.2, 0.31], "c": [0.4, 0.5]}.items()
    ]
    gate = "a.test_accuracy + b.test_accuracy < 2 * c.test_accuracy"
    assert part(verdict(gate, *arms)).estimate.method == "paired t"
    apart = [replace(run, seed=run.seed + 10) for run in arms[2]]
    assert "share too few seeds" in part(verdict(gate, *arms[:2], apart)).estimate.problem


def test_one_seed_decides_nothing():
    found = part(verdict("test_accuracy < 0.99", arm("a", [0.5])))
    assert found.state == UNDECIDED
    assert (
        comparison_sentence(found)
        == "test_accuracy = 0.5, n = 1: an interval needs at least two runs: train more seeds"
    )
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
def test_one_seed_is_judged_as_it_is_by_aggregates(gate: str, state: GateState):
    assert verdict(gate, arm("a", [0.5])).state == state


def test_aggregates_are_numbers_of_these_runs():
    a = arm("a", [0.5, 0.6, 0.9, None])
    for gate in ("min(test_accuracy) == 0.5", "max(test_accuracy) == 0.9", "mean(divergence_rate) == 25 %"):
        assert verdict(gate, a).state == TRIGGERED
    assert part(verdict("mean(test_accuracy) < 1", a)).estimate.difference == pytest.approx(2.0 / 3 - 1)
    assert comparison_sentence(part(verdict("min(test_accuracy) < 0.4", a))).endswith(
        "exact for these runs: the condition does not hold"
    )
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
    assert "the same in all runs: it is == 0.5" in comparison_sentence(
        part(verdict("test_accuracy == 0.5", a))
    )


def test_diverged_runs_are_counted_and_left_out():
    found = part(verdict("test_accuracy < 0.95", arm("a", [*VALUES, None, None])))
    assert found.estimate.n == (3,) and found.estimate.missing == 2
    assert (found.estimate.low, found.estimate.high) == pytest.approx((LOW - 0.95, HIGH - 0.95))
    assert "n = 3, 2 runs without a value" in comparison_sentence(found)
    nothing = part(verdict("test_accuracy < 0.95", arm("a", [None, None])))
    assert nothing.state == UNDECIDED
    assert nothing.estimate.problem == "no run has a value: 2 of 2 diverged"


def test_a_pair_that_lacks_a_value_is_left_out():
    a, b = arm("a", [0.1, 0.2, 0.3]), arm("b", [0.5, None, 0.6])
    found = part(verdict("a.test_accuracy < b.test_accuracy", a, b)).estimate
    assert found.n == (2,) and found.missing == 1 and found.method == "paired t"


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_values_that_are_no_numbers_decide_nothing(broken: float):
    a = arm("a", [0.5, 0.6, 0.7])
    a[1].final["test_accuracy"] = broken
    found = part(verdict("test_accuracy < 9", a))
    assert found.state == UNDECIDED and found.estimate.problem
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
    """Fisher: 3 of 3 against 0 of 3 has p = 1/10, 4 of 4 against 0 of 4 has 1/35."""
    for n, state in ((3, UNDECIDED), (4, TRIGGERED)):
        a, b = arm("a", [None] * n), arm("b", [0.5] * n)
        assert verdict("a.divergence_rate > b.divergence_rate", a, b).state == state
        opposite = CLEAR if state == TRIGGERED else state
        assert verdict("a.divergence_rate < b.divergence_rate", a, b).state == opposite
        assert verdict("b.divergence_rate < a.divergence_rate", a, b).state == state
    apart = [replace(run, seed=run.seed + 10) for run in b]
    found = part(verdict("a.divergence_rate > b.divergence_rate", a, apart))
    assert found.state == TRIGGERED and "Fisher" in found.estimate.method


def test_the_same_difference_in_all_pairs_is_judged_by_its_sign():
    """5 pairs have p = 1/16, 6 have 1/32; the accuracies themselves scatter."""
    for n, state in ((5, UNDECIDED), (6, TRIGGERED)):
        accuracies = [0.5 + 0.01 * i for i in range(n)]
        a, b = arm("a", accuracies), arm("b", [x + 0.1 for x in accuracies])
        assert verdict("a.test_accuracy < b.test_accuracy", a, b).state == state
        assert verdict("mean(a.test_accuracy) < mean(b.test_accuracy)", a, b).state == TRIGGERED
    assert verdict("a.test_accuracy == a.test_accuracy", a, b).state == TRIGGERED


def test_rows_that_each_give_one_number_are_judged_by_permutation():
    """2 of 20 ways to deal 3 + 3 runs out look so, 2 of 70 for 4 + 4."""
    for n, state in ((3, UNDECIDED), (4, TRIGGERED)):
        a, b = arm("a", [0.5] * n), arm("b", [0.7] * n)
        apart = [replace(run, seed=run.seed + 10) for run in b]
        assert verdict("a.test_accuracy < b.test_accuracy", a, apart).state == state
    assert verdict("a.test_accuracy < 60 %", arm("a", [0.5] * 3)).state == TRIGGERED


def test_one_run_against_several_has_the_difference_of_both_means():
    a, b = arm("a", [0.5]), arm("b", [0.7, 0.72, 0.74])
    found = part(verdict("a.test_accuracy < b.test_accuracy", a, b))
    assert found.state == UNDECIDED
    assert found.estimate.difference is None or found.estimate.difference == pytest.approx(-0.22)


def test_scales_are_compared_with_limits_by_their_ratio():
    """Standard deviations of 10, 100 and 1,000: Student's interval of the mean itself reaches below 0."""
    a = [stored("a", i, std=(1.0, 1.0, 10.0 ** (1 + i))) for i in range(3)]
    found = part(verdict("a.layer[-1].act_std@init > 0.5", a))
    logs = [math.log(10.0 ** (1 + i) / 0.5) for i in range(3)]
    expected = stats.t.interval(0.95, 2, np.mean(logs), stats.sem(logs))
    assert (found.estimate.low, found.estimate.high) == pytest.approx(expected)
    zero = [stored("a", i, std=(1.0, 1.0, 0.0 if i else 1.0)) for i in range(3)]
    assert not part(verdict("a.layer[-1].act_std@init < 0.5", zero)).estimate.is_ratio


def test_geometric_means_are_compared_by_their_ratio():
    """E[δ²] first over last is 4, 1, 2: the logarithms are 2, 0, 1 times ln 2."""
    ratios = [4.0, 1.0, 2.0]
    a = [stored("a", i, gradients=(ratio, 1.0, 1.0)) for i, ratio in enumerate(ratios)]
    reach = math.exp(stats.t.ppf(0.975, 2) * math.log(2) / math.sqrt(3))
    assert verdict(f"grad_ratio_init < {2 * reach + 1e-6}", a).state == TRIGGERED
    assert verdict(f"grad_ratio_init < {2 * reach - 1e-6}", a).state == UNDECIDED
    assert verdict(f"grad_ratio_init ≈ 2 within {reach - 1 + 1e-6}", a).state == TRIGGERED
    assert verdict(f"grad_ratio_init ≈ 2 within {reach - 1 - 1e-6}", a).state == UNDECIDED
    assert "grad_ratio_init = 2, 95 % interval" in comparison_sentence(
        part(verdict("grad_ratio_init < 9", a))
    )


def test_a_target_that_no_run_reaches_is_further_than_any_step():
    a = [stored("a", seed, accuracies=(0.1, 0.2, 0.3)) for seed in range(2)]
    b = [stored("b", seed, accuracies=(0.1, 0.6 + seed / 10, 0.9)) for seed in range(2)]
    assert verdict("a.steps_to(50 %) > 1000000", a, b).state == TRIGGERED
    assert verdict("a.steps_to(50 %) > b.steps_to(50 %)", a, b).state == TRIGGERED
    assert verdict("b.steps_to(50 %) <= 10", a, b).state == TRIGGERED
    assert verdict("a.steps_to(50 %) < a.steps_to(60 %)", a, b).state == UNDECIDED
    mixed = [stored("a", 0, accuracies=(0.1, 0.2, 0.3)), stored("a", 1, accuracies=(0.1, 0.2, 0.6))]
    found = part(verdict("steps_to(50 %) > 5", mixed))
    assert found.state == UNDECIDED and found.estimate.problem.startswith(
        "1 of 2 runs never reach the target"
    )


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
    line, more = case_lines(judgement)
    assert line.startswith("b (digits): test_accuracy = 0.105")
    assert more == "undecided in 1 row: c"


def test_every_other_row_beside_one():
    judgement = verdict("test_accuracy < a.test_accuracy", arm("a", [0.9, 0.91]), arm("b", [0.1, 0.12]))
    assert [case.label for case in judgement.cases] == ["b"] and judgement.state == TRIGGERED


def test_four_rows_on_two_kinds_of_batches_are_two_independent_differences():
    """(a − b) − (c − d): a and b, and c and d, are partners by seed; Satterthwaite's interval of the rest."""
    ordered = {"data": {"name": "digits", "order": "sorted"}}
    a, b = arm("a", [0.9, 0.92, 0.97]), arm("b", [0.8, 0.83, 0.85])
    c, d = arm("c", [0.7, 0.74, 0.71], config=ordered), arm("d", [0.65, 0.66, 0.69], config=ordered)
    found = part(verdict("a.test_accuracy - b.test_accuracy > c.test_accuracy - d.test_accuracy", a, b, c, d))
    first, second = np.array([0.1, 0.09, 0.12]), np.array([0.05, 0.08, 0.02])
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((expected.low, expected.high))
    assert found.estimate.n == (3, 3) and found.estimate.method == "Welch t"


def test_three_independent_parts_have_satterthwaites_interval():
    orders = [{"data": {"order": order}} for order in ("shuffled", "sorted", "blocks")]
    values = [[0.5, 0.6, 0.7], [0.2, 0.21, 0.25, 0.3], [0.1, 0.4]]
    arms = [arm(name, own, config=order) for name, own, order in zip("abc", values, orders, strict=True)]
    found = part(verdict("a.test_accuracy + 2 * b.test_accuracy - c.test_accuracy > 0", *arms))
    terms = [np.array(values[0]), 2 * np.array(values[1]), -np.array(values[2])]
    shares = [term.var(ddof=1) / len(term) for term in terms]
    df = sum(shares) ** 2 / sum(v**2 / (len(term) - 1) for v, term in zip(shares, terms, strict=True))
    reach = stats.t.ppf(0.975, df) * math.sqrt(sum(shares))
    middle = sum(term.mean() for term in terms)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((middle - reach, middle + reach))


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("max_layer(std@init) == 4", TRIGGERED),
        ("max_layer(std@init) == 1", CLEAR),
        ("min_layer(std@init) == 0.25", TRIGGERED),
        ("min_layer(std@init) == 4", CLEAR),
        ("exp(ln(layer[1].std@init)) ≈ 1 within 0.000001", TRIGGERED),
        ("ln(layer[2].std@init) ≈ 1.3863 within 0.0001", TRIGGERED),
        ("ln(layer[2].std@init) ≈ 0.6021 within 0.0001", CLEAR),
        ("exp(layer[1].std@init) ≈ 2.71828 within 0.0001", TRIGGERED),
        ("min(max_layer(std@init)) >= 4", TRIGGERED),
    ],
)
def test_over_the_hidden_layers_and_functions(text: str, state: GateState):
    runs = [stored("a", seed, std=(1.0, 4.0, 0.25)) for seed in range(3)]
    assert verdict(text, runs).state == state


def test_the_greatest_of_layers_of_which_one_is_unknown_is_unknown():
    runs = [stored("a", seed, std=(1.0, 2.0), gradients=(None, 1.0)) for seed in range(3)]
    assert verdict("max_layer(gradient@init) > 0", runs).state == UNDECIDED
    broken = [stored("a", seed, std=(1.0, math.nan), gradients=(1.0, 1.0)) for seed in range(3)]
    assert verdict("max_layer(std@init) > 0", broken).state == UNDECIDED


def test_ln_of_zero_is_no_number():
    runs = [stored("a", seed, std=(1.0, 0.0), gradients=(1.0, 1.0)) for seed in range(3)]
    assert verdict("ln(layer[-1].std@init) < 0", runs).state == UNDECIDED
