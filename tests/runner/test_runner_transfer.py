"""Runs that start from the weights of others: paired by seed, named by content, refused where in doubt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from initbench.data.dataset import DataSource
from initbench.errors import ConfigError, DataError, InitbenchError, StoreError, Terminated
from initbench.pretrain.torchvision_weights import published
from initbench.runner import runner
from initbench.runner.plan import ExperimentOutcome, RunContext
from initbench.store.store import Store
from tests.runner.driven import Silent, run_experiment

CPU = torch.device("cpu")
FIRST, SECOND = {"name": "digits", "classes": [0, 1, 2, 3, 4]}, {"name": "digits", "classes": [5, 6, 7, 8, 9]}


class Observer(Silent):
    """Sees nothing, and interrupts after update number `at`."""

    def __init__(self, at: int | None = None) -> None:
        super().__init__()
        self.at = at

    def advanced(self, step: int) -> None:
        if step == self.at:
            raise Terminated(15)


@pytest.fixture
def place(tmp_path: Path) -> RunContext:
    source = DataSource(root=tmp_path / "data", offline=True)
    return RunContext(store=Store(tmp_path / "runs"), source=source, device=CPU, workers=1)


@pytest.fixture
def task_b(make_config: Any) -> Callable[..., Any]:
    def make(source: str = "task_a", **changes: Any) -> Any:
        scheme = {"name": "pretrained", "from": source, **changes.pop("scheme", {})}
        init = {"scheme": scheme, **changes.pop("init", {"head": "kaiming_normal"})}
        train = {"eval_every": 5, **changes.pop("train", {})}
        return make_config(
            **{"name": "task_b", "data": SECOND, "seeds": 2, **changes}, init=init, train=train
        )

    return make


def run(config: Any, place: RunContext, at: int | None = None, *, rerun: bool = False) -> ExperimentOutcome:
    execution = run_experiment(config, place, Observer(at), rerun=rerun)
    assert not execution.errors, execution.errors
    return execution


@pytest.fixture
def first(make_config: Any, place: RunContext) -> ExperimentOutcome:
    """Task A, which batch norm gives buffers to."""
    return run(make_config(name="task_a", data=FIRST, model={"norm": "batch"}, seeds=2), place)


def weights(place: RunContext, run_id: str) -> dict[str, torch.Tensor]:
    directory = place.store.directory(run_id)
    assert directory is not None
    return load_file(directory / "weights.safetensors")


def result(place: RunContext, run_id: str) -> tuple[Any, ...]:
    stored = place.store.read(run_id)
    return stored.record["final"], stored.convergence, stored.snapshots


NORMED = {"model": {"norm": "batch"}}


def test_each_seed_starts_from_the_run_of_its_own_seed(
    first: ExperimentOutcome, place: RunContext, task_b: Any
) -> None:
    """Frozen layers show at the end what they were given, buffers too; the head has moved from its draw."""
    second = run(task_b(scheme={"freeze": "all_but_head"}, **NORMED), place)
    arms = set()
    for seed, (run_a, run_b) in enumerate(zip(first.run_ids, second.run_ids, strict=True)):
        a, b = weights(place, run_a), weights(place, run_b)
        for name in a:
            assert torch.equal(a[name], b[name]) is not name.startswith("head."), name
        record = place.store.read(run_b).record
        transfer = record["transfer"]
        assert (transfer["source"], record["seed"]) == (run_a, seed)
        assert transfer["drawn"] == dict.fromkeys(["head.weight", "head.bias"], "init.head draws it")
        assert transfer["frozen"] == ["blocks.0.linear", "blocks.1.linear"]
        assert record["identity"]["weights"] == transfer["sha256"]
        assert record["identity"]["origin"] == place.store.read(run_a).record["arm"]
        arms.add(record["arm"])
    assert len(arms) == 1
    assert not torch.equal(*[weights(place, run_b)["blocks.0.linear.weight"] for run_b in second.run_ids])


def test_the_same_weights_from_a_run_a_file_and_a_state_dict_are_one_run(
    first: ExperimentOutcome, place: RunContext, task_b: Any, tmp_path: Path
) -> None:
    tensors = weights(place, first.run_ids[0])
    save_file(dict(reversed(tensors.items())), tmp_path / "a.safetensors", metadata={"note": "other bytes"})
    torch.save(tensors, tmp_path / "a.pt")
    sources = [first.run_ids[0], str(tmp_path / "a.safetensors"), str(tmp_path / "a.pt")]
    ids = {run(task_b(source, seeds=1, **NORMED), place).run_ids for source in sources}
    assert len(ids) == 1
    tensors["blocks.0.linear.weight"][0, 0] += 1e-6
    save_file(tensors, tmp_path / "a.safetensors")
    other = run(task_b(sources[1], seeds=1, **NORMED), place)
    assert other.run_ids not in ids
    arms = [place.store.read(run_id).record["arm"] for run_id in (*ids.pop(), *other.run_ids)]
    assert arms[0] != arms[1]


def test_interrupted_runs_go_on_as_if_they_had_not_been(
    first: ExperimentOutcome, place: RunContext, task_b: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With momentum, a frozen layer and two learning rates, so that the optimizer's state is in groups."""
    monkeypatch.setattr(runner, "CHECKPOINT_SECONDS", 0.0)
    optimizer = {"name": "sgd", "momentum": 0.9}
    train = {"optimizer": optimizer, "lr_factors": {"body": 0.3}, "batch_size": 64}  # a cohort of two
    config = task_b(scheme={"freeze": "first_1"}, train=train, **NORMED)
    whole = run(config, place)
    expected = [(result(place, run_id), weights(place, run_id)) for run_id in whole.run_ids]
    for run_id in whole.run_ids:
        place.store.remove(run_id)
    with pytest.raises(Terminated):
        run(config, place, at=12)
    assert [place.store.checkpoint_step(run_id) for run_id in whole.run_ids] == [11, 11]
    assert run(config, place).run_ids == whole.run_ids
    for run_id, (numbers, tensors) in zip(whole.run_ids, expected, strict=True):
        assert result(place, run_id) == numbers
        assert all(torch.equal(t, tensors[name]) for name, t in weights(place, run_id).items())
    assert run(config, place, rerun=True).run_ids == whole.run_ids
    assert [result(place, run_id) for run_id in whole.run_ids] == [numbers for numbers, _ in expected]


