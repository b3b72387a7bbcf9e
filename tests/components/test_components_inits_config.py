"""Schemes in a config: round trips, refusals that name both keys, and a few steps of training."""

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch.nn.functional import cross_entropy

from initbench.components.init_scheme import INITS
from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import DataSource
from initbench.data.locate import resolve_dataset
from initbench.data.preprocessing import preprocess
from initbench.registry_choice import options_model
from initbench.train.network_builder import build_networks

OTHER = {
    "mode": "fan_out",
    "names": ["Linear"],
    "kind": "denoising",
    "corruption": "gaussian",
    "loss": "bce",
    "tied": False,
    "batch_size": 16,
    "base": "orthogonal",
    "from": "a_run",
    "freeze": "first_2",
    "frozen_norm": "batch",
}
"""Values for options that are not numbers."""
SERVED = [s.name for s in INITS if s.edit is None]
"""A plain mlp has no branches to edit."""


def other_options(name):
    """Every option of the scheme with a value that is not its default."""
    fields = options_model(INITS[name], "name").model_fields
    defaults = {key: field.default for key, field in fields.items() if key != "name"}
    return {
        key: OTHER.get(key, default + 1 if isinstance(default, int) else 0.5)
        for key, default in defaults.items()
    }


def activation_for(name):
    return {"looks_linear": "crelu", "autoencoder": "sigmoid"}.get(name, "tanh")


def config(make_config, name, **changes):
    family = "resnet_mlp" if INITS[name].edit is not None else "mlp"
    model = {"family": family, "depth": 4, "width": 16, "activation": activation_for(name), **changes}
    scheme = {"name": name, **other_options(name)}
    norm = {"norm": "batch"} if name == "zero_gamma" else {}
    return make_config(model={**model, **norm}, init={"scheme": scheme})


@pytest.mark.parametrize("name", INITS.names())
def test_a_scheme_with_other_options_survives_yaml(make_config, name):
    first = config(make_config, name)
    second = ExperimentConfig.model_validate(yaml.safe_load(yaml.safe_dump(first.resolved())))
    assert second == first
    for key, value in other_options(name).items():
        assert getattr(second.init.scheme, key) == value != getattr(make_default(name), key)


def make_default(name):
    return options_model(INITS[name], "name")(**({"from": "elsewhere"} if name == "pretrained" else {}))


@pytest.mark.parametrize("name", SERVED)
def test_training_steps_at_depth_four_are_finite(make_config, name, tmp_path):
    """Two plain steps of SGD on digits, small enough that not even `ones` leaves float32."""
    experiment = config(make_config, name)
    source = DataSource(root=tmp_path, offline=True)
    data = preprocess(resolve_dataset(experiment.data, source), experiment.data, torch.device("cpu"))
    (network,) = build_networks(experiment, data, seeds=[0])
    x, y = data.train.x[:64], data.train.y[:64]
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        loss = cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
    assert bool(loss.isfinite())
    assert all(bool(p.isfinite().all()) for p in network.parameters())


REFUSED = [
    (
        "looks_linear",
        {"activation": "relu"},
        "init.scheme=looks_linear needs model.activation=crelu, not relu",
    ),
    (
        "critical",
        {"activation": "softplus"},
        "init.scheme=critical has no solution for model.activation=softplus",
    ),
    ("critical", {"activation": "gelu", "bias": False}, "needs model.bias=true with model.activation=gelu"),
    (
        "data_weightnorm",
        {"bias": False},
        "init.scheme=data_weightnorm sets biases, and with model.bias=false",
    ),
    ("data_dependent", {"bias": False}, "init.scheme=data_dependent sets biases, and with model.bias=false"),
    (
        "zero_gamma",
        {"norm": "none"},
        "init.scheme=zero_gamma sets the scales of norm layers, and with model.norm",
    ),
]


@pytest.mark.parametrize(("name", "model", "said"), REFUSED)
def test_a_combination_that_cannot_be_is_refused_at_init_scheme(make_config, name, model, said):
    with pytest.raises(ValidationError) as caught:
        make_config(model=model, init={"scheme": name})
    (error,) = caught.value.errors()
    assert error["ctx"]["key"] == "init.scheme"
    assert said in error["msg"]


def test_a_head_has_no_branches(make_config):
    with pytest.raises(ValidationError, match=r"init.head=fixup edits residual branches"):
        make_config(init={"head": "fixup"})


def test_critical_without_biases_is_fine_where_it_has_none(make_config):
    assert make_config(model={"bias": False, "activation": "tanh"}, init={"scheme": "critical"})


def test_a_refusal_is_one_line_on_the_command_line(initbench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.yaml"
    path.write_text("name: x\ndata: {name: digits}\ninit: {scheme: looks_linear}\n", encoding="utf-8")
    said = initbench("validate", path)
    assert said.code == 2
    assert "looks_linear needs model.activation=crelu, not relu" in said.err
    path.write_text("name: x\ndata: {name: digits}\ninit: {scheme: fixup}\n", encoding="utf-8")
    said = initbench("run", path, "train.steps=2", "--runs-dir", tmp_path / "runs")
    assert said.code == 2
    assert "init.scheme=fixup" in said.err
    assert "model.family" in said.err
    assert not (tmp_path / "runs").exists(), "refused before a run is claimed"
    assert "Traceback" not in said.err


@pytest.mark.parametrize("name", [entry.name for entry in INITS if entry.measures_bias])
def test_a_bias_that_the_batch_sets_cannot_be_asked_for(make_config, name):
    with pytest.raises(ValidationError, match=rf"init.bias=0.1 has no effect: init.scheme={name}") as caught:
        make_config(init={"scheme": name, "bias": 0.1})
    assert caught.value.errors()[0]["ctx"]["key"] == "init.bias"


def test_norms_of_the_weights_have_no_place_behind_the_activation(make_config):
    with pytest.raises(ValidationError, match=r"model.norm=weight acts on the weights") as caught:
        make_config(model={"norm": "weight", "norm_placement": "after_activation"})
    assert caught.value.errors()[0]["ctx"]["key"] == "model.norm_placement"
