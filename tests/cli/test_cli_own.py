"""A network of the user's own: `initbench probe --model` and `initbench lint`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MODULE = """
import torch
from torch import nn

COUNT = [0]


def plain(width=256):
    layers = []
    for inputs in (48, *[width] * 7):
        layers += [nn.Linear(inputs, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def drawn():
    net = plain()
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return net


def pixels():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def restless():
    COUNT[0] += 1
    return nn.Sequential(nn.Linear(48, 16 + COUNT[0]), nn.ReLU(), nn.Linear(16 + COUNT[0], 3))


def needs(width):
    return plain(width)


def raises():
    raise RuntimeError("no weights today")


def odd():
    return 3


net = plain()
number = 3
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "ownnets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "ownnets"
    sys.modules.pop("ownnets", None)


def test_the_document_has_the_keys_of_a_probe(initbench: Any, nets: str) -> None:
    said = initbench("probe", "--model", f"{nets}:plain", "--input", "48", "seeds=4", "--json")
    assert said.code == 0, said.err
    document = json.loads(said.out)
    assert document["schema"] == "initbench.probe/1"
    assert {"theory", "layers", "diagnosis", "unseen", "additions", "loss", "model"} <= set(document)
    layers = document["layers"]
    assert [layer["index"] for layer in layers] == list(range(1, 10))
    assert {"index", "name", "fan_in", "fan_out", "predicted", "measured", "band", "inside"} <= set(layers[0])
    assert layers[0]["activation"] == "relu"
    assert [layer["fan_in"] for layer in layers[:2]] == [48, 256]


def test_theory_holds_for_a_plain_net_of_ones_own(initbench: Any, nets: str) -> None:
    for make, factor in (("plain", 1 / 6), ("drawn", 1.0)):
        arguments = ("--input", "48", "seeds=16", "probe.batch=128", "--json")
        document = json.loads(initbench("probe", "--model", f"{nets}:{make}", *arguments).out)
        assert all(layer["inside"] is not False for layer in document["layers"])
        assert sum(layer["inside"] is True for layer in document["layers"]) > 4
        assert document["theory"]["chi_1"] == pytest.approx(factor, rel=0.15)


def test_the_table_names_layers_and_says_what_to_do(initbench: Any, nets: str) -> None:
    said = initbench("probe", "--model", f"{nets}:plain", "--input", "48", "model.depth=3")
    assert said.code == 2
    assert "model" in said.err
    said = initbench("probe", "--model", f"{nets}:plain", "--input", "48")
    assert said.code == 0
    assert "linear, relu" in said.out
    assert 'initbench.apply_init(module, "kaiming_normal")' in said.out
    assert "init.scheme" not in said.out


def test_data_sets_are_shown_and_flattened_where_asked(initbench: Any, nets: str) -> None:
    said = initbench("probe", "--model", f"{nets}:pixels", "--data", "digits", "--json")
    document = json.loads(said.out)
    assert (document["input_shape"], document["batch"]) == ([1, 8, 8], "digits 1×8×8")
    assert document["loss"]["name"] == "cross-entropy"
    flat = initbench("probe", "--model", f"{nets}:pixels", "--data", "digits", "--input", "64", "--json")
    assert json.loads(flat.out)["input_shape"] == [64]
    said = initbench("probe", "--model", f"{nets}:pixels", "--data", "digits", "--input", "65")
    assert (said.code, "does not fit digits" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "ownnets:plain"], "requires --input"),
        (["--model", "ownnets:plan", "--input", "48"], "did you mean 'plain'?"),
        (["--model", "ownnets", "--input", "48"], "takes module:function"),
        (["--model", "nowhere.atall:f", "--input", "48"], "cannot be imported: ModuleNotFoundError"),
        (["--model", "ownnets:needs", "--input", "48"], "requires arguments (width)"),
        (["--model", "ownnets:raises", "--input", "48"], "RuntimeError: no weights today"),
        (["--model", "ownnets:odd", "--input", "48"], "returned int, not an nn.Module"),
        (["--model", "ownnets:net", "--input", "48"], "is a network; name a function that returns one"),
        (["--model", "ownnets:number", "--input", "48"], "cannot be called"),
        (["--model", "ownnets:plain", "--input", "4,x"], "--input takes whole numbers"),
        (["--model", "ownnets:plain", "--input", "0"], "--input takes whole numbers"),
        (["--model", "ownnets:plain", "--input", "47"], "cannot take a batch of shape (32, 47)"),
        (["--model", "ownnets:restless", "--input", "48"], "differ in their layers"),
        (["--model", "ownnets:plain", "--data", "mnits"], "did you mean 'mnist'?"),
        (["--model", "ownnets:plain", "--input", "48", "sedes=3"], "did you mean 'seeds'?"),
        (
            ["--model", "ownnets:plain", "--input", "48", "ownnets.py"],
            "require --model without a config, which sets data.name instead",
        ),
        (["--input", "48"], "require --model"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(
    initbench: Any, nets: str, arguments: list[str], sentence: str
) -> None:
    for command in ("probe", "lint") if "restless" not in " ".join(arguments) else ("probe",):
        said = initbench(command, *arguments)
        assert said.code == 2, (command, said)
        assert sentence in said.err, (command, said.err)
        assert "Traceback" not in said.err
        assert said.out == ""


def test_lint_finds_what_was_never_drawn_and_fails_when_asked(initbench: Any, nets: str) -> None:
    target = ("--model", f"{nets}:plain", "--input", "48")
    said = initbench("lint", *target)
    assert (said.code, "warning torch_default" in said.out) == (0, True)
    assert initbench("lint", *target, "--fail-on", "torch_default").code == 1
    assert initbench("lint", *target, "--fail-on", "any").code == 1
    assert initbench("lint", *target, "--fail-on", "dead_bias").code == 0
    fine = ("--model", f"{nets}:drawn", "--input", "48")
    assert initbench("lint", *fine, "--fail-on", "any").code == 0
    assert initbench("lint", *fine, "init.scheme=kaiming_normal", "--fail-on", "variance").code == 0
    assert initbench("lint", *fine, "init.scheme=lecun_normal", "--fail-on", "variance").code == 1
    wrong = initbench("lint", *fine, "--fail-on", "varianse")
    assert (wrong.code, "did you mean 'variance'?" in wrong.err) == (2, True)


def test_lint_of_a_config(initbench: Any, repository: Path) -> None:
    def lint(name: str, *arguments: str) -> Any:
        path = repository / "configs" / f"{name}.yaml"
        said = initbench("lint", path, "data.name=digits", "model.depth=4", "--json", *arguments)
        return said.code, json.loads(said.out)

    code, document = lint("relu_kaiming")
    assert (code, document["findings"], document["schema"]) == (0, [], "initbench.lint/1")
    code, document = lint("relu_zeros", "--fail-on", "duplicated_units")
    assert code == 1
    (finding, *_) = document["findings"]
    assert set(finding) == {"code", "level", "layers", "sentence", "fix", "advice"}
    assert finding["fix"] == "Try init.scheme=kaiming_normal (checked: it is gone)."
    _, document = lint("relu_xavier_batchnorm")
    assert {found["code"] for found in document["findings"]} == {"scale_cancelled", "dead_bias"}


def test_every_scheme_keeps_the_variance_that_it_declares(initbench: Any, repository: Path) -> None:
    from initbench.components.init_scheme import INITS

    path = repository / "configs" / "relu_kaiming.yaml"
    for scheme in INITS:
        if scheme.variance is None:
            continue
        said = initbench(
            "lint", path, "data.name=digits", "model.depth=3", f"init.scheme={scheme.name}", "--json"
        )
        assert said.code == 0, said.err
        assert "variance" not in {found["code"] for found in json.loads(said.out)["findings"]}, scheme.name
