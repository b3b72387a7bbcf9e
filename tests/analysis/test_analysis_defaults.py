"""Missing keys of stored configs get the defaults that the schema would fill in."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from initbench.analysis.grouping import share_batches
from initbench.analysis.recorded_defaults import with_defaults
from initbench.analysis.regression.changes import compare_states
from initbench.analysis.regression.reference import ReferenceRuns
from initbench.analysis.run_summary import RunSummary, computation_keys
from initbench.analysis.tables import build_tables
from initbench.config.loading import load_config
from initbench.config.schema import ExperimentConfig
from initbench.errors import InitbenchError
from tests.analysis.stored_runs import CONFIG, stored

CONFIGS = Path(__file__).parents[2] / "configs"
OPTIONS = [
    ["model.norm=batch", "train.optimizer=adam", "train.schedule=cosine"],
    ["init.scheme=autoencoder", "train.steps=null", "train.epochs=1", "data.name=digits"],
    ["init.scheme=lsuv", "model.activation=leaky_relu", "data.name=gaussian"],
]


def paths(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*at, key)
            yield from paths(inner, (*at, key))


def without(config: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    stripped = copy.deepcopy(config)
    place = stripped
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return stripped


def check(config: dict[str, Any]) -> int:
    """Remove each key in turn, compare the result with the schema, and return the number of keys compared."""
    compared = 0
    for path in paths(config):
        stripped = without(config, path)
        try:
            expected = ExperimentConfig.model_validate(stripped).resolved()
        except (InitbenchError, ValueError):  # a key without a default, or one that others need
            continue
        if path[0] == "train":  # the schema writes the default budget out, and gives none with epochs
            expected["train"]["steps"] = with_defaults(stripped)["train"]["steps"]
        assert with_defaults(stripped) == expected, path
        compared += 1
    return compared


@pytest.mark.parametrize("name", ["relu_zeros", "tanh_orthogonal", "relu_xavier_batchnorm"])
def test_every_key_is_filled_in_as_the_schema_does(name: str):
    assert check(load_config(CONFIGS / f"{name}.yaml", [], ExperimentConfig).resolved()) > 20


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_so_are_those_of_components(options: list[str]):
    assert check(load_config(CONFIGS / "relu_kaiming.yaml", options, ExperimentConfig).resolved()) > 20


def test_what_is_there_stays():
    given = {"train": {"lr": 0.5, "clip_norm": None, "precision": None, "gone": 7}, "new": {"x": 1}}
    filled = with_defaults(given)
    assert filled["train"]["precision"] is None and filled["train"]["clip_norm"] is None
    assert (filled["train"]["lr"], filled["train"]["gone"], filled["new"]) == (0.5, 7, {"x": 1})
    assert given == {"train": {"lr": 0.5, "clip_norm": None, "precision": None, "gone": 7}, "new": {"x": 1}}


@pytest.mark.parametrize("odd", [7, None, [], "no such norm", {"name": "no such norm"}, {"name": 7}, {}])
def test_what_is_no_component_stays(odd: object):
    assert with_defaults({"model": {"family": "mlp", "norm": odd}})["model"]["norm"] == odd
    assert with_defaults({"model": odd, "train": odd}) | {"model": odd, "train": odd}


def test_a_component_that_has_got_its_first_option(monkeypatch: pytest.MonkeyPatch):
    """A name and a mapping with the option at its default yield the same keys."""
    entry = {"tag": "name", "entries": {"plain": {}, "rich": {"x": {"default": 1}}}}
    table = {"keys": {"norm": {"choice": "norm", "default": "plain"}}, "choices": {"norm": entry}}
    monkeypatch.setattr("initbench.analysis.recorded_defaults._load_table", lambda: table)
    assert with_defaults({}) == with_defaults({"norm": "plain"}) == {"norm": "plain"}
    assert with_defaults({"norm": "rich"}) == with_defaults({"norm": {"name": "rich"}})
    assert computation_keys(with_defaults({"norm": "rich"})) == {"norm": "rich", "norm.x": 1}


OLD = {"data": {"name": "digits"}, "train": {"lr": 0.1, "batch_size": 128}}


def of_both(**new: Any) -> tuple[list[RunSummary], list[RunSummary]]:
    """Return runs of one experiment before and after keys were added; `new` are values of added data keys."""
    full = with_defaults(json.loads(json.dumps({**CONFIG, **OLD})))
    full["data"] |= new
    before = [stored("a", seed, config=OLD, identity={"code": "old"}, arm="old") for seed in range(3)]
    now = [stored("a", seed, config=full, identity={"code": "new"}, arm="new") for seed in range(3)]
    return before, [replace(run, created="2026-02-01") for run in now]


def test_added_keys_at_their_defaults_set_nothing_apart():
    before, now = of_both()
    found = compare_states(build_tables(now), ReferenceRuns(build_tables(before)))
    assert len(found.rows) == 1 and not found.only_now and not found.only_before
    assert share_batches([*before, *now])
    (table,) = build_tables([*before, *now])
    assert sorted(row.label for row in table.rows) == ["a with.code=new", "a with.code=old"]


def test_added_keys_with_another_value_are_a_change_that_is_told():
    before, now = of_both(label_noise=0.5)
    found = compare_states(build_tables(now), ReferenceRuns(build_tables(before)))
    assert [row.config_changes for row in found.rows] == [["data.label_noise: 0.0 → 0.5"]]
    assert not share_batches([*before, *now])
