"""Short trainings of nets that start differently, and the bar that they have to pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from initbench.data.dataset import Source
from initbench.data.prepare import Bundle, Split, prepare
from initbench.data.resolve import data_root, resolve
from initbench.execute.learning import LEAST_GAIN, QUANTILE, Bar, train_row
from initbench.execute.trainability import variant


@pytest.fixture
def digits(make_config: Callable[..., Any]) -> Bundle:
    config = make_config()
    source = Source(root=data_root(None), offline=True, notify=lambda _message: None)
    return prepare(resolve(config.data, source), config.data, torch.device("cpu"))


@given(majority=st.floats(0.01, 0.99), samples=st.integers(1, 100_000))
def test_the_bar_is_the_lower_end_of_a_wilson_interval_or_a_quarter_of_the_way(
    majority: float, samples: int
) -> None:
    bar = Bar(1, majority, samples)
    accuracy = bar.accuracy
    z = QUANTILE
    centre = accuracy + z * z / (2 * samples)
    half = z * math.sqrt(max(0.0, accuracy * (1 - accuracy)) / samples + z * z / (4 * samples**2))
    lower = (centre - half) / (1 + z * z / samples)
    if accuracy <= 1.0:
        assert lower >= majority - 1e-9
    gained = (accuracy - majority) / (1 - majority)
    assert (
        gained == pytest.approx(LEAST_GAIN)
        or (gained > LEAST_GAIN and accuracy > 1.0)
        or lower == (pytest.approx(majority, abs=1e-9))
    )


def test_the_majority_is_that_of_the_split_and_divergence_does_not_pass() -> None:
    split = Split(x=torch.zeros(10, 2), y=torch.tensor([0] * 6 + [1] * 4))
    bar = Bar.over(split, 5)
    assert (bar.majority, bar.samples, bar.steps) == (0.6, 10, 5)
    assert not bar.passed(None) and not bar.passed(0.7) and bar.passed(1.1)


def test_a_net_that_diverges_leaves_its_neighbours_as_they_are(
    make_config: Callable[..., Any], digits: Bundle
) -> None:
    config = make_config(train={"lr": 0.05})
    good, bad = variant(config, 1.4, 6), variant(config, 1e6, 6)
    heard: list[int] = []
    together = train_row([(good, 0), (bad, 0), (good, 1)], digits, 150, heard.append)
    assert together[1] is None
    assert sum(heard) == 3 * 150
    alone = [train_row([(good, seed)], digits, 150, heard.append)[0] for seed in (0, 1)]
    assert [together[0], together[2]] == alone
    assert alone[0] is not None and Bar.over(digits.val, 150).passed(alone[0])


def test_more_nets_than_fit_a_cohort_come_back_in_order(
    make_config: Callable[..., Any], digits: Bundle
) -> None:
    config = make_config()
    starts = [(variant(config, 1.4, 3), seed) for seed in range(18)]
    accuracies = train_row(starts, digits, 3, lambda _nets: None)
    assert len(accuracies) == 18
    assert accuracies[17] == train_row(starts[17:], digits, 3, lambda _nets: None)[0]
