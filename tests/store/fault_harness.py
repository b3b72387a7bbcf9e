"""Commands during which the N-th operation on the store fails, and what the same command then ends with."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from initbench.analysis.run_summary import decode_summary, summarise_run
from initbench.cli.main import run_command
from initbench.determinism import one_thread
from initbench.runner import runner
from initbench.store import strict_json
from initbench.store.merging import RESULT_KEYS
from initbench.store.store import Store

OPERATIONS = (
    "open",
    "write",
    "fsync",
    "replace",
    "rename",
    "mkdir",
    "unlink",
    "rmdir",
    "ftruncate",
    "link",
    "listdir",
    "scandir",
)
REAL = {name: getattr(os, name) for name in OPERATIONS}
FATES = ("ENOSPC", "EIO", "kill", "torn")
"""An error at that operation alone; the end of the process; half a write, then the end of the process."""
_FILES = ("config.yaml", "metrics.jsonl", "layers.jsonl", "weights.safetensors")
_SMALL = (
    "data.name=digits",
    "model.depth=2",
    "model.width=4",
    "train.steps=4",
    "train.batch_size=8",
    "train.eval_every=2",
    "probe.batch=8",
    "probe.bins=2",
)


@dataclass
class Faults:
    """Counts the operations on files below `root`; the `at`-th meets its fate."""

    root: Path
    fate: str
    at: int
    count: int = 0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        self._descriptors: set[int] = set()
        for name in OPERATIONS:
            patch.setattr(os, name, self._faulty(name))

    def _faulty(self, name: str) -> Callable[..., Any]:
        def operation(*arguments: Any, **more: Any) -> Any:
            if self._is_ours(arguments):
                self.count += 1
                if self.count == self.at:
                    self._strike(name, arguments)
            if name == "fsync":  # a killed process loses nothing that the kernel has
                return None
            result = REAL[name](*arguments, **more)
            if name == "open" and self._is_ours(arguments):
                self._descriptors.add(result)
            elif name == "open":
                self._descriptors.discard(result)
            return result

        return operation

    def _is_ours(self, arguments: tuple[Any, ...]) -> bool:
        if not arguments:
            return False
        if isinstance(arguments[0], int):
            return arguments[0] in self._descriptors
        return os.fspath(arguments[0]).startswith(str(self.root))

    def _strike(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.fate == "torn" and name == "write":
            REAL["write"](arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
        if self.fate in ("kill", "torn"):
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, self.fate)
        raise OSError(number, os.strerror(number), str(arguments[0]))


@dataclass(frozen=True)
class Scenario:
    """A command on a store that is in a certain state."""

    prepare: Callable[[Path], object]
    arguments: Callable[[Path], list[str]]


def _run(root: Path, *more: str) -> list[str]:
    return [
        "run",
        "configs/relu_kaiming.yaml",
        *_SMALL,
        "seeds=2",
        "-q",
        "--executor",
        "inprocess",
        "--runs-dir",
        str(root),
        *more,
    ]


def _sweep(root: Path) -> list[str]:
    command = _run(root)
    return ["sweep", command[1], *command[2:10], "train.lr=0.1,0.01", *command[10:]]


def _finished(root: Path) -> None:
    assert quietly(_run(root)) == 0


def _interrupted(root: Path) -> None:
    """Both runs are stopped after an update, and have checkpoints."""

    class EnoughError(Exception):
        pass

    from initbench.runner.recorder import Recorder
    from initbench.train.events import Advanced, RunEvent

    with pytest.MonkeyPatch.context() as patch:
        handle = Recorder.handle

        def stop(recorder: Recorder, event: RunEvent) -> None:
            handle(recorder, event)
            if isinstance(event, Advanced) and event.step == 4:
                raise KeyboardInterrupt

        patch.setattr(Recorder, "handle", stop)
        with contextlib.suppress(KeyboardInterrupt):
            quietly(_run(root))


def _to_be_merged(root: Path) -> None:
    _finished(root.parent / "source")


SCENARIOS = {
    "run": Scenario(lambda root: None, _run),
    "resume": Scenario(_interrupted, _run),
    "rerun": Scenario(_finished, lambda root: _run(root, "--rerun")),
    "sweep": Scenario(lambda root: None, _sweep),
    "merge": Scenario(
        _to_be_merged, lambda root: ["merge", str(root.parent / "source"), "--into", str(root)]
    ),
    "rm": Scenario(_finished, lambda root: ["rm", "-y", "relu_kaiming", "--runs-dir", str(root)]),
}


def quietly(arguments: list[str]) -> int:
    """Call the command line, and keep what it prints to itself."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return run_command(arguments)