@pytest.mark.slow
def test_workers_start_from_the_same_weights(
    first: ExperimentOutcome, place: RunContext, task_b: Any
) -> None:
    config = task_b(**NORMED)
    here = run(config, place)
    numbers = [result(place, run_id) for run_id in here.run_ids]
    with_workers = RunContext(store=place.store, source=place.source, device=CPU, workers=2)
    run(config, with_workers, rerun=True)
    assert [result(place, run_id) for run_id in here.run_ids] == numbers


class TestRefused:
    def said(self, kind: type[InitbenchError], config: Any, place: RunContext) -> str:
        with pytest.raises(kind) as caught:
            run(config, place)
        return str(caught.value)

    def test_names_that_are_not_stored(
        self, first: ExperimentOutcome, place: RunContext, task_b: Any
    ) -> None:
        assert "did you mean 'task_a'?" in self.said(ConfigError, task_b("task_aa"), place)
        three = task_b(seeds=3, **NORMED)
        assert "no finished run of seed 2: there are seeds 0, 1" in self.said(ConfigError, three, place)

    def test_an_empty_store(self, place: RunContext, task_b: Any) -> None:
        assert "contains no runs (a file's path" in self.said(ConfigError, task_b(), place)

    def test_two_runs_of_one_seed(
        self, first: ExperimentOutcome, make_config: Any, place: RunContext, task_b: Any
    ) -> None:
        again = run(make_config(name="task_a", data=FIRST, seeds=1), place)
        told = self.said(ConfigError, task_b(**NORMED), place)
        assert "2 finished runs of seed 0: name one, of" in told
        assert first.run_ids[0] in told and again.run_ids[0] in told

    def test_a_run_that_is_damaged(self, first: ExperimentOutcome, place: RunContext, task_b: Any) -> None:
        directory = place.store.directory(first.run_ids[1])
        assert directory is not None
        content = bytearray((directory / "weights.safetensors").read_bytes())
        content[-1] ^= 1
        (directory / "weights.safetensors").write_bytes(content)
        assert "is damaged: weights.safetensors" in self.said(StoreError, task_b(**NORMED), place)

    def test_a_run_that_diverged(self, make_config: Any, place: RunContext, task_b: Any) -> None:
        lost = run(make_config(name="task_a", data=FIRST, train={"lr": 1e30}, seeds=1), place)
        told = self.said(ConfigError, task_b(lost.run_ids[0]), place)
        assert "is diverged, and only a finished run" in told
        assert "none of its runs is finished" in self.said(ConfigError, task_b(), place)

    def test_files_that_hold_no_weights(self, place: RunContext, task_b: Any, tmp_path: Path) -> None:
        path = tmp_path / "w.safetensors"
        assert "is not there" in self.said(DataError, task_b(str(path)), place)
        path.write_bytes(b"\x10\0\0\0\0\0\0\0{broken")
        assert "cannot be read as a safetensors file" in self.said(DataError, task_b(str(path)), place)
        save_file({"head.weight": torch.tensor([[float("nan")]])}, path)
        assert "head.weight holds values that are NaN" in self.said(DataError, task_b(str(path)), place)
        other = tmp_path / "w.pt"
        torch.save({"model": {"head.weight": torch.zeros(2)}, "epoch": 3}, other)
        assert "holds a mapping with 'model', 'epoch'" in self.said(DataError, task_b(str(other)), place)
        other.write_bytes(b"PK\x03\x04 torn")
        assert "cannot be read as a state_dict" in self.said(DataError, task_b(str(other)), place)

    def test_code_in_a_state_dict_is_not_run(self, place: RunContext, task_b: Any, tmp_path: Path) -> None:
        mark, path = tmp_path / "mark", tmp_path / "w.pt"

        class Evil:
            def __reduce__(self) -> Any:
                return (Path.touch, (mark,))

        torch.save({"head.weight": Evil()}, path)
        assert "cannot be read as a state_dict" in self.said(DataError, task_b(str(path)), place)
        assert not mark.exists()

    def test_an_experiment_of_its_own_name(self, task_b: Any) -> None:
        with pytest.raises(ValueError, match="cannot start from its own runs"):
            task_b("task_b")


