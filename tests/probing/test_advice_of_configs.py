"""Advice of `probe`, `run` and `lint` for a config cures when it is applied verbatim."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from initbench.probing.diagnosis import CODES

WAY = re.compile(r"((?:[a-z_]+(?:\.[a-z_]+)+=[^\s,()]+ ?)+)\(checked: ([^)]+)\)")
BASE = "data: {name: gaussian, dim: 32, samples: 300}\ntrain: {steps: 1, batch_size: 32, lr: 1.0e-6}\n"
MODELS = {
    "xavier": "model: {family: mlp, depth: 20, width: 48}\ninit: {scheme: xavier_normal}\n",
    "misprint": "model: {family: mlp, depth: 20, width: 48}\ninit: {scheme: kaiming_misprint}\n",
    "residual": "model: {family: resnet_mlp, depth: 22, width: 32}\n"
    "init: {scheme: {name: normal, std: 0.5}}\n",
    "biased": "model: {family: mlp, depth: 5, width: 32}\ninit: {scheme: kaiming_normal, bias: -10.0}\n",
    "steep": "model: {family: mlp, depth: 3, width: 32, activation: tanh}\n"
    "init: {scheme: {name: normal, std: 1.0}}\n",
    "zeros": "model: {family: mlp, depth: 4, width: 32}\ninit: {scheme: zeros}\n",
    "sure": "model: {family: mlp, depth: 3, width: 32}\n"
    "init: {scheme: kaiming_normal, head: {name: normal, std: 9.0}}\n",
    "raw": "model: {family: mlp, depth: 4, width: 32}\ninit: {scheme: kaiming_normal}\n",
}
CURED_BY = {
    ("xavier", "vanishing_forward"): "init.scheme=kaiming_normal",
    ("xavier", "vanishing_backward"): "init.scheme=kaiming_normal",
    ("misprint", "exploding_forward"): "init.scheme=kaiming_normal",
    ("misprint", "exploding_backward"): "init.scheme=kaiming_normal",
    ("residual", "exploding_forward"): "init.scheme=fixup",
    ("biased", "dead"): "init.bias=0",
    ("steep", "saturated"): "init.scheme=lecun_normal init.gain=auto",
    ("zeros", "symmetric"): "init.scheme=kaiming_normal",
    ("sure", "head_scale"): "init.head=zeros",
    ("raw", "input_scale"): "data.normalize=global",
}
"""By net and code, a change that has to be among those that are printed."""
WITHOUT_A_CHANGE = {"not_finite", "samples_alike", "diverged", "not_learned"}
"""Codes of which no key of a config is the cause, or of which only a training shows the cure."""


@pytest.fixture
def config(tmp_path: Path) -> Any:
    def written(name: str) -> str:
        text = BASE
        if name == "raw":
            stream = np.random.default_rng(0)
            x, y = stream.uniform(0, 255, (300, 16)).astype("f4"), stream.integers(0, 4, 300)
            np.savez(tmp_path / "raw.npz", x_train=x[:240], y_train=y[:240], x_test=x[240:], y_test=y[240:])
            text = (
                f"data: {{name: npz, path: {tmp_path / 'raw.npz'}, normalize: none}}\n"
                + text[text.index("train") :]
            )
        path = tmp_path / f"{name}.yaml"
        path.write_text(
            f"name: {name}\nseeds: [0, 1, 2]\n{text}{MODELS[name]}probe: {{batch: 64, when: [init]}}\n"
        )
        return str(path)

    return written


def ways(line: str) -> list[tuple[list[str], str]]:
    """The changes that a line names, as overrides, and what was checked of each."""
    return [(found[1].split(), found[2]) for found in WAY.finditer(line)]


_COUNT = r"(?: \(\d+ of \d+ \w+\))?: "
_NEXT = "|".join(code.name for code in CODES)


def printed(out: str, code: str) -> str:
    """Return the printed text of a code, without its line breaks."""
    found = re.search(rf"\b{code}{_COUNT}(.*?)(?=\b(?:{_NEXT}){_COUNT}|$)", " ".join(out.split()))
    assert found is not None, out
    return found[1]


def test_the_table_holds_every_code_that_a_change_can_cure() -> None:
    assert {code for _, code in CURED_BY} | WITHOUT_A_CHANGE == {code.name for code in CODES}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name == "misprint" else ()) for name in MODELS],
)
def test_what_probe_prints_cures(initbench: Any, config: Any, name: str) -> None:
    path = config(name)
    said = initbench("probe", path, "seeds=3")
    document = json.loads(initbench("probe", path, "seeds=3", "--json").out)
    found = {finding["code"]: finding for finding in document["diagnosis"]}
    for code in [code for case, code in CURED_BY if case == name]:
        changes = ways(printed(said.out, code))
        assert CURED_BY[name, code] in [" ".join(words) for words, _ in changes]
        advice = found[code]["advice"]
        assert [one["change"].split() for one in advice] == [words for words, _ in changes]
        assert all(one["checked"]["before"] != one["checked"]["after"] for one in advice)
        for words, _ in changes:
            after = json.loads(initbench("probe", path, *words, "seeds=3", "--json").out)["diagnosis"]
            assert code not in [finding["code"] for finding in after], words
            new = {finding["code"] for finding in after if finding["level"] == "warning"}
            assert new <= set(found), words


@pytest.mark.parametrize("name", ["xavier", "zeros", "sure", "raw"])
def test_what_a_run_stores_cures(initbench: Any, config: Any, tmp_path: Path, name: str) -> None:
    path = config(name)
    said = initbench("run", path, "-q", "seeds=1", "--runs-dir", tmp_path / "runs")
    (record,) = (tmp_path / "runs").glob("*/run.json")
    found = {finding["code"]: finding for finding in json.loads(record.read_text())["diagnosis"]}
    for code in [code for case, code in CURED_BY if case == name]:
        assert CURED_BY[name, code] in [one["change"] for one in found[code]["advice"]]
        for one in found[code]["advice"]:
            assert f"{one['text']} (checked: " in found[code]["message"]
            assert one["change"] in " ".join(said.out.split())
            after = json.loads(initbench("probe", path, *one["change"].split(), "seeds=1", "--json").out)
            assert code not in [finding["code"] for finding in after["diagnosis"]]


def test_residual_sums_are_named_and_not_the_depth(initbench: Any, config: Any) -> None:
    line = printed(initbench("probe", config("residual"), "seeds=3").out, "exploding_forward")
    assert "of the residual stream grows" in line and "a sum" in line
    schemes = {word for words, _ in ways(line) for word in words}
    assert {"init.scheme=fixup", "init.scheme=skipinit"} <= schemes
    assert not any(word.startswith("model.depth") for word in schemes)
