"""Tuning: the chosen value, and the values that are about as good."""

from __future__ import annotations

from dataclasses import replace

import pytest

from initbench.analysis.metrics import METRICS
from initbench.study.tuning import Tuning, TuningTrial, choose_best, score_trial
from tests.analysis.stored_runs import stored

HIGHER, LOWER = METRICS["final_val_accuracy"], METRICS["final_val_loss"]


def tuned(*scores: float | None, lower: bool = False, lost: tuple[int, ...] = ()) -> Tuning:
    """Values 1, 10, 100, …, one second and two runs each."""
    tried = [TuningTrial(10.0**i, score, 2, 0, 1.0) for i, score in enumerate(scores)]
    tried = [replace(one, lost=n) for one, n in zip(tried, lost or [0] * len(tried), strict=True)]
    return choose_best("train.lr", LOWER if lower else HIGHER, tried)


def test_the_best_by_its_sense():
    assert tuned(0.5, 0.9, 0.7).chosen.value == 10.0
    assert tuned(0.5, 0.9, 0.7, lower=True).chosen.value == 1.0
    assert tuned(0.9, 0.9, 0.1).chosen.value == 1.0, "the least of equal ones"


def test_a_value_that_lost_a_run_is_worse_than_any_that_has_not():
    assert tuned(None, 0.1, None, lost=(1, 0, 1)).chosen.value == 10.0
    assert tuned(None, None, lost=(2, 1)).chosen.value == 10.0
    assert tuned(None, None, lost=(1, 1)).chosen.value == 1.0
    assert tuned(None, 5.0, lower=True, lost=(1, 0)).chosen.value == 10.0


def test_the_edge():
    assert [tuned(*scores).range_edge for scores in ((3, 2, 1), (1, 3, 2), (1, 2, 3))] == [
        "low",
        None,
        "high",
    ]


@pytest.mark.parametrize(
    ("scores", "good"),
    [
        ((0.1, 0.96, 1.0, 0.951, 0.5), (10.0, 1000.0)),
        ((0.1, 0.949, 1.0, 0.949, 0.5), (100.0, 100.0)),
        ((0.96, 0.1, 1.0, 0.96, 0.96), (100.0, 10000.0)),
        ((None, 0.99, 1.0, None, 0.99), (10.0, 100.0)),
    ],
)
def test_good_values_are_an_unbroken_range_about_the_best(
    scores: tuple[float, ...], good: tuple[float, float]
):
    found = tuned(*scores)
    assert found.good_values == good
    assert found.decades == pytest.approx(len(str(int(good[1]))) - len(str(int(good[0]))))


def test_good_losses_are_at_most_a_twentieth_larger():
    assert tuned(1.06, 1.0, 1.04, lower=True).good_values == (10.0, 100.0)


def test_what_it_cost():
    found = tuned(1.0, 2.0, 3.0)
    assert (found.runs, found.seconds) == (6, 3.0)


def test_the_score_of_a_value_is_the_mean_of_its_runs():
    runs = [stored("a", seed, accuracies=(0.1, accuracy)) for seed, accuracy in enumerate((0.5, 0.7))]
    one = score_trial(0.1, runs, HIGHER)
    assert (one.score, one.runs, one.lost) == (pytest.approx(0.6), 2, 0)
    lost = score_trial(0.1, [*runs, stored("a", 3, status="diverged")], HIGHER)
    assert (lost.score, lost.runs, lost.lost) == (None, 3, 1)
    assert score_trial(0.1, [], HIGHER).score is None
