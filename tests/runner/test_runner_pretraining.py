"""Pre-training as part of a run: stored, resumed in the middle, charged, shown and compared."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from initbench.analysis.metrics import METRICS
from initbench.analysis.run_summary import summarise_run
from initbench.config.loading import load_mapping
from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import DataSource
from initbench.data.locate import resolve_dataset
from initbench.data.preprocessing import preprocess
from initbench.diagnostics.net_source import ConfigNets
from initbench.diagnostics.survey import survey
from initbench.errors import ConfigError, Terminated, UsageError
from initbench.runner import runner
from initbench.runner.plan import ExperimentOutcome, RunContext
from initbench.store.store import Store
from initbench.train.events import Pretrained
from tests.conftest import TINY, merged
from tests.runner.driven import Silent, run_experiment

CPU = torch.device("cpu")
STEPS, LAYERS = 6, 2
SCHEME = {"name": "autoencoder", "steps": STEPS, "lr": 0.01, "batch_size": 32, "tied": False}


class Stopper(Silent):
    """An Observer that interrupts after given numbers of updates, of pre-training and then of training."""

    def __init__(self, at: float = math.inf) -> None:
        super().__init__()
        self.at = at
        self.strides: list[Pretrained] = []
        self.steps: list[int] = []

    def pretrained(self, event: Pretrained) -> None:
        self.strides.append(event)
        self._stop()

    def advanced(self, step: int) -> None:
        self.steps.append(step)
        self._stop()

    def _stop(self) -> None:
        if len(self.strides) + len(self.steps) == self.at:
            raise Terminated(15)


@pytest.fixture
def places(tmp_path: Path) -> Callable[[str], RunContext]:
    def make(name: str, workers: int = 1) -> RunContext:
        source = DataSource(root=tmp_path / "data", offline=True)
        return RunContext(store=Store(tmp_path / name), source=source, device=CPU, workers=workers)

    return make


def contents(store: Store, execution: ExperimentOutcome) -> list[Any]:
    """All numbers of the runs but times, and the bytes of their weights."""
    found = []
    for run_id in execution.run_ids:
        run = store.read(run_id)
        kept = {key: run.record[key] for key in ("status", "final", "diagnosis", "steps", "seed")}
        layers = run.record["pretraining"]["layers"]
        weights = (Path(str(store.directory(run_id))) / "weights.safetensors").read_bytes()
        found.append((kept, layers, run.convergence, run.snapshots, weights))
    return found


MADE = LAYERS * STEPS
"""Updates of a whole pre-training."""


@pytest.mark.parametrize(
    "moments",
    [(1, STEPS, MADE, MADE + 4), pytest.param((3, STEPS + 2, MADE + 1), marks=pytest.mark.slow)],
    ids=["first", "others"],
)
@pytest.mark.parametrize(
    ("model", "scheme"),
    [
        ({"activation": "sigmoid"}, {"kind": "denoising"}),
        ({"norm": "batch"}, {}),
        ({"activation": "tanh", "width": 17}, {"kind": "contractive"}),
    ],
)
def test_a_run_stopped_in_the_middle_of_pre_training_goes_on(
    make_config: Any,
    places: Any,
    monkeypatch: pytest.MonkeyPatch,
    model: Any,
    scheme: Any,
    moments: tuple[int, ...],
) -> None:
    monkeypatch.setattr(runner, "CHECKPOINT_SECONDS", 0.0)
    config = make_config(seeds=2, model=model, init={"scheme": {**SCHEME, **scheme}}, train={"steps": 5})
    whole, cohorts = places("whole"), 2 if model.get("width") == 17 else 1
    expected = contents(whole.store, run_experiment(config, whole, Stopper(), rerun=False))
    for at in moments:
        parts = places(f"parts{at}")
        with pytest.raises(Terminated):
            run_experiment(config, parts, Stopper(at), rerun=False)
        watcher = Stopper()
        execution = run_experiment(config, parts, watcher, rerun=False)
        assert contents(parts.store, execution) == expected, at
        # A checkpoint follows every update but the last of a layer; the interrupt comes before its own.
        kept = max((i for i in range(1, at) if i < MADE and i % STEPS), default=0)
        remade = 0 if at > MADE + 1 else MADE - kept
        if cohorts == 1:
            assert len(watcher.strides) == remade, at


def test_workers_and_cohorts_change_nothing(make_config: Any, places: Any) -> None:
    config = make_config(seeds=3, init={"scheme": SCHEME}, train={"steps": 5})
    here, there = places("here"), places("there", workers=2)
    watcher = Stopper()
    expected = contents(here.store, run_experiment(config, here, Stopper(), rerun=False))
    found = run_experiment(config, there, watcher, rerun=False)
    assert contents(there.store, found) == expected
    assert {(s.layer, s.step) for s in watcher.strides} >= {(1, STEPS), (2, STEPS)}


def test_the_cost_is_charged_to_the_run_and_compared(make_config: Any, places: Any) -> None:
    place = places("runs")
    runs = {}
    for name, scheme in (("pre", SCHEME), ("plain", "xavier_normal")):
        config = make_config(name=name, seeds=2, init={"scheme": scheme}, train={"steps": 5})
        execution = run_experiment(config, place, Stopper(), rerun=False)
        runs[name] = place.store.read(execution.run_ids[0])
    record = runs["pre"].record
    found = record["pretraining"]
    assert (found["steps"], found["samples"]) == (LAYERS * STEPS, LAYERS * STEPS * 32)
    assert record["timings"]["pretrain"] == found["seconds"] > 0.0
    times = record["timings"]
    assert times["total"] == pytest.approx(sum(times[k] for k in ("pretrain", "train", "evaluate", "probe")))
    assert "pretraining" not in runs["plain"].record and "pretrain" not in runs["plain"].record["timings"]
    pre, plain = (summarise_run(runs[name]) for name in ("pre", "plain"))

    def value(name: str, run: Any, target: float = 0.0) -> Any:
        return METRICS[name].value(run, target)

    assert value("pretrain_samples", pre) == 384 and value("pretrain_samples", plain) is None
    assert value("pretrain_seconds", pre) == pytest.approx(found["seconds"] / 2)
    assert value("total_samples_to_target", pre) == 384  # at step 0 already, by a target of 0
    assert value("total_samples_to_target", plain) == 0
    gap = value("total_seconds_to_target", pre) - value("seconds_to_target", pre)
    assert gap == pytest.approx(found["seconds"] / 2)
    assert value("total_seconds_to_target", plain) == value("seconds_to_target", plain)
    assert value("total_samples_to_target", pre, 2.0) is None


def test_a_survey_shows_nets_as_they_are_after_pre_training(make_config: Any, places: Any) -> None:
    """The survey has the numbers of the run's probe at init, and no prediction by theory."""
    config = make_config(init={"scheme": SCHEME}, model={"activation": "tanh"}, train={"steps": 5})
    place = places("runs")
    (run_id,) = run_experiment(config, place, Stopper(), rerun=False).run_ids
    stored = place.store.read(run_id).snapshots[0]["layers"]
    data = preprocess(resolve_dataset(config.data, place.source), config.data, CPU)
    seen = survey(ConfigNets(config, data))
    assert [layer.measured[0]["q"] for layer in seen.layers] == [layer["pre"]["q"] for layer in stored]
    assert all(layer.wide_q is None for layer in seen.expected.layers)


