"""Settings that a run id covers, and those that it does not."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import LocatedDataset
from initbench.data.locate import ResolvedDataset
from initbench.runner import run_identity
from initbench.runner.run_identity import Identity, experiment_identity

CPU = torch.device("cpu")


def no_data() -> Any:
    raise AssertionError("the identity needs no tensors")


LOCATED = LocatedDataset(name="digits", fingerprint="abc", load=no_data)
RESOLVED = ResolvedDataset(requested="digits", located=LOCATED)


def run_id(
    config: ExperimentConfig, resolved: ResolvedDataset = RESOLVED, device: torch.device = CPU, seed: int = 0
) -> str:
    return experiment_identity(config, resolved, device).run_id(config.name, seed)


def test_an_id_reads_name_seed_digest(make_config: Any) -> None:
    assert re.fullmatch(r"tiny-s12-[0-9a-f]{10}", run_id(make_config(), seed=12))


def test_seed_data_and_kind_of_device_change_it(make_config: Any) -> None:
    config = make_config()
    other_contents = ResolvedDataset(requested="digits", located=replace(LOCATED, fingerprint="abd"))
    other_set = ResolvedDataset(requested="digits", located=replace(LOCATED, name="mnist"))
    digests = [
        run_id(config).rpartition("-")[2],
        run_id(config, seed=1).rpartition("-")[2],
        run_id(config, other_contents).rpartition("-")[2],
        run_id(config, other_set).rpartition("-")[2],
        run_id(config, device=torch.device("cuda", 0)).rpartition("-")[2],
    ]
    assert len(set(digests)) == len(digests)
    cuda = [run_id(config, device=torch.device("cuda", index)) for index in (0, 1)]
    assert cuda[0] == cuda[1], "the kind of device matters, not which of them"


CHANGES: list[dict[str, Any]] = [
    {"model": {"depth": 4}},
    {"model": {"width": 17}},
    {"model": {"bias": False}},
    {"model": {"activation": "tanh"}},
    {"model": {"activation": {"name": "leaky_relu", "negative_slope": 0.3}}},
    {"model": {"norm": "batch"}},
    {"model": {"norm_placement": "after_activation"}},
    {"init": {"scheme": "xavier_normal"}},
    {"init": {"gain": 2.0}},
    {"init": {"bias": 0.1}},
    {"init": {"head": "zeros"}},
    {"train": {"steps": 21}},
    {"train": {"lr": 0.051}},
    {"train": {"batch_size": 31}},
    {"train": {"optimizer": "adam"}},
    {"train": {"weight_decay": 1e-4}},
    {"train": {"eval_every": 3}},
    {"data": {"normalize": "none"}},
    {"probe": {"bins": 9}},
]


def test_every_change_of_the_config_changes_it(make_config: Any) -> None:
    ids = {run_id(make_config()), *(run_id(make_config(**change)) for change in CHANGES)}
    assert len(ids) == len(CHANGES) + 1


def test_what_changes_no_number_does_not_change_it(make_config: Any) -> None:
    config = make_config()
    assert run_id(make_config(seeds=7)) == run_id(config)
    assert run_id(make_config(seeds=[0, 9])) == run_id(config)
    assert run_id(make_config(notes="look here")) == run_id(config)
    assert run_id(make_config(name="other")).rpartition("-")[2] == run_id(config).rpartition("-")[2]
    written_out = ExperimentConfig.model_validate(config.resolved())
    assert run_id(written_out) == run_id(config), "a default written out is the same config"
    backwards = ExperimentConfig.model_validate(reversed_keys(config.resolved()))
    assert run_id(backwards) == run_id(config)


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return value


def test_the_digest_does_not_depend_on_the_order_of_its_parts() -> None:
    one, two = Identity({"a": {"x": 1, "y": [1, 2]}, "b": 2}), Identity({"b": 2, "a": {"y": [1, 2], "x": 1}})
    assert one.arm == two.arm
    assert one.arm != Identity({"a": {"x": 1, "y": [2, 1]}, "b": 2}).arm


def test_torch_and_the_code_change_it(make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_id(make_config())
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "9.9.9")
        assert run_id(make_config()) != before
    monkeypatch.setattr(run_identity, "cached_code_fingerprint", lambda _config, _dataset: "other")
    assert run_id(make_config()) != before
