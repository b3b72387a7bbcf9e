"""A run that was interrupted and goes on computes what it would have computed in one piece."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from initbench import interrupts
from initbench.data.dataset import DataSource
from initbench.errors import Terminated
from initbench.runner import runner
from initbench.runner.plan import ExperimentOutcome, RunContext
from initbench.store.checkpoint_files import CHECKPOINTS
from initbench.store.store import Store
from tests.runner.driven import Silent, run_experiment

CPU = torch.device("cpu")


class Stopper(Silent):
    """An Observer that interrupts after update number `at`."""

    def __init__(self, at: float = math.inf) -> None:
        super().__init__()
        self.at = at
        self.steps: list[int] = []

    def advanced(self, step: int) -> None:
        self.steps.append(step)
        if step == self.at:
            raise Terminated(15)


@pytest.fixture
def places(tmp_path: Path) -> Callable[[str], RunContext]:
    def make(name: str) -> RunContext:
        source = DataSource(root=tmp_path / "data", offline=True)
        return RunContext(store=Store(tmp_path / name), source=source, device=CPU)

    return make


@pytest.fixture
def each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every update but those where an evaluation comes first."""
    monkeypatch.setattr(runner, "CHECKPOINT_SECONDS", 0.0)


def contents(store: Store, execution: ExperimentOutcome) -> list[Any]:
    """All numbers of the runs, and the bytes of their weights."""
    runs = [store.read(run_id) for run_id in execution.run_ids]
    keys = ("status", "final", "diverged", "diagnosis", "steps", "seed")
    return [
        (
            {key: run.record[key] for key in keys},
            run.convergence,
            run.snapshots,
            run.shifts,
            (Path(str(store.directory(run.run_id))) / "weights.safetensors").read_bytes(),
        )
        for run in runs
    ]


MODELS = [
    ({"norm": "batch"}, {"optimizer": {"name": "sgd", "momentum": 0.9}, "schedule": "cosine"}),
    ({"norm": "none"}, {"optimizer": "adam", "eval_every": 7, "clip_norm": 1.0, "lr": 0.01}),
    ({"activation": "sigmoid", "width": 17}, {"optimizer": {"name": "rmsprop", "momentum": 0.5}}),
]


