"""Predictions that a run stores: those of `probe`, the same in every cohort, without effect on training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import DataSource
from initbench.data.locate import resolve_dataset
from initbench.data.preprocessing import preprocess
from initbench.diagnostics.net_source import ConfigNets
from initbench.diagnostics.survey import survey
from initbench.probing.theory import no_prediction
from initbench.render.probe_document import survey_document
from initbench.runner.workers.task import WorkerTask
from initbench.runner.workers.task import train as train_task
from initbench.store import record_schema, strict_json
from initbench.theory.bands import STATISTICS, recorded_band, recorded_value
from initbench.train import loop
from initbench.train.events import Diagnosed, Probed, RunEvent
from tests.train import cohorts

SOURCE = DataSource(root=Path("absent"), offline=True)
ONE_STEP = {"steps": 1, "eval_every": 1}
CASES = {
    "bands": {},
    "saturation": {"model": {"activation": "tanh"}},
    "uniform biases": {"init": {"scheme": "torch_default"}},
    "batch norm": {"model": {"norm": "batch"}},
    "maps": {"model": {"family": "cnn", "depth": 3, "width": 8, "stages": 1}, "probe": {"batch": 96}},
    "layers too narrow to trust": {"model": {"depth": 12, "width": 8}},
}


def trained(configs: Sequence[ExperimentConfig], seed: int = 0) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The snapshots at init and the weights of a cohort with one run of each config."""
    resolved = resolve_dataset(configs[0].data, SOURCE)
    task = WorkerTask(
        number=0,
        runs=tuple((config.resolved(), seed) for config in configs),
        resolved=resolved,
        device="cpu",
        mode="vmap" if configs[0].model.family == "mlp" else "single",
        threads=1,
        checkpoint_seconds=math.inf,
    )
    init: dict[int, dict[str, Any]] = {}
    weights: dict[int, bytes] = {}

    def receive(event: RunEvent) -> None:
        match event:
            case Probed(run, {"when": "init"} as snapshot):
                init[run] = snapshot
            case Probed(_, snapshot):
                assert not any("theory" in layer for layer in snapshot["layers"])
            case Diagnosed(run, _, content):
                weights[run] = content

    train_task(task, preprocess(resolved, configs[0].data, "cpu"), receive)
    order = range(len(configs))
    return [init[run] for run in order if run in init], [weights[run] for run in order]


def theories(snapshot: dict[str, Any]) -> list[dict[str, Any] | None]:
    return [layer.get("theory") for layer in snapshot["layers"]]


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
def test_a_run_stores_what_probe_predicts(changes: dict[str, Any], make_config: Any) -> None:
    config = make_config(**changes, train=ONE_STEP, seeds=3)
    (snapshot,), _ = trained([config])
    data = preprocess(resolve_dataset(config.data, SOURCE), config.data, "cpu")
    probed = survey_document(survey(ConfigNets(config, data)))["layers"]
    assert len(probed) == len(snapshot["layers"])
    for said, theory in zip(probed, theories(snapshot), strict=True):
        for name in STATISTICS:
            assert recorded_value(theory, name) == said["predicted"][name], name
            band = recorded_band(theory, name, 3)
            assert (None if band is None else list(band)) == said["band"].get(name), name


def test_the_cases_have_what_they_are_named_after(make_config: Any) -> None:
    def of(case: str) -> list[dict[str, Any] | None]:
        return theories(trained([make_config(**CASES[case], train=ONE_STEP)])[0][0])

    (plain, *_, head), (saturated, *_) = of("bands"), of("saturation")
    assert plain is not None and plain["q"]["trusted"] and plain["q"]["sd"] > 0.0
    assert "saturated_fraction" not in plain and "bias" not in plain
    assert head is not None and set(head) == {"q"}
    assert saturated is not None and saturated["saturated_fraction"]["value"] > 0.0
    biased = of("uniform biases")[-1]
    assert biased is not None
    assert biased["bias"] == {"shift": 0.0, "half_width": pytest.approx(16**-0.5)}
    normed = of("batch norm")[0]
    assert normed is not None and normed["q"]["sd"] is None and not normed["q"]["trusted"]
    narrow = of("layers too narrow to trust")[-1]
    assert narrow is not None and not narrow["q"]["trusted"]


def test_layers_without_a_prediction_have_no_theory(make_config: Any) -> None:
    config = make_config(model={"family": "resnet_mlp"}, train=ONE_STEP)
    (snapshot,), _ = trained([config])
    assert theories(snapshot) == [None] * len(snapshot["layers"])


def test_runs_of_one_cohort_get_the_theory_of_their_own_init(make_config: Any) -> None:
    configs = [
        make_config(name=name, init={"scheme": name}, train=ONE_STEP)
        for name in ("kaiming_normal", "xavier_normal", "kaiming_normal", "torch_default")
    ]
    together, _ = trained(configs)
    alone = [trained([config])[0][0] for config in configs]
    assert [theories(snapshot) for snapshot in together] == [theories(snapshot) for snapshot in alone]
    assert theories(together[0]) == theories(together[2]) != theories(together[1])
    other_seed, _ = trained(configs[:1], seed=5)
    assert theories(other_seed[0]) == theories(alone[0])


def test_a_prediction_is_computed_once_for_each_init(
    monkeypatch: pytest.MonkeyPatch, make_config: Any
) -> None:
    inits: list[str] = []
    predict = loop.predict_network

    def counted(network: Any, init: Any, norm: str, x: torch.Tensor) -> Any:
        inits.append(init.scheme.name)
        return predict(network, init, norm, x)

    monkeypatch.setattr(loop, "predict_network", counted)
    names = ("kaiming_normal", "xavier_normal", "kaiming_normal")
    trained([make_config(init={"scheme": name}, train=ONE_STEP) for name in names])
    assert sorted(inits) == ["kaiming_normal", "xavier_normal"]
    inits.clear()
    trained([make_config(train=ONE_STEP, probe={"when": ["end"]})])
    assert not inits, "no snapshot at init, no prediction"


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_does_not_depend_on_the_prediction(
    optimizer: str, monkeypatch: pytest.MonkeyPatch, make_config: Any
) -> None:
    config = make_config(train={**cohorts.OPTIMIZERS[optimizer], "steps": 6})
    with_theory, weights = trained([config, config])
    monkeypatch.setattr(
        loop, "predict_network", lambda network, *_: no_prediction(len(network.weight_layers()), "none")
    )
    without, same = trained([config, config])
    assert weights == same
    for snapshot, other in zip(with_theory, without, strict=True):
        layers = [{k: v for k, v in layer.items() if k != "theory"} for layer in snapshot["layers"]]
        assert layers == other["layers"] and snapshot["layers"] != layers


def test_a_stored_prediction_passes_the_schema(make_config: Any) -> None:
    for case in ("bands", "uniform biases", "batch norm"):
        (snapshot,), _ = trained([make_config(**CASES[case], train=ONE_STEP)])
        line = strict_json.loads(strict_json.dumps(snapshot))
        assert list(record_schema.SNAPSHOT_LINE(line, "")) == []
