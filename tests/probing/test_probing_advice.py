"""Advice of a diagnosis removes the finding when it is typed in verbatim. Runs of one step on digits."""

import re

import pytest
import torch
import yaml

from initbench.config.loading import load_config
from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import DataSource
from initbench.runner.plan import RunContext
from initbench.store.store import Store
from tests.runner.driven import Silent, run_experiment

KEY_VALUE = re.compile(r"[a-z_]+(?:\.[a-z_]+)+=[^\s,)]+")
STD_1 = {"scheme": {"name": "normal", "std": 1.0}}
SICK = {
    "relu_xavier": ({}, {"scheme": "xavier_normal"}),
    "relu_torch": ({"depth": 30}, {"scheme": "torch_default"}),
    "relu_misprint": ({}, {"scheme": "kaiming_misprint"}),
    "relu_small_std": ({"depth": 25}, {"scheme": {"name": "normal", "std": 0.01}}),
    "relu_huge_std": ({"depth": 30}, {"scheme": {"name": "normal", "std": 10.0}}),
    "relu_too_deep": ({"depth": 160, "width": 32}, {"scheme": "xavier_uniform"}),
    "kaiming_typed_gain": ({}, {"scheme": "kaiming_normal", "gain": 0.5}),
    "kaiming_auto_and_bias": ({"depth": 6}, {"scheme": "kaiming_normal", "gain": "auto", "bias": -10.0}),
    "xavier_typed_gain": ({"activation": "leaky_relu"}, {"scheme": "xavier_normal", "gain": 3.0}),
    "orthogonal_relu": ({}, {"scheme": "orthogonal"}),
    "tanh_bias": ({"activation": "tanh"}, {"scheme": "xavier_normal", "bias": -3.0}),
    "tanh_steep": ({"activation": "tanh"}, STD_1),
    "tanh_steep_and_biased": ({"activation": "tanh", "depth": 8}, {**STD_1, "bias": 30.0}),
    "tanh_deep_on_auto": ({"activation": "tanh", "depth": 80}, {"scheme": "lecun_normal", "gain": "auto"}),
    "tanh_weak": ({"activation": "tanh"}, {"scheme": "torch_default"}),
    "sigmoid": ({"activation": "sigmoid"}, {"scheme": "xavier_normal"}),
    "sigmoid_layer_norm": ({"activation": "sigmoid", "norm": "layer"}, {"scheme": "xavier_normal"}),
    "sigmoid_deep": ({"activation": "sigmoid", "norm": "group", "depth": 80}, {"scheme": "lecun_normal"}),
    "batch_norm_deep": ({"norm": "batch", "depth": 50}, {"scheme": "kaiming_normal"}),
    "tanh_norm_after": (
        {"activation": "tanh", "norm": "layer", "norm_placement": "after_activation"},
        STD_1,
    ),
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """code → message of a run of one step under a named sick config and overrides."""
    root = tmp_path_factory.mktemp("advice")
    place = RunContext(
        store=Store(root / "runs"), source=DataSource(root=root, offline=True), device=torch.device("cpu")
    )

    def found(name, overrides=()):
        model, init = SICK[name]
        config = {
            "name": name,
            "data": {"name": "digits"},
            "model": {"family": "mlp", "depth": 20, "width": 64, **model},
            "init": init,
            "train": {"steps": 1, "batch_size": 32, "lr": 1e-6},
            "probe": {"batch": 256, "when": ["init"]},
        }
        path = root / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))

        execution = run_experiment(
            load_config(path, overrides, ExperimentConfig), place, Silent(), rerun=False
        )
        assert execution.errors == ()
        diagnosis = place.store.read(execution.run_ids[0]).record["diagnosis"]
        return {finding["code"]: finding["message"] for finding in diagnosis if finding["when"] == "init"}

    return found


def ways(message):
    """The alternatives a message names, each as a list of overrides."""
    offered = message.split("Try ")[-1].split(", or ")
    return [KEY_VALUE.findall(way) for way in offered]


FIRST_WAYS = {
    "kaiming_typed_gain": ["init.gain=null"],
    "xavier_typed_gain": ["init.scheme=kaiming_normal", "init.gain=null"],
    "tanh_bias": ["init.bias=0"],
    "kaiming_auto_and_bias": ["init.bias=0"],
    "tanh_steep_and_biased": ["init.scheme=lecun_normal", "init.gain=auto", "init.bias=0"],
    "tanh_deep_on_auto": ["init.gain=1"],
    "sigmoid_layer_norm": ["model.norm=batch"],
    "tanh_norm_after": ["model.norm=batch", "model.norm_placement=before_activation"],
}
"""The way of each config that changes what is wrong with it."""


@pytest.mark.parametrize("name", SICK)
def test_what_is_suggested_works(findings, name):
    sick = findings(name)
    assert sick
    cured = {}
    for code, message in sick.items():
        first, *_ = ways(message)
        if name in FIRST_WAYS:
            assert first == (["init.head=zeros"] if code == "head_scale" else FIRST_WAYS[name])
        for way in ways(message):
            assert way, message
            check_that_it_is_new(name, way)
            key = tuple(way)
            cured[key] = cured.get(key) or findings(name, way)
            assert code not in cured[key], (way, message, cured[key])


def check_that_it_is_new(name, way):
    """Check that the config does not have a value of the way already."""
    model, init = SICK[name]
    for word in way:
        key, value = word.split("=")
        section, leaf = key.split(".")
        assert {"model": model, "init": init}[section].get(leaf) != value
