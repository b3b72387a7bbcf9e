"""kill -9 of the driver of a sweep, at any moment: the same command goes on, and no worker is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from initbench.store.run_directory import COMPLETE
from initbench.store.store import Store
from tests.processes import descendants, forked_workers
from tests.runner.driven import numbers

SWEEP = """\
kind: sweep
name: many
base:
  data: {name: digits}
  model: {family: mlp, depth: 3, width: 16}
  train: {steps: 150, batch_size: 32, lr: 0.05, eval_every: 30}
  probe: {batch: 16, bins: 4}
grid:
  init.scheme: [xavier_normal, kaiming_normal, lsuv]
  model.depth: [2, 3]
seeds: 2
"""
RUNS = 12
SCRIPT = """
import sys
from initbench.runner import runner
from initbench.cli.main import run_command
runner.CHECKPOINT_SECONDS = 0.0
sys.exit(run_command(sys.argv[1:]))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "many.yaml"
    path.write_text(SWEEP, encoding="utf-8")
    return path


def command(file: Path, runs: Path) -> list[str]:
    options = ["-q", "--runs-dir", str(runs), "--executor", "local", "--workers", "2"]
    return [sys.executable, "-c", SCRIPT, "sweep", str(file), *options]


def go(file: Path, runs: Path) -> None:
    subprocess.run(command(file, runs), check=True, stdout=subprocess.DEVNULL)


def lives(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return found.returncode == 0 and not found.stdout.strip().startswith("Z")


def at_their_end(store: Store) -> int:
    """Return the number of finished runs, from their manifests only."""
    return len(list(store.root.glob("*/manifest.json")))


def in_pretraining(store: Store) -> list[str]:
    """Return the runs that can resume from a checkpoint within their pre-training."""
    return [path.name for path in store.root.glob("[!.]*-s*") if store.checkpoint_step(path.name) < 0]


def finished(store: Store) -> dict[str, int]:
    """Return the time at which the record was written, by id of each complete run."""
    ids = [record["run_id"] for record in store.records() if record["status"] in COMPLETE]
    return {run_id: (store.root / run_id / "run.json").stat().st_mtime_ns for run_id in ids}


@pytest.mark.slow
def test_killed_at_any_moment(file: Path, tmp_path: Path) -> None:
    """Kill the command after a given number of runs, a bit later each time."""
    go(file, tmp_path / "whole")
    expected = numbers(Store(tmp_path / "whole"))
    assert len(expected) == RUNS
    for k in range(10):
        store = Store(tmp_path / f"killed{k}")
        process = subprocess.Popen(command(file, store.root), stdout=subprocess.DEVNULL)
        until = time.monotonic() + 600
        while process.poll() is None and time.monotonic() < until and at_their_end(store) < k:
            time.sleep(0.02)
        time.sleep(0.01 * (k % 7))
        workers = descendants(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        until = time.monotonic() + 600  # a busy machine takes its time
        while any(map(lives, workers)) and time.monotonic() < until:
            time.sleep(0.01)
        assert not any(map(lives, workers)), "no orphan"
        before = finished(store)
        go(file, store.root)
        after = finished(store)
        assert {run_id: after[run_id] for run_id in before} == before, "nothing finished is trained again"
        assert numbers(store) == expected, "nothing is lost or doubled"


@pytest.mark.slow
def test_killed_in_pretraining(file: Path, tmp_path: Path) -> None:
    scheme = "{name: autoencoder, steps: 100}"
    file.write_text(SWEEP.replace("[xavier_normal, kaiming_normal, lsuv]", f"[{scheme}]"), encoding="utf-8")
    go(file, tmp_path / "whole")
    store = Store(tmp_path / "killed")
    process = subprocess.Popen(command(file, store.root), stdout=subprocess.DEVNULL)
    until = time.monotonic() + 600
    while not (begun := in_pretraining(store)) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert begun
    go(file, store.root)
    assert numbers(store) == numbers(Store(tmp_path / "whole"))


def test_workers_end_with_a_driver_that_is_killed_while_they_start(file: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(command(file, tmp_path / "runs"), stdout=subprocess.DEVNULL)
    until = time.monotonic() + 600
    while len(forked_workers(process.pid)) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    workers = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(workers) >= 3, "the fork server and the workers"
    while any(map(lives, workers)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(map(lives, workers))
