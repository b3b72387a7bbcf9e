"""Bitwise comparison of the same runs in two states, without statistical tests."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from initbench.analysis.regression.bitwise import BitwiseDiff, has_different_numbers
from initbench.analysis.regression.changes import Changes, compare_states
from initbench.analysis.regression.reference import ReferenceRuns
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.tables import build_tables
from initbench.render.regression import against_document, change_lines
from initbench.store.packed_numbers import Layer, PackedNumbers
from tests.analysis.stored_runs import stored

CPU = {"device": "cpu", "torch": "2.0", "mode": "vmap", "code": "old"}


def runs(count: int = 3, **more: Any) -> list[RunSummary]:
    return [replace(stored("a", seed, identity=CPU, **more), machine="x86") for seed in range(count)]


def renewed(before: list[RunSummary], **identity: str) -> list[RunSummary]:
    """Return the runs as if retrained by other code, with identical numbers."""
    new = {**CPU, "code": "new", **identity}
    return [replace(run, run_id=run.run_id + "x", arm="new", identity=new) for run in before]


def between(before: list[RunSummary], now: list[RunSummary]) -> Changes:
    return compare_states(build_tables(now), ReferenceRuns(build_tables(before)))


def of(before: list[RunSummary], now: list[RunSummary]) -> BitwiseDiff:
    (row,) = between(before, now).rows
    assert row.bitwise is not None
    return row.bitwise


def text_of(before: list[RunSummary], now: list[RunSummary]) -> str:
    return "\n".join(change_lines(between(before, now)))


def test_the_same_numbers_are_identical_whatever_the_code():
    before = runs()
    found = of(before, renewed(before))
    assert (found.shared, found.identical, found.changed_units, found.largest_changes) == (3, 3, [], [])
    assert "1 row identical to the last digit for the same seeds" in text_of(before, renewed(before))
    assert "different results" not in text_of(before, renewed(before))


def last_digit(number: float) -> float:
    return math.nextafter(number, math.inf)


def with_final(run: RunSummary) -> RunSummary:
    return replace(run, final={**run.final, "test_accuracy": last_digit(run.final["test_accuracy"] or 0.0)})


def with_evaluation(run: RunSummary) -> RunSummary:
    first, *rest = run.evaluations
    evaluations = [[*first[:2], last_digit(first[2] or 0.0), *first[3:]], *rest]
    return replace(run, packed=PackedNumbers.pack(evaluations, run.layers))


def with_layers(run: RunSummary, moment: str, layers: list[Layer]) -> RunSummary:
    return replace(run, packed=PackedNumbers.pack(run.evaluations, {**run.layers, moment: layers}))


def with_layer(run: RunSummary) -> RunSummary:
    first, *rest = run.layers["init"]
    return with_layers(run, "init", [first | {"delta_q": 7.0}, *rest])


def with_more_layers(run: RunSummary) -> RunSummary:
    return with_layers(run, "init", [*run.layers["init"], run.layers["init"][0]])


def with_end(run: RunSummary) -> RunSummary:
    return replace(run, status="diverged", diverged_step=3)


@pytest.mark.parametrize("change", [with_final, with_evaluation, with_layer, with_more_layers, with_end])
def test_one_digit_of_one_run_is_another_number(change: Any):
    before = runs()
    first, second, third = renewed(before)
    found = of(before, [first, change(second), third])
    assert (found.changed_units, found.identical) == (["seed=1"], 2)


def test_what_is_not_measured_in_one_state_is_no_difference():
    (before,) = runs(1)
    layers = [
        {name: number for name, number in layer.items() if name != "q"} for layer in before.layers["init"]
    ]
    packed = PackedNumbers.pack(before.evaluations, {"init": layers})
    less = replace(before, packed=packed, final={"test_accuracy": before.final["test_accuracy"]})
    assert not has_different_numbers(before, less) and not has_different_numbers(less, before)
    assert has_different_numbers(before, with_final(less)) and has_different_numbers(with_final(less), before)


def test_no_number_is_the_same_as_no_number():
    (run,) = runs(1)
    nan, also = (replace(run, final={"val_loss": float("nan")}) for _ in range(2))
    assert not has_different_numbers(nan, also)
    assert has_different_numbers(nan, replace(run, final={"val_loss": 1.0}))


def test_the_metrics_that_moved_most_come_first():
    before = runs(test=0.5)
    now = renewed(runs(test=0.25, accuracies=(0.1, 0.5, 0.81)))
    first, *others = of(before, now).largest_changes
    assert (first.metric.name, first.earlier, first.now, first.relative_size) == (
        "test_accuracy",
        0.5,
        0.25,
        0.5,
    )
    assert [one.relative_size for one in others] == sorted(
        (one.relative_size for one in others), reverse=True
    )
    assert (
        "different results in 3 of 3 runs with the same seeds; largest changes: "
        "test_accuracy (seed=0) 0.5 → 0.25, " in text_of(before, now)
    )


def test_only_seeds_of_both_states_are_held_against_each_other():
    before = runs(2)
    assert of(before, renewed(runs(4))).shared == 2
    apart = [replace(run, seed=run.seed + 10) for run in renewed(before)]
    assert of(before, apart).shared == 0
    assert "1 row without a seed that is in both states" in text_of(before, apart)


def test_another_torch_or_machine_may_change_the_last_digits():
    before = runs()
    now = [replace(with_final(run), machine="arm") for run in renewed(before, torch="2.1")]
    assert of(before, now).environment_changes == ["torch 2.0 → 2.1", "machine x86 → arm"]
    said = text_of(before, now)
    assert "torch 2.0 → 2.1: this alone may change the last digits" in said
    assert "the last digits" not in text_of(before, [with_final(run) for run in renewed(before)])
    same = [replace(run, machine="arm") for run in renewed(before)]
    assert "the last digits" not in text_of(before, same), "they do not"


def test_last_digits_are_told_apart_in_words():
    before = runs()
    said = text_of(before, [with_final(run) for run in renewed(before)])
    assert "test_accuracy (seed=0) 0.7 → 0.7000000000000001" in said


def test_divergences_and_lost_values_are_said_without_a_test():
    before = runs()
    now = [replace(with_end(run), final={}) for run in renewed(before)]
    found = between(before, now)
    assert not found.rows[0].is_divergence_change_detected, "three runs a side can show nothing"
    said = change_lines(found)
    assert said[0].endswith("no significant changes")
    assert "    0 of 3 diverged before, 3 of 3 now (p = 0.1, Holm-adjusted 1, Fisher's exact)" in said
    (lost,) = [line for line in said if "without a value" in line]
    assert "test_accuracy" in lost
    (row,) = against_document(found, "x")["rows"]
    assert row["diverged"] == {"before": 0, "now": 3}
    assert "test_accuracy" in row["lost"] and row["gained"] == []
    back = "\n".join(change_lines(between(now, renewed(before))))
    assert "3 of 3 diverged before, 0 of 3 now" in back and "now with a value: " in back


def test_a_row_without_runs_says_that_alone():
    before = runs()
    now = [replace(run, status="running") for run in renewed(before)]
    *_, said = change_lines(between(before, now))
    assert said == "  a (digits), 3 runs before, 0 now"


def test_where_nothing_matches_it_is_said_loudly():
    before = [replace(run, experiment="b") for run in runs()]
    first, *rest = change_lines(between(before, renewed(runs())))
    assert first.startswith("nothing to compare: ")
    assert rest == ["  only now: a (digits): the earlier state has no a", "  only before: b (digits)"]
