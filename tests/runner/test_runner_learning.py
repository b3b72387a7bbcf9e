"""Short trainings of nets that start differently, and the bar that they have to pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from initbench.data.dataset import DataSource
from initbench.data.locate import data_root, resolve_dataset
from initbench.data.preprocessing import PreparedData, Split, preprocess
from initbench.diagnostics.short_training import CHANCE_QUANTILE, MIN_GAIN, LearningThreshold, train_variants
from initbench.diagnostics.trainability_map import config_at


@pytest.fixture
def digits(make_config: Callable[..., Any]) -> PreparedData:
    config = make_config()
    source = DataSource(root=data_root(None), offline=True, notify=lambda _message: None)
    return preprocess(resolve_dataset(config.data, source), config.data, torch.device("cpu"))


@given(majority=st.floats(0.01, 0.99), samples=st.integers(1, 100_000))
def test_the_bar_is_the_lower_end_of_a_wilson_interval_or_a_quarter_of_the_way(
    majority: float, samples: int
) -> None:
    bar = LearningThreshold(1, majority, samples)
    accuracy = bar.accuracy
    z = CHANCE_QUANTILE
    centre = accuracy + z * z / (2 * samples)
    half = z * math.sqrt(max(0.0, accuracy * (1 - accuracy)) / samples + z * z / (4 * samples**2))
    lower = (centre - half) / (1 + z * z / samples)
    if accuracy <= 1.0:
        assert lower >= majority - 1e-9
    gained = (accuracy - majority) / (1 - majority)
    assert (
        gained == pytest.approx(MIN_GAIN)
        or (gained > MIN_GAIN and accuracy > 1.0)
        or lower == (pytest.approx(majority, abs=1e-9))
    )


def test_the_majority_is_that_of_the_split_and_divergence_does_not_pass() -> None:
    split = Split(x=torch.zeros(10, 2), y=torch.tensor([0] * 6 + [1] * 4))
    bar = LearningThreshold.for_split(split, 5)
    assert (bar.majority, bar.samples, bar.steps) == (0.6, 10, 5)
    assert not bar.reached_by(None) and not bar.reached_by(0.7) and bar.reached_by(1.1)


def test_a_net_that_diverges_leaves_its_neighbours_as_they_are(
    make_config: Callable[..., Any], digits: PreparedData
) -> None:
    config = make_config(train={"lr": 0.05})
    good, bad = config_at(config, 1.4, 6), config_at(config, 1e6, 6)
    heard: list[int] = []
    together = train_variants([(good, 0), (bad, 0), (good, 1)], digits, 150, heard.append)
    assert together[1] is None
    assert sum(heard) == 3 * 150
    alone = [train_variants([(good, seed)], digits, 150, heard.append)[0] for seed in (0, 1)]
    assert [together[0], together[2]] == alone
    assert alone[0] is not None and LearningThreshold.for_split(digits.val, 150).reached_by(alone[0])


def test_more_nets_than_fit_a_cohort_come_back_in_order(
    make_config: Callable[..., Any], digits: PreparedData
) -> None:
    config = make_config()
    starts = [(config_at(config, 1.4, 3), seed) for seed in range(18)]
    accuracies = train_variants(starts, digits, 3, lambda _nets: None)
    assert len(accuracies) == 18
    assert accuracies[17] == train_variants(starts[17:], digits, 3, lambda _nets: None)[0]
