"""Addresses of Ray clusters, and clusters that do not answer. Nothing here starts Ray."""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from initbench.errors import DeviceError, MissingExtraError, UsageError
from initbench.runner.workers import ray_connection
from initbench.runner.workers.base import EXECUTORS
from initbench.runner.workers.ray_connection import RayConnection, check_address

CONFIG = """\
kind: experiment
name: tiny
data: {name: digits}
model: {family: mlp, depth: 2, width: 8}
train: {steps: 4, batch_size: 32}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@pytest.mark.parametrize("address", [None, "auto", "head:6379", "[::1]:6379", "//head", "ray://head:10001"])
def test_an_address(address: str | None) -> None:
    pytest.importorskip("ray")
    check_address(address)


@pytest.mark.parametrize(
    "address", ["", "head", "head:", "head:port", "head:0", "head:70000", "http://head:80"]
)
def test_no_address(address: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match=r"write ray:auto or ray:HOST:PORT or ray://HOST:PORT, or ray alone"):
        check_address(address)


@pytest.mark.parametrize(
    ("executor", "message"),
    [
        ("rya", "unknown executor 'rya'; did you mean 'ray'?"),
        ("local:head:6379", "the executor local takes no address; write --executor local"),
        ("auto:head:6379", "--executor auto takes no address"),
        ("ray:", "--executor ray: the address is missing; write ray:auto"),
    ],
)
def test_a_wrong_executor(initbench: Any, file: Path, executor: str, message: str) -> None:
    pytest.importorskip("ray")
    said = initbench("run", file, "--executor", executor)
    assert said.code == 2 and said.err.startswith(f"initbench: {message}")


def test_without_ray(initbench: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    said = initbench("run", file, "--executor", "ray")
    assert said.code == MissingExtraError.exit_code == 2
    assert said.err == (
        "initbench: runs on Ray need packages that are not installed: pip install 'initbench[ray]'\n"
    )


@pytest.mark.parametrize("form", ["ray:127.0.0.1:{}", "ray://127.0.0.1:{}", "ray:ray://127.0.0.1:{}"])
def test_a_cluster_that_is_not_there(initbench: Any, file: Path, closed_port: int, form: str) -> None:
    pytest.importorskip("ray")
    said = initbench("run", file, "--executor", form.format(closed_port))
    assert said.code == DeviceError.exit_code == 3
    assert f"127.0.0.1:{closed_port} cannot be reached: connection refused; check the address" in said.err
    assert "Traceback" not in said.err and said.out == ""


def test_ray_that_neither_connects_nor_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray_connection, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    answers = threading.Event()
    monkeypatch.setattr(ray, "init", lambda **_options: answers.wait())
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(DeviceError, match=r"^Ray cannot be started on this machine: no answer within"):
        RayConnection(None, 1)
    answers.set()  # until then, the working directory is another one
    for thread in threading.enumerate():
        if thread.name == ray_connection.THREAD_NAME:
            thread.join(1.0)


def test_the_variable_names_the_cluster(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", f"ray://127.0.0.1:{closed_port}")
    with pytest.raises(DeviceError, match=rf"^the Ray cluster at ray://127\.0\.0\.1:{closed_port} cannot be"):
        RayConnection(None, None)


def test_modules_of_executors_are_called_like_them() -> None:
    """The completion of the shell lists modules, because it does not import torch."""
    built_in = [name for name in EXECUTORS.names() if EXECUTORS.origin(name)[0].startswith("initbench.")]
    assert all(EXECUTORS.origin(name)[0].endswith(f".{name}") for name in built_in)
