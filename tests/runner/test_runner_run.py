"""One experiment from its config to its stored runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_weights

from initbench.components.target import SampleShape
from initbench.config.loading import load_config
from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import DataSource
from initbench.data.locate import resolve_dataset
from initbench.data.preprocessing import preprocess
from initbench.errors import DataError, DeviceError, StoreError, Terminated, UsageError
from initbench.models.build import build
from initbench.runner import batching, runner
from initbench.runner.device import resolve_device
from initbench.runner.plan import ExperimentOutcome, RunContext, plan
from initbench.runner.run_identity import experiment_identity, training_mode
from initbench.runner.workers import base, task
from initbench.store.store import Store
from initbench.train.cohort import Cohort
from tests.runner.driven import Silent, run_experiment

CPU = torch.device("cpu")


class Watcher(Silent):
    """An Observer that records all events, and raises `error` after step `at`."""

    def __init__(self, error: BaseException | None = None, at: int = 5) -> None:
        super().__init__()
        self.plans: list[tuple[int, int, int | None]] = []
        self.steps: list[int] = []
        self.entries: list[tuple[int, int]] = []
        self._error, self._at = error, at

    def planned(self, config: ExperimentConfig, to_train: int, stored: int, steps: int | None) -> None:
        self.plans.append((to_train, stored, steps))

    def advanced(self, step: int) -> None:
        self.steps.append(step)
        if self._error is not None and step == self._at:
            raise self._error

    def evaluated(self, seed: int, entry: dict[str, Any]) -> None:
        self.entries.append((seed, entry["step"]))


@pytest.fixture
def workplace(tmp_path: Path) -> RunContext:
    source = DataSource(root=tmp_path / "data", offline=True)
    return RunContext(store=Store(tmp_path / "runs"), source=source, device=CPU, workers=1)


@pytest.fixture
def execute(workplace: RunContext) -> Callable[..., tuple[ExperimentOutcome, Watcher]]:
    def run(
        config: ExperimentConfig, *, rerun: bool = False, watcher: Watcher | None = None
    ) -> tuple[ExperimentOutcome, Watcher]:
        watcher = watcher or Watcher()
        return run_experiment(config, workplace, watcher, rerun=rerun), watcher

    return run


def statuses(workplace: RunContext, execution: ExperimentOutcome) -> list[str | None]:
    return [workplace.store.status(run_id) for run_id in execution.run_ids]


def test_every_file_of_a_run_is_there_and_whole(
    make_config: Any, execute: Any, workplace: RunContext
) -> None:
    config = make_config(seeds=[3, 1], train={"eval_every": 8})
    execution, watcher = execute(config)
    assert execution.errors == ()
    assert watcher.plans == [(2, 0, 20)]
    assert watcher.steps == list(range(1, 21))
    assert sorted(watcher.ends) == [("tiny", 1, "finished"), ("tiny", 3, "finished")]
    store = workplace.store
    for run_id, seed in zip(execution.run_ids, (3, 1), strict=True):
        directory = store.directory(run_id)
        assert directory is not None
        assert {path.name for path in directory.iterdir()} - {".lock"} == {
            "config.yaml",
            "run.json",
            "metrics.jsonl",
            "layers.jsonl",
            "summary.jsonl",
            "weights.safetensors",
            "manifest.json",
        }
        assert store.verify(run_id) == []
        run = store.read(run_id)
        assert run_id.startswith(f"tiny-s{seed}-")
        assert [entry["step"] for entry in run.convergence] == [0, 8, 16, 20]
        assert [(s["when"], s["step"]) for s in run.snapshots] == [
            ("init", 0),
            ("train", 8),
            ("train", 16),
            ("end", 20),
        ]
        record = run.record
        assert (record["status"], record["seed"], record["experiment"]) == ("finished", seed, "tiny")
        assert record["dataset"] == record["dataset_requested"] == "digits"
        assert record["samples"] == {
            "train": 1077,
            "val": 360,
            "test": 360,
            "unlabelled": 0,
            "mislabelled": 0,
        }
        assert record["device"] == "cpu"
        assert torch.__version__.startswith(record["versions"]["torch"])
        assert record["parameters"] == 64 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10
        assert record["cohort"] == 2
        assert sum(record["steps_with_threads"].values()) == 20
        assert {"train", "evaluate", "probe", "total"} <= record["timings"].keys()
        last = run.convergence[-1]
        assert record["final"] == {
            "train_loss": last["train_loss"],
            "val_loss": last["val_loss"],
            "val_accuracy": last["val_accuracy"],
            "test_accuracy": record["final"]["test_accuracy"],
        }


def test_the_stored_weights_give_the_stored_numbers(
    make_config: Any, execute: Any, workplace: RunContext
) -> None:
    config = make_config(model={"norm": "batch"})
    execution, _ = execute(config)
    directory = workplace.store.directory(execution.run_ids[0])
    assert directory is not None
    data = preprocess(resolve_dataset(config.data, workplace.source), config.data, CPU)
    net = build(
        config.model, config.init, form=SampleShape((1, 8, 8), 10), seed=7, batch=data.train.x[:4]
    ).eval()
    net.load_state_dict(load_weights((directory / "weights.safetensors").read_bytes()), strict=True)
    final = workplace.store.read(execution.run_ids[0]).record["final"]
    with torch.no_grad():
        for part, split in (("val", data.val), ("test", data.test)):
            assert (net(split.x).argmax(1) == split.y).double().mean() == pytest.approx(
                final[f"{part}_accuracy"]
            )
    assert final["test_accuracy"] > 0.15


def test_a_finished_run_is_not_trained_again(
    make_config: Any, execute: Any, workplace: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = execute(make_config(seeds=2))
    before = [workplace.store.read(run_id) for run_id in first.run_ids]
    with monkeypatch.context() as patch:
        patch.setattr(task, "train", None)
        second, watcher = execute(make_config(seeds=2))
    assert second.run_ids == first.run_ids
    assert watcher.plans == [(0, 2, None)]
    assert (watcher.steps, watcher.entries, watcher.ends) == ([], [], [])
    assert [workplace.store.read(run_id) for run_id in first.run_ids] == before


def test_rerun_trains_again_to_the_same_numbers(
    make_config: Any, execute: Any, workplace: RunContext
) -> None:
    first, _ = execute(make_config())
    before = workplace.store.read(first.run_ids[0])
    second, watcher = execute(make_config(), rerun=True)
    after = workplace.store.read(first.run_ids[0])
    assert second.run_ids == first.run_ids
    assert watcher.steps == list(range(1, 21))
    assert after.record["created"] > before.record["created"]
    assert after.convergence == before.convergence
    assert after.snapshots == before.snapshots


def test_new_seeds_join_stored_ones_and_compute_what_they_would_have_alone(
    make_config: Any, execute: Any, workplace: RunContext
) -> None:
    execute(make_config(seeds=[0, 2]))
    execution, watcher = execute(make_config(seeds=4))
    assert watcher.plans == [(2, 2, 20)]
    assert sorted(seed for _, seed, _ in watcher.ends) == [1, 3]
    joined = workplace.store.read(execution.run_ids[3])
    execute(make_config(seeds=[3]), rerun=True)
    alone = workplace.store.read(execution.run_ids[3])
    assert (joined.record["cohort"], alone.record["cohort"]) == (2, 1)
    assert joined.convergence == alone.convergence
    assert joined.record["final"] == alone.record["final"]


def test_the_resolved_config_runs_again_to_the_same_id(
    make_config: Any, execute: Any, workplace: RunContext
) -> None:
    config = make_config(
        seeds=[5],
        notes="two\nlines",
        model={"norm": {"name": "batch", "momentum": 0.2}},
        train={"optimizer": {"name": "adam"}, "schedule": "cosine"},
    )
    execution, _ = execute(config)
    directory = workplace.store.directory(execution.run_ids[0])
    assert directory is not None
    again = load_config(directory / "config.yaml", [], ExperimentConfig)
    assert again.seed_list == (5,)
    second, watcher = execute(again)
    assert second.run_ids == execution.run_ids
    assert watcher.steps == []


def test_a_fallback_is_recorded_and_trained_once(
    make_config: Any, execute: Any, workplace: RunContext
) -> None:
    """The id covers the set that was used: a stand-in and the set asked for by name are one training."""
    config = make_config(data={"name": "mnist", "fallback": "digits"})
    execution, _ = execute(config)
    record = workplace.store.read(execution.run_ids[0]).record
    assert (record["dataset"], record["dataset_requested"]) == ("digits", "mnist")
    assert record["config"]["data"]["name"] == "digits"
    direct, watcher = execute(make_config())
    assert (direct.run_ids, watcher.steps) == (execution.run_ids, [])
    other, watcher = execute(make_config(data={"name": "mnist", "fallback": "digits", "normalize": "none"}))
    assert other.run_ids != execution.run_ids and watcher.steps, "the preparation is that of the config"
    renamed, _ = execute(make_config(name="other", data={"name": "fashion_mnist", "fallback": "digits"}))
    assert workplace.store.read(renamed.run_ids[0]).record["arm"] == record["arm"]
    with pytest.raises(DataError):
        execute(make_config(data={"name": "mnist"}))


def test_an_exception_in_training_is_stored_with_its_traceback(
    make_config: Any, execute: Any, workplace: RunContext
) -> None:
    execution, _ = execute(make_config(seeds=2), watcher=Watcher(RuntimeError("out of luck"), at=7))
    assert execution.errors == ("RuntimeError: out of luck",)
    assert statuses(workplace, execution) == ["failed", "failed"]
    run = workplace.store.read(execution.run_ids[1])
    assert "Traceback" in run.record["error"]
    assert "RuntimeError: out of luck" in run.record["error"]
    assert run.record["final"] is None
    assert [entry["step"] for entry in run.convergence] == [0, 2, 4, 6]
    again, watcher = execute(make_config(seeds=2))
    assert again.run_ids == execution.run_ids
    assert statuses(workplace, again) == ["finished", "finished"]
    assert watcher.plans == [(2, 0, 20)]


def test_a_run_that_diverged_before_the_failure_keeps_its_result(
    make_config: Any, execute: Any, workplace: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_first_run(monkeypatch)
    execution, _ = execute(make_config(seeds=3), watcher=Watcher(RuntimeError("late"), at=15))
    assert len(execution.errors) == 1
    assert statuses(workplace, execution) == ["diverged", "failed", "failed"]


def poison_first_run(monkeypatch: pytest.MonkeyPatch, step: int = 5) -> None:
    """The first run of a cohort gets an infinite weight after `step` updates."""
    update, calls = Cohort.update, []

    def poisoned(self: Cohort, lr: float) -> None:
        update(self, lr)
        calls.append(lr)
        if len(calls) == step:
            self.parameters["blocks.1.linear.weight"].detach()[0].fill_(float("inf"))

    monkeypatch.setattr(Cohort, "update", poisoned)


def test_a_diverged_run_is_a_result(
    make_config: Any, execute: Any, workplace: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_first_run(monkeypatch)
    execution, watcher = execute(make_config(seeds=3))
    assert execution.errors == ()
    assert statuses(workplace, execution) == ["diverged", "finished", "finished"]
    assert watcher.ends[0] == ("tiny", 0, "diverged")
    record = workplace.store.read(execution.run_ids[0]).record
    assert record["final"] is None
    assert record["diverged"] == {"step": 5, "layer": 2}
    assert "diverged" in [finding["code"] for finding in record["diagnosis"]]
    assert workplace.store.verify(execution.run_ids[0]) == []
    _, watcher = execute(make_config(seeds=3))
    assert watcher.steps == [], "a diverged run is complete"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Terminated(15)])
def test_an_interrupted_run_is_marked_and_taken_up_again(
    make_config: Any, execute: Any, workplace: RunContext, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        execute(make_config(seeds=2), watcher=Watcher(error, at=9))
    records = workplace.store.records()
    assert [record["status"] for record in records] == ["interrupted", "interrupted"]
    assert all(record["final"] is None for record in records)
    execution, _ = execute(make_config(seeds=2))
    assert statuses(workplace, execution) == ["finished", "finished"]


def test_a_batch_larger_than_the_data_is_refused_before_anything_is_claimed(
    make_config: Any, execute: Any, workplace: RunContext
) -> None:
    with pytest.raises(UsageError, match=r"1,077; found 2,000"):
        execute(make_config(train={"batch_size": 2000}))
    assert not workplace.store.root.exists()


@pytest.mark.parametrize("when", [["init", "train", "end"], ["init", "end"], ["init"], []])
def test_snapshots_are_stored_when_asked_for(
    make_config: Any, execute: Any, workplace: RunContext, when: list[str]
) -> None:
    execution, _ = execute(make_config(probe={"when": when}))
    run = workplace.store.read(execution.run_ids[0])
    assert list(dict.fromkeys(snapshot["when"] for snapshot in run.snapshots)) == when
    assert run.record["status"] == "finished"
    for snapshot in run.snapshots:
        assert [layer["index"] for layer in snapshot["layers"]] == [1, 2, 3]
        assert [layer["act"] is None for layer in snapshot["layers"]] == [False, False, True]
        assert len(snapshot["layers"][0]["act"]["histogram"]["counts"]) == 8
        for layer in snapshot["layers"]:
            for histogram in (layer["pre"]["histogram"], layer["grad"]["histogram"]):
                assert list(histogram) == ["span", "counts", "below", "above", "nan"]
                assert len(histogram["counts"]) == 8
                entries = sum(histogram["counts"]) + histogram["below"] + histogram["above"]
                assert (entries, histogram["nan"]) == (layer["units"] * 64, 0)


def test_stored_files_are_strict_json(make_config: Any, execute: Any, workplace: RunContext) -> None:
    execution, _ = execute(make_config(init={"scheme": "zeros"}))
    directory = workplace.store.directory(execution.run_ids[0])
    assert directory is not None

    def refuse(literal: str) -> None:
        raise AssertionError(literal)

    for name in ("run.json", "metrics.jsonl", "layers.jsonl", "manifest.json"):
        for line in (directory / name).read_text(encoding="utf-8").splitlines():
            json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize(
    ("name", "devices", "expected"),
    [
        ("cpu", 2, "cpu"),
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda:0"),
        ("cuda", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_devices(monkeypatch: pytest.MonkeyPatch, name: str, devices: int, expected: str) -> None:
    see(monkeypatch, devices)
    assert str(resolve_device(name)) == expected


@pytest.mark.parametrize(("name", "devices"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2)])
def test_a_device_that_is_not_there_is_never_replaced(
    monkeypatch: pytest.MonkeyPatch, name: str, devices: int
) -> None:
    see(monkeypatch, devices)
    with pytest.raises(DeviceError, match=f"device {name} was asked for"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", "cpu:0", "cuda:0\n"])
def test_other_names_are_no_devices(name: str) -> None:
    with pytest.raises(UsageError, match="choose auto, cpu, cuda or cuda:n"):
        resolve_device(name)


def see(monkeypatch: pytest.MonkeyPatch, devices: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)


def test_the_experiment_leaves_torch_as_it_was(make_config: Any, execute: Any) -> None:
    state = torch.random.get_rng_state()
    before = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.is_grad_enabled()
    execute(make_config())
    after = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.is_grad_enabled()
    assert after == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_identity_is_the_one_runs_are_stored_under(
    make_config: Any, execute: Any, workplace: RunContext
) -> None:
    config = make_config(seeds=2)
    execution, _ = execute(config)
    identity = experiment_identity(config, resolve_dataset(config.data, workplace.source), CPU)
    assert execution.run_ids == tuple(identity.run_id("tiny", seed) for seed in (0, 1))
    arms = {workplace.store.read(run_id).record["arm"] for run_id in execution.run_ids}
    assert arms == {identity.arm}


def test_large_experiments_train_in_several_cohorts(
    make_config: Any, execute: Any, workplace: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, _ = execute(make_config(seeds=5))
    numbers = [workplace.store.read(run_id).convergence for run_id in together.run_ids]
    monkeypatch.setitem(batching.MAX_STACKED, "cpu", 2)
    execution, watcher = execute(make_config(seeds=5), rerun=True)
    runs = [workplace.store.read(run_id) for run_id in execution.run_ids]
    assert [run.record["cohort"] for run in runs] == [2, 2, 2, 2, 1]
    assert [run.convergence for run in runs] == numbers
    assert watcher.plans == [(5, 0, 20)], "one plan for the whole experiment"


def test_runs_that_train_singly_fail_singly(
    make_config: Any, execute: Any, workplace: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = base.train

    def fail_for_seed_1(task: Any, *rest: Any) -> None:
        if task.seeds == (1,):
            raise RuntimeError("out of luck")
        draw(task, *rest)

    monkeypatch.setattr(base, "train", fail_for_seed_1)
    config = make_config(seeds=3, model={"width": 17, "activation": "sigmoid"})
    execution, watcher = execute(config)
    assert statuses(workplace, execution) == ["finished", "failed", "finished"]
    assert execution.errors == ("RuntimeError: out of luck",)
    assert watcher.plans == [(3, 0, 20)]


def test_a_run_that_another_process_has_leaves_its_neighbours_free(
    make_config: Any, execute: Any, workplace: RunContext
) -> None:
    config = make_config(seeds=3)
    ids = plan(config, workplace).run_ids
    with pytest.raises(StoreError, match=rf"{ids[1]} is running"), workplace.store.claim(ids[1], {}, ""):
        execute(config)
    assert [workplace.store.status(ids[seed]) for seed in (0, 2)] == ["interrupted", None]


def test_what_fails_before_the_first_step_is_stored_too(
    make_config: Any, execute: Any, workplace: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise RuntimeError("cannot allocate memory")

    monkeypatch.setattr(task, "build_networks", no_memory)
    execution, _ = execute(make_config())
    assert statuses(workplace, execution) == ["failed"]
    assert "cannot allocate" in workplace.store.read(execution.run_ids[0]).record["error"]


def test_on_a_gpu_everything_is_stacked(make_config: Any) -> None:
    config = make_config(model={"width": 17, "activation": "sigmoid"})
    assert training_mode(config, CPU) == "single"
    assert training_mode(config, torch.device("cuda", 0)) == "vmap"


def test_bf16_is_another_computation(make_config: Any, execute: Any, workplace: RunContext) -> None:
    exact, _ = execute(make_config())
    rough, _ = execute(make_config(train={"precision": "bf16"}))
    assert exact.run_ids != rough.run_ids
    one, other = (workplace.store.read(execution.run_ids[0]) for execution in (exact, rough))
    assert (one.record["precision"], other.record["precision"]) == ("fp32", "bf16")
    assert one.snapshots[0] == other.snapshots[0], "the same net at init, probed in float32"
    losses = [(a["val_loss"], b["val_loss"]) for a, b in zip(one.convergence, other.convergence, strict=True)]
    assert all(a != b for a, b in losses), "no step was made in float32"
    assert all(a == pytest.approx(b, rel=0.05) for a, b in losses)
    again, _ = execute(make_config(seeds=2, train={"precision": "bf16"}), rerun=True)
    assert workplace.store.read(again.run_ids[0]).convergence == other.convergence


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("device", [CPU, torch.device("cuda", 0)])
def test_the_mode_is_that_of_the_config_and_device(
    make_config: Any, precision: str, device: torch.device
) -> None:
    model = {"family": "cnn", "depth": 4, "width": 8}
    data = {"name": "mnist"}
    assert training_mode(make_config(train={"precision": precision}), device) == "vmap"
    convolutions = make_config(model=model, data=data, train={"precision": precision})
    assert training_mode(convolutions, device) == ("single" if device == CPU else "vmap")


@pytest.mark.parametrize(("precision", "has_units"), [("bf16", False), ("bf16", True), ("fp32", False)])
def test_a_processor_without_bf16_is_reported_once(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, has_units: bool
) -> None:
    said: list[str] = []
    source = DataSource(root=tmp_path / "data", offline=True, notify=said.append)
    context = RunContext(store=Store(tmp_path / "runs"), source=source, device=CPU, workers=1)
    monkeypatch.setattr(runner, "has_bf16_units", lambda: has_units)
    train = {"precision": precision, "steps": 2}
    with runner.Runner(context, Silent()) as trainer:
        for name in ("one", "two"):
            trainer.run([make_config(name=name, train=train)])
    expected = [] if has_units or precision == "fp32" else [said[0]]
    assert said == expected
    assert all("no bf16 instructions" in sentence for sentence in said)