def state(root: Path) -> dict[str, Any]:
    """All that has to be the same: names, each run's files to the byte, what its record says of the result.

    Times, hosts and processes differ. A finished run holds what its manifest names, and its lock.
    """
    names = sorted(path.name for path in root.iterdir())
    hidden = {name for name in names if name.startswith(".")}
    found: dict[str, Any] = {"names": [name for name in names if name not in hidden]}
    assert hidden <= {".store.lock", ".sweeps"}, hidden
    store = Store(root)
    for run_id, summary in store.read_summaries().items():
        assert decode_summary(summary) == summarise_run(store.read(run_id))
    for directory in (path for path in root.iterdir() if not path.name.startswith(".")):
        present = {path.name for path in directory.iterdir()}
        manifest = strict_json.loads((directory / "manifest.json").read_text())["files"]
        assert present - {".lock"} == {*manifest, "manifest.json"}, present
        record = strict_json.loads((directory / "run.json").read_text())
        files = [(directory / name).read_bytes() for name in _FILES]
        found[directory.name] = files, [record[key] for key in RESULT_KEYS]
    sweeps = root / ".sweeps"
    if sweeps.is_dir():
        assert not [path for path in sweeps.iterdir() if path.name.endswith(".tmp")]
        found["sweeps"] = sorted(path.read_text() for path in sweeps.glob("*.json"))
    return found


@contextmanager
def conditions() -> Iterator[None]:
    """A checkpoint after every update, nothing that depends on the time, and one thread.

    A forked process lacks the OpenMP threads of its parent, and would wait for them forever.
    """
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.setattr(runner, "CHECKPOINT_SECONDS", 0.0)
        yield


def prepared(scenario: Scenario, template: Path) -> Path:
    """The state that the scenario begins with, to be copied for each case."""
    template.mkdir(parents=True)
    scenario.prepare(template / "runs")
    return template


def struck(scenario: Scenario, template: Path, place: Path, fate: str, at: int) -> bool:
    """Let the `at`-th operation of the command meet its fate; whether there was one.

    A command that is not killed ends with the code of a storage error at the most.
    """
    shutil.copytree(template, place)
    root = place / "runs"
    faults = Faults(root, fate, at)
    if fate not in ("kill", "torn"):
        with pytest.MonkeyPatch.context() as patch:
            faults.install(patch)
            code = quietly(scenario.arguments(root))
        assert code in ((0, 1, 3) if faults.count >= at else (0,)), code
        return faults.count >= at
    child = os.fork()
    if child == 0:
        try:
            faults.install(pytest.MonkeyPatch())
            os._exit(0 if quietly(scenario.arguments(root)) == 0 else 1)
        finally:
            os._exit(2)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def again(scenario: Scenario, place: Path) -> dict[str, Any]:
    """Run the same command again without faults and return the resulting state."""
    root = place / "runs"
    arguments = scenario.arguments(root)
    code = quietly(arguments)
    if arguments[0] == "rm":  # exit code 2 if the run is already gone
        assert code in (0, 2), code
    else:
        assert code == 0, code
    return state(root)


def count_of(scenario: Scenario, template: Path, place: Path) -> int:
    """The operations that the command makes."""
    shutil.copytree(template, place)
    faults = Faults(place / "runs", "EIO", -1)
    with pytest.MonkeyPatch.context() as patch:
        faults.install(patch)
        assert quietly(scenario.arguments(place / "runs")) == 0
    return faults.count