class TestPublished:
    NAME = "ResNet18_Weights.IMAGENET1K_V1"

    def of(self, make_config: Any, tmp_path: Path) -> dict[str, torch.Tensor]:
        model = make_config(data={"name": "cifar10"}, model={"family": "torchvision"}).model
        return published(self.NAME, model, DataSource(root=tmp_path, offline=True))

    def test_offline_says_where_the_file_goes(
        self, make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        with pytest.raises(DataError, match=r"is not fetched offline: .* put resnet18-\w{8}\.pth into"):
            self.of(make_config, tmp_path)

    def test_another_file_of_that_name_is_refused(
        self, make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from torchvision.models import get_weight

        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        path = tmp_path / "checkpoints" / get_weight(self.NAME).url.rpartition("/")[2]
        path.parent.mkdir()
        path.write_bytes(b"something else")
        assert not hashlib.sha256(b"something else").hexdigest().startswith(path.stem[-8:])
        with pytest.raises(DataError, match="is not the file that was published as"):
            self.of(make_config, tmp_path)


def test_the_shipped_pair_runs_and_says_what_was_taken(
    initbench: Any, repository: Path, tmp_path: Path
) -> None:
    pair = [repository / "configs" / f"transfer_digits_{task}.yaml" for task in ("source", "target")]
    runs = ("--runs-dir", tmp_path)
    said = initbench("run", *pair, "train.steps=20", "seeds=2", "-q", "--offline", *runs)
    assert said.code == 0, said.err
    assert "Transfer  from transfer_digits_source-s0-" in said.out and "and 1 more (one per seed)" in said.out
    assert "8 of 10 tensors transferred" in said.out
    assert "newly initialised: head.weight, head.bias (init.head draws it)" in said.out
    shown = json.loads(initbench("show", "transfer_digits_target", "--json", *runs).out)
    assert [len(one["transfer"]["taken"]) for one in shown["runs"]] == [8, 8]
    for command in ("probe", "lint"):
        assert initbench(command, pair[1], "seeds=2", "--offline", *runs).code == 0
        assert initbench(command, pair[1], "seeds=3", "--offline", *runs).code == 2
    text = yaml.safe_load(pair[1].read_text())
    assert text["init"]["scheme"]["from"] == yaml.safe_load(pair[0].read_text())["name"]


def test_probe_looks_at_the_weights_that_are_taken(
    initbench: Any, first: ExperimentOutcome, place: RunContext, task_b: Any, tmp_path: Path
) -> None:
    """The q of the first hidden layers is that of the stored end of task A's nets, not of a fresh draw."""
    from initbench.config.loading import to_yaml

    path = tmp_path / "b.yaml"
    path.write_text(to_yaml(task_b(data=FIRST, init={}, **NORMED)))
    arguments = ("probe", path, "--runs-dir", place.store.root, "--offline", "--json")
    probed = json.loads(initbench(*arguments, "seeds=[0]", "probe.batch=64").out)
    end = next(s for s in place.store.read(first.run_ids[0]).snapshots if s["when"] == "end")
    for mine, theirs in zip(probed["layers"], end["layers"], strict=True):
        assert mine["measured"]["q"]["mean"] == pytest.approx(theirs["pre"]["q"], rel=1e-5)