def test_tables_and_lines_say_what_was_pre_trained(initbench: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "name: a\nseeds: 2\ndata: {name: digits, labelled: 60}\n"
        "model: {family: mlp, depth: 3, width: 16, activation: sigmoid}\n"
        "init: {scheme: {name: autoencoder, steps: 5}}\ntrain: {steps: 4, batch_size: 32}\n",
        encoding="utf-8",
    )
    said = initbench("run", path, "--runs-dir", tmp_path / "runs")
    assert said.code == 0, said.err
    assert "Pre-training" in said.out and "remaining %" in said.out
    assert "plain auto-encoders" in said.out and "per run: 10 updates, 320 samples" in said.out
    compared = initbench("compare", "a", "--view", "convergence", "--runs-dir", tmp_path / "runs")
    assert compared.code == 0 and "pre-training s" in compared.out
    told = json.loads(initbench("compare", "a", "--format", "json", "--runs-dir", tmp_path / "runs").out)
    assert json.dumps(told).count("pretrain_samples") >= 1
    linted = initbench("lint", path)
    assert linted.code in (0, 1) and "Traceback" not in linted.err


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({"family": "resnet_mlp"}, {}, "init.scheme", "one hidden layer after the other"),
    ({"depth": 1}, {}, "init.scheme", "no hidden layer at model.depth=1"),
    ({"norm": "weight"}, {}, "init.scheme", "model.norm=weight computes"),
    ({"activation": "crelu"}, {}, "init.scheme", "tied=false"),
    ({"activation": "relu"}, {"loss": "bce"}, "init.scheme", "put out 0 to 1"),
    ({"norm": "batch"}, {"batch_size": 1}, "init.scheme.batch_size", "at least 2 samples a batch"),
    ({"norm": "batch"}, {"kind": "contractive"}, "init.scheme", "without model.norm=batch"),
    ({"activation": "prelu"}, {"kind": "contractive"}, "init.scheme", "without parameters"),
    ({"family": "cnn", "width": 4, "depth": 4}, {"kind": "contractive"}, "init.scheme", "dense layers alone"),
]


@pytest.mark.parametrize(("model", "scheme", "key", "said"), REFUSED)
def test_what_cannot_be_pre_trained_is_refused(model: Any, scheme: Any, key: str, said: str) -> None:
    data = merged(TINY, {"model": model, "init": {"scheme": {"name": "autoencoder", **scheme}}})
    with pytest.raises(ConfigError) as caught:
        load_mapping(data, [], ExperimentConfig)
    (issue,) = caught.value.issues
    assert issue.key == key
    assert said in issue.problem


def test_a_head_is_not_pre_trained(make_config: Any) -> None:
    with pytest.raises(Exception, match=r"init.head=autoencoder is for hidden layers"):
        make_config(init={"head": "autoencoder"})


def test_inputs_beyond_0_and_1_have_no_cross_entropy(make_config: Any, places: Any) -> None:
    scheme = {**SCHEME, "loss": "bce"}
    refused = make_config(model={"activation": "sigmoid"}, init={"scheme": scheme}, train={"steps": 2})
    with pytest.raises(UsageError, match=r"data.normalize=none"):
        run_experiment(refused, places("runs"), Stopper(), rerun=False)
    fine = make_config(
        data={"normalize": "none"},
        model={"activation": "sigmoid"},
        init={"scheme": scheme},
        train={"steps": 2},
    )
    assert not run_experiment(fine, places("runs"), Stopper(), rerun=False).errors
    large = make_config(init={"scheme": {**SCHEME, "batch_size": 5000}}, train={"steps": 2})
    with pytest.raises(UsageError, match=r"init.scheme.batch_size must be from 1"):
        run_experiment(large, places("runs"), Stopper(), rerun=False)
