"""Commands that train in Ray: a sweep, code of the user, signals, and kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from initbench.store.store import Store
from tests.processes import descendants
from tests.runner.driven import files_with_numbers

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
LONG = """\
kind: experiment
name: long
seeds: 2
data: {name: digits}
model: {family: mlp, depth: 3, width: 16, norm: batch}
train: {steps: 500000, batch_size: 32, eval_every: 100}
"""
CUSTOM = """\
kind: experiment
name: custom
data: {name: digits}
model: {family: custom}
train: {steps: 40, batch_size: 32, loss: own}
"""
NETS = """\
from pathlib import Path
from torch import nn
from sizes import WIDTH
def make():
    assert Path("sizes.py").exists(), "the working directory is that of the command"
    return nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))
"""
LOSSES = """\
from torch.nn.functional import cross_entropy
def own(output, y):
    return cross_entropy(output, y)
def unlucky(output, y):
    if output.requires_grad and len(y) == 32:
        raise RuntimeError("out of luck")
    return cross_entropy(output, y)
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a command in a process group of its own, as a shell does."""
    processes: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "initbench", *arguments],
                cwd=tmp_path,
                env=variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return processes[-1]

    yield begin
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended but is not yet collected does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False


def program(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def wait_until(condition: Callable[[], bool], seconds: float, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        assert process.returncode is not None or process.poll() is None, process.communicate()
        time.sleep(0.05)


def begin_training(start: Start, folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """Start a long training of two actors, and return its process and those of Ray."""
    (folder / "long.yaml").write_text(LONG, encoding="utf-8")
    process = start("run", "long.yaml", "--executor", "ray", "--workers", "2")

    def trains() -> bool:
        files = list((folder / "runs").glob("*/metrics.jsonl"))
        return len(files) == 2 and all(file.read_bytes().count(b"\n") > 2 for file in files)

    wait_until(trains, 300, process)
    processes = descendants(process.pid)
    assert sum("ray::NodeActor" in program(pid) for pid in processes) == 2
    return process, processes


def test_a_sweep(start: Start, tmp_path: Path, repository: Path) -> None:
    file = str(repository / "configs" / "sweeps" / "ci.yaml")
    process = start("sweep", file, "--executor", "ray", "--runs-dir", "ray")
    out, err = process.communicate(timeout=600)
    other = start("sweep", file, "--executor", "inprocess", "--runs-dir", "inprocess")
    assert (out, process.returncode) == (other.communicate(timeout=600)[0], 0)
    files = files_with_numbers(Store(tmp_path / "inprocess"))
    assert len(files) == 35 and files_with_numbers(Store(tmp_path / "ray")) == files
    assert "ray" not in err.lower() and "warning" not in err.lower()


def test_code_of_the_user(start: Start, tmp_path: Path) -> None:
    """Its nets, losses and neighbours are sent; the traceback of a failure shows them."""
    for name, text in {
        "custom.yaml": CUSTOM, "nets.py": NETS, "losses.py": LOSSES, "sizes.py": "WIDTH = 8\n"
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text, encoding="utf-8")
    command = ["run", "custom.yaml", "--model", "nets:make", "-q", "--loss-from"]
    for executor in ("ray", "inprocess"):
        process = start(*command, "losses:own", "--executor", executor, "--runs-dir", executor)
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
    files = files_with_numbers(Store(tmp_path / "inprocess"))
    assert len(files) == 1 and files_with_numbers(Store(tmp_path / "ray")) == files
    process = start(*command, "losses:unlucky", "train.loss=unlucky", "--executor", "ray")
    _, err = process.communicate(timeout=600)
    assert process.returncode == 1 and "custom failed: RuntimeError: out of luck" in err
    (record,) = Store(tmp_path / "runs").records()
    assert record["status"] == "failed"
    error = Store(tmp_path / "runs").read(record["run_id"]).record["error"]
    assert "losses.py" in error and error.endswith("RuntimeError: out of luck\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_makes_actors_send_a_checkpoint(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    process, processes = begin_training(start, tmp_path)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    lines = err.splitlines()
    assert len(lines) == 2 and lines[1].startswith("initbench: interrupted; resume with: initbench run")
    assert not any(map(is_alive, processes))
    store = Store(tmp_path / "runs")
    assert [record["status"] for record in store.records()] == ["interrupted", "interrupted"]
    assert all(store.checkpoint_step(record["run_id"]) for record in store.records())


def test_a_second_signal_ends_the_command_at_once(start: Start, tmp_path: Path) -> None:
    process, processes = begin_training(start, tmp_path)
    for pid in processes:
        if "ray::NodeActor" in program(pid):
            os.kill(pid, signal.SIGSTOP)  # it cannot answer the first signal
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.5)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert {record["status"] for record in Store(tmp_path / "runs").records()} == {"interrupted"}
    wait_until(lambda: not any(map(is_alive, processes)), 120, process)


def test_no_process_outlives_a_command_that_is_killed(start: Start, tmp_path: Path) -> None:
    process, processes = begin_training(start, tmp_path)
    agents = {pid for pid in processes if "Agent" in program(pid)}
    process.kill()
    process.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in processes if pid not in agents), 15, process)
    assert len(agents) <= 2, "of Ray itself; they notice a minute later that their parent is gone"
    wait_until(lambda: not any(map(is_alive, agents)), 150, process)