@pytest.mark.usefixtures("each_step")
@pytest.mark.parametrize(
    "moments", [(1, 8, 19), pytest.param((2, 3, 7, 13, 18, 20), marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.parametrize(("model", "train"), MODELS)
def test_a_resumed_run_equals_an_uninterrupted_one(
    make_config: Any, places: Any, model: dict[str, Any], train: dict[str, Any], moments: tuple[int, ...]
) -> None:
    config = make_config(seeds=2, model=model, train=train)
    whole = places("whole")
    expected = contents(whole.store, run_experiment(config, whole, Stopper(), rerun=False))
    for at in moments:
        parts = places(f"parts{at}")
        with pytest.raises(Terminated):
            run_experiment(config, parts, Stopper(at), rerun=False)
        watcher = Stopper()
        execution = run_experiment(config, parts, watcher, rerun=False)
        assert watcher.steps[at - 21 :] == list(range(at, 21)), "no update is made twice"
        assert contents(parts.store, execution) == expected, at
        for run_id in execution.run_ids:
            directory = parts.store.directory(run_id)
            assert not any((directory / name).exists() for name in CHECKPOINTS), "they have served"
            assert parts.store.verify(run_id) == []


@pytest.mark.usefixtures("each_step")
@pytest.mark.parametrize("moments", [(1, 4, 5), pytest.param((3, 8, 9), marks=pytest.mark.slow)])
def test_covariate_shift_goes_on_from_the_inputs_measured_before(
    make_config: Any, places: Any, moments: tuple[int, ...]
) -> None:
    config = make_config(seeds=2, model={"norm": "batch"}, probe={"covariate_shift": 4})
    whole = places("whole")
    expected = contents(whole.store, run_experiment(config, whole, Stopper(), rerun=False))
    [shifts] = [one for one in expected[0] if isinstance(one, list) and "input_std_drift" in str(one)]
    assert [entry["step"] for entry in shifts] == [1, 5, 9, 13, 17]
    for at in moments:
        parts = places(f"parts{at}")
        with pytest.raises(Terminated):
            run_experiment(config, parts, Stopper(at), rerun=False)
        execution = run_experiment(config, parts, Stopper(), rerun=False)
        assert contents(parts.store, execution) == expected, at
        assert all(parts.store.verify(run_id) == [] for run_id in execution.run_ids)


@pytest.mark.usefixtures("each_step")
def test_a_run_that_is_interrupted_again_and_again_gets_there(make_config: Any, places: Any) -> None:
    config = make_config(seeds=2)
    whole, parts = places("whole"), places("parts")
    expected = contents(whole.store, run_experiment(config, whole, Stopper(), rerun=False))
    for at in (3, 4, 9, 15, 16):
        with pytest.raises(Terminated):
            run_experiment(config, parts, Stopper(at), rerun=False)
    execution = run_experiment(config, parts, Stopper(), rerun=False)
    assert contents(parts.store, execution) == expected


@pytest.mark.usefixtures("each_step")
def test_runs_at_different_steps_go_on_in_cohorts_of_their_own(make_config: Any, places: Any) -> None:
    whole, parts = places("whole"), places("parts")
    expected = contents(whole.store, run_experiment(make_config(seeds=4), whole, Stopper(), rerun=False))
    for seeds, at in (([0, 2], 5), ([1], 11)):
        with pytest.raises(Terminated):
            run_experiment(make_config(seeds=seeds), parts, Stopper(at), rerun=False)
    execution = run_experiment(make_config(seeds=4), parts, Stopper(), rerun=False)
    assert contents(parts.store, execution) == expected
    cohorts = [parts.store.read(run_id).record["cohort"] for run_id in execution.run_ids]
    assert cohorts == [2, 1, 2, 1]


@pytest.mark.usefixtures("each_step")
def test_rerun_starts_from_scratch(make_config: Any, places: Any) -> None:
    parts = places("parts")
    with pytest.raises(Terminated):
        run_experiment(make_config(), parts, Stopper(9), rerun=False)
    watcher = Stopper()
    run_experiment(make_config(), parts, watcher, rerun=True)
    assert watcher.steps[0] == 1


class Signaller(Stopper):
    """An Observer that sends this process SIGTERM after update number `at`."""

    def advanced(self, step: int) -> None:
        self.steps.append(step)
        if step == self.at:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def handles_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the signal handlers of a command for the time of a test."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    handlers = [signal.getsignal(number) for number in signals]
    monkeypatch.setattr(interrupts._State, "command_runs", True)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    interrupts.install_signal_handlers()
    yield
    for number, handler in zip(signals, handlers, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("handles_signals")
def test_a_signal_before_the_first_checkpoint_loses_no_step(make_config: Any, places: Any) -> None:
    whole, parts = places("whole"), places("parts")
    expected = contents(whole.store, run_experiment(make_config(), whole, Stopper(), rerun=False))
    for at in (3, 9):
        with pytest.raises(Terminated) as ended:
            run_experiment(make_config(), parts, stopper := Signaller(at), rerun=False)
        assert (ended.value.exit_code, stopper.steps[-1]) == (143, at)
        (record,) = parts.store.records()
        assert (record["status"], parts.store.checkpoint_step(record["run_id"])) == ("interrupted", at)
    stopper = Stopper()
    execution = run_experiment(make_config(), parts, stopper, rerun=False)
    assert stopper.steps[0] == 10 and contents(parts.store, execution) == expected


SCRIPT = """
import sys
from initbench.runner import runner
from initbench.cli.main import run_command
runner.CHECKPOINT_SECONDS = 0.0
sys.exit(run_command(sys.argv[1:]))
"""


@pytest.mark.slow
def test_killed_at_any_moment(make_config: Any, tmp_path: Path) -> None:
    """kill -9, which no handler sees; the run goes on in the next process and ends in the same bytes."""
    config = make_config(train={"steps": 300, "eval_every": 20}, model={"norm": "batch"})
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(config.resolved()), encoding="utf-8")

    def command(runs: Path) -> list[str]:
        return [sys.executable, "-c", SCRIPT, "run", str(file), "-q", "--runs-dir", str(runs)]

    def go(runs: Path) -> None:
        subprocess.run(command(runs), check=True, stdout=subprocess.DEVNULL, env=os.environ)

    go(tmp_path / "whole")
    whole = Store(tmp_path / "whole")
    ids = [record["run_id"] for record in whole.records()]
    expected = contents(whole, ExperimentOutcome(config, tuple(ids)))
    killed_at = []
    for k in range(10):
        runs = tmp_path / f"killed{k}"
        process = subprocess.Popen(command(runs), stdout=subprocess.DEVNULL)
        _wait_for_lines(runs / ids[0] / "metrics.jsonl", 1 + k, process)
        time.sleep(0.003 * (k % 4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        store = Store(runs)
        killed_at.append(store.checkpoint_step(ids[0]))
        go(runs)
        assert contents(store, ExperimentOutcome(config, tuple(ids))) == expected, k
    assert len(set(killed_at)) > 5, "at different moments indeed"


def _wait_for_lines(path: Path, lines: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < until:
        if path.exists() and path.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.001)


@pytest.mark.usefixtures("each_step")
def test_ls_tells_the_step_that_an_interrupted_run_goes_on_from(
    make_config: Any, places: Any, initbench: Any
) -> None:
    place = places("runs")
    with pytest.raises(Terminated):
        run_experiment(make_config(), place, Stopper(9), rerun=False)
    (listed,) = json.loads(initbench("ls", "--json", "--runs-dir", str(place.store.root)).out)["runs"]
    assert (listed["status"], listed["steps"]) == ("interrupted", 8)
