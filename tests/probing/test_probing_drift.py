"""The note on a q that drifts without being a fault: when it is made, what it says, that its advice holds."""

import math

import pytest
import torch

from initbench.components.target import SampleShape
from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import DataSource
from initbench.data.locate import resolve_dataset
from initbench.data.preprocessing import preprocess
from initbench.diagnostics.net_source import ConfigNets
from initbench.diagnostics.survey import survey
from initbench.models.build import build
from initbench.probing.messages import drift_note
from initbench.probing.remedies import network_context


@pytest.fixture(scope="module")
def situation():
    config = config_of({"activation": "gelu"}, {"scheme": "kaiming_normal"})
    network = build(config.model, config.init, form=SampleShape((64,), 10), seed=0, batch=torch.zeros(4, 64))
    return network_context(network, config.model, config.init, 2.0)


def config_of(model, init):
    return ExperimentConfig.model_validate(
        {
            "name": "drift",
            "seeds": 2,
            "data": {"name": "gaussian", "dim": 64, "samples": 400},
            "model": {"family": "mlp", "depth": 14, "width": 64, **model},
            "init": init,
            "train": {"batch_size": 32},
            "probe": {"batch": 64},
        }
    )


def noted(model, init):
    config = config_of(model, init)
    source = DataSource(root=None, offline=True)
    data = preprocess(resolve_dataset(config.data, source), config.data, "cpu")
    return survey(ConfigNets(config, data))


def geometric(factor, layers=8):
    return [factor**i for i in range(layers)]


def test_it_begins_at_five_layers_for_a_factor_of_two(situation):
    for near, beyond in ((0.2 * 0.99, 0.2 * 1.01), (-0.2 * 0.99, -0.2 * 1.01)):
        assert drift_note(geometric(2.0**near), situation) is None
        assert drift_note(geometric(2.0**beyond), situation) is not None


def test_it_says_in_how_many_layers_q_halves_or_doubles(situation):
    assert "q of wide nets falls ×0.50 a layer in theory: it halves every 1.0 layers." in drift_note(
        geometric(0.5), situation
    )
    assert "q of wide nets grows ×1.41 a layer in theory: it doubles every 2.0 layers." in drift_note(
        geometric(math.sqrt(2)), situation
    )


@pytest.mark.parametrize(
    "values",
    [
        [],
        [1.0],
        [1.0, 0.0],
        [1.0, 0.5, 0.3, 0.21, 0.20, 0.20],  # settles
        [1.0, 0.1, 0.01, 0.02],  # turns
    ],
)
def test_what_settles_or_is_too_short_is_not_spoken_of(values, situation):
    assert drift_note(values, situation) is None


def test_the_gain_that_keeps_q_is_named_and_keeps_it():
    """gelu at √2: q·σ_w²/4 where it is small, half a layer; 1/√E[φ²] = 1.534."""
    found = noted({"activation": "gelu"}, {"scheme": "kaiming_normal"})
    assert found.findings == []
    assert (
        "gelu keeps q at a gain of 1.534. Try init.gain=auto init.head=zeros (checked: q per layer"
        in found.note
    )
    cured = {"scheme": "kaiming_normal", "gain": "auto", "head": "zeros"}
    assert noted({"activation": "gelu"}, cured).note is None


@pytest.mark.parametrize(
    ("model", "init"),
    [
        ({}, {"scheme": "kaiming_normal"}),
        ({"depth": 30}, {"scheme": "lecun_normal"}),  # a finding says it
        ({"activation": "tanh", "depth": 30}, {"scheme": "lecun_normal"}),  # falls as 1/layers
        ({}, {"scheme": "orthogonal"}),  # no theory
        ({"activation": "gelu", "depth": 2}, {"scheme": "kaiming_normal"}),
    ],
)
def test_nothing_is_noted_of_others(model, init):
    assert noted(model, init).note is None
