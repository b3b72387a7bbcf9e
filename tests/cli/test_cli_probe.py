"""`initbench probe`: predicted and measured before training."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

SMALL = (
    "data.name=gaussian",
    "data.dim=64",
    "data.samples=400",
    "model.depth=5",
    "model.width=256",
    "seeds=4",
)
STATISTICS = {"q", "act_mean", "act_std", "zero_fraction", "saturated_fraction", "grad_ratio"}


@pytest.fixture
def probed(initbench: Any, repository: Any) -> Any:
    def call(*arguments: str, config: str = "relu_kaiming") -> dict[str, Any]:
        said = initbench(
            "probe", str(repository / "configs" / f"{config}.yaml"), *SMALL, *arguments, "--json"
        )
        assert said.code == 0, said.err
        document: dict[str, Any] = json.loads(said.out)
        return document

    return call


def test_the_document_has_the_keys_that_others_read(probed: Any) -> None:
    document = probed()
    assert document["schema"] == "initbench.probe/1"
    theory = {"chi_1", "chi_parallel", "chi_at", "q_star", "depth_scale_q", "depth_scale_c"}
    assert theory <= set(document["theory"])
    assert [layer["index"] for layer in document["layers"]] == [1, 2, 3, 4, 5]
    for layer in document["layers"]:
        assert {"name", "fan_in", "fan_out", "band", "inside"} <= set(layer)
        assert set(layer["predicted"]) == set(layer["measured"]) == STATISTICS
        low, high = layer["band"]["q"]
        assert layer["inside"] == (low <= layer["measured"]["q"]["mean"] <= high)
    assert document["layers"][-1]["predicted"]["act_mean"] is None
    assert document["theory"]["chi_1"] == pytest.approx(1.0)
    assert document["theory"]["q_star"] is None and document["theory"]["chi_at"] == "last_hidden"
    assert document["diagnosis"] == []


def test_healthy_nets_lie_in_the_band(probed: Any) -> None:
    assert all(layer["inside"] for layer in probed()["layers"])


def test_the_misprint_is_predicted_to_double_q_in_every_layer(probed: Any) -> None:
    layers = probed("init.scheme=kaiming_misprint", "model.depth=20", "seeds=1")["layers"]
    q = [layer["predicted"]["q"] for layer in layers]
    assert all(after / before == pytest.approx(2.0, rel=1e-2) for before, after in pairwise(q))


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("model.norm=group", "model.norm=group"),
        ("init.scheme=orthogonal", "orthogonal"),
        ("model.activation=crelu", "crelu"),
    ],
)
def test_what_theory_has_no_word_on_is_said_so(probed: Any, override: str, reason: str) -> None:
    document = probed(override)
    assert reason in document["theory"]["no_prediction"]
    assert document["theory"]["chi_1"] is None
    for layer in document["layers"]:
        assert layer["inside"] is None
        assert layer["predicted"]["q"] is None and layer["measured"]["q"]["mean"] > 0


@pytest.mark.parametrize("norm", ["batch", "layer", "rms"])
def test_a_norm_has_values_but_no_bands(probed: Any, norm: str) -> None:
    document = probed(f"model.norm={norm}", "init.scheme=torch_default")
    theory = document["theory"]
    assert theory["no_prediction"] is None and "norm layers" in theory["no_band"]
    assert theory["chi_1"] is theory["q_star"] is theory["chi_at"] is None
    for layer in document["layers"]:
        assert layer["inside"] is None and layer["band"] == {"q": None}
        for name, value in layer["predicted"].items():
            assert (value is None) == (layer["measured"][name]["mean"] is None)
            assert value is None or value == pytest.approx(layer["measured"][name]["mean"], rel=0.4)


def test_maps_have_values_but_no_bands(initbench: Any, repository: Any) -> None:
    config = str(repository / "configs" / "cnn_relu_kaiming_cifar10.yaml")
    arguments = ("probe", config, "data.name=digits", "seeds=4", "model.depth=5", "model.width=32")
    document = json.loads(initbench(*arguments, "--json").out)
    assert document["theory"]["no_prediction"] is None and "maps" in document["theory"]["no_band"]
    *hidden, head = document["layers"]
    assert head["predicted"]["q"] is None, "its mean over places is not followed"
    for layer in hidden:
        assert layer["predicted"]["q"] == pytest.approx(layer["measured"]["q"]["mean"], rel=0.4)
        assert layer["inside"] is None
    said = initbench(*arguments).out
    assert "no band: the deviation of a net" in said and "q theory" in said and "in band" not in said


@pytest.mark.parametrize(
    ("config", "override", "reason"),
    [
        ("cnn_relu_kaiming_cifar10", "model.downsample=max_pool", "pooling mixes positions"),
        ("cnn_batchnorm", "model.depth=4", "batch norm on maps"),
        ("resnet_zero_gamma", "model.depth=20", "layers have other inputs"),
        ("relu_xavier_batchnorm", "model.norm_placement=after_activation", "after the activation"),
        ("relu_xavier_batchnorm", "probe.batch=8", "probe.batch=128"),
    ],
)
def test_why_theory_has_no_word(
    initbench: Any, repository: Any, config: str, override: str, reason: str
) -> None:
    file = str(repository / "configs" / f"{config}.yaml")
    said = initbench("probe", file, "data.name=digits", "seeds=1", override, "--json")
    assert reason in json.loads(said.out)["theory"]["no_prediction"]


def test_a_sick_net_is_explained(probed: Any) -> None:
    finding = probed("model.depth=40", "model.width=64", "init.scheme=xavier_normal")["diagnosis"][0]
    assert finding["code"] == "vanishing_forward" and finding["seeds"] == 4
    assert "init.scheme=kaiming_normal" in finding["message"]


def test_one_net_has_no_spread(probed: Any) -> None:
    assert all(layer["measured"]["q"]["std"] is None for layer in probed("seeds=1")["layers"])


def test_the_table_is_read_by_people(initbench: Any, repository: Any) -> None:
    said = initbench("probe", str(repository / "configs" / "tanh_xavier.yaml"), *SMALL)
    assert said.code == 0
    for words in ("q theory", "in band", "5 head", "Theory", "χ₁ = ", "healthy", "not trained"):
        assert words in said.out
    assert "Traceback" not in said.err


def test_several_configs_are_probed_one_after_another(initbench: Any, repository: Any) -> None:
    names = ("tanh_xavier", "relu_kaiming")
    files = [str(repository / "configs" / f"{name}.yaml") for name in names]
    document = json.loads(initbench("probe", *files, *SMALL, "--json").out)
    assert [one["experiment"] for one in document["probes"]] == list(names)
    out = initbench("probe", *files, *SMALL, "seeds=1").out
    assert out.index("tanh_xavier") < out.index("relu_kaiming")
    said = initbench("probe", *files, "--depths", "3,4")
    assert said.code == 2 and "one config at a time" in said.err


def test_nothing_is_stored(initbench: Any, repository: Any, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    initbench("probe", str(repository / "configs" / "relu_kaiming.yaml"), *SMALL)
    assert list(tmp_path.iterdir()) == []


def test_depths_are_compared_in_rows(initbench: Any, repository: Any) -> None:
    config = str(repository / "configs" / "relu_xavier.yaml")
    arguments = ("probe", config, *[word for word in SMALL if "depth" not in word], "--depths", "3,30")
    document = json.loads(initbench(*arguments, "--json").out)
    assert [(one["depth"], len(one["layers"])) for one in document["depths"]] == [(3, 3), (30, 30)]
    said = initbench(*arguments, "model.width=64", "seeds=1").out
    rows = {line.split()[0]: line for line in said.splitlines() if line and line.split()[0] in ("3", "30")}
    assert rows["3"].endswith("healthy") and "vanishing_forward" in rows["30"]


@pytest.mark.parametrize("depths", ["", "3,x", "0", "3,3", "3;4"])
def test_depths_that_are_none_are_refused(initbench: Any, repository: Any, depths: str) -> None:
    said = initbench("probe", str(repository / "configs" / "relu_xavier.yaml"), "--depths", depths)
    assert said.code == 2 and "--depths" in said.err
