"""SIGINT and SIGTERM end a command at any moment of its start: no traceback, no run that is marked failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from initbench import interrupts
from initbench.store.store import Store
from tests.slices import each_once_fast

EXPERIMENT = """\
kind: experiment
name: tiny
seeds: 2
data: {name: digits}
model: {family: mlp, depth: 3, width: 16}
train: {steps: 10000000, batch_size: 32, eval_every: 1000}
"""
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
STARTED = """\
import _signal, sys
_signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # what Python prints before this package is loaded is its own
sys.stderr.write("started\\n")
from initbench.__main__ import main
main()
"""


def _fire(
    place: Path, repository: Path, number: signal.Signals, seconds: float, *arguments: str
) -> tuple[int, str]:
    """Start a command, send the signal this many seconds after its first line, and return code and stderr."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTED, "run", "tiny.yaml", *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        process.stderr.readline()
        time.sleep(seconds)
        process.send_signal(number)
        _, err = process.communicate(timeout=600)
    finally:
        process.kill()
        process.wait()
    return process.returncode, err


def _check(place: Path, code: int, err: str, number: signal.Signals) -> None:
    assert "Traceback" not in err, err
    assert code in (CODES[number], -number), err  # -number: before the first line of this package
    statuses = {record["status"] for record in Store(place / "runs").records()}
    assert statuses <= {"interrupted"}, err


@pytest.mark.parametrize(("seconds", "number"), each_once_fast([0.05, 0.5, 1.5], list(CODES)))
def test_a_signal_at_the_start_ends_the_command(
    tmp_path: Path, repository: Path, number: signal.Signals, seconds: float
) -> None:
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT, encoding="utf-8")
    code, err = _fire(tmp_path, repository, number, seconds)
    _check(tmp_path, code, err, number)


@pytest.mark.slow
@pytest.mark.parametrize("number", list(CODES))
@pytest.mark.parametrize("executor", ["inprocess", "local"])
def test_a_signal_at_any_of_many_moments_ends_the_command(
    tmp_path: Path, repository: Path, number: signal.Signals, executor: str
) -> None:
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT, encoding="utf-8")
    for step in range(60):
        code, err = _fire(tmp_path, repository, number, 0.02 + 0.08 * step, "--executor", executor)
        _check(tmp_path, code, err, number)


IMPORTING = """\
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from initbench import interrupts
interrupts.install_signal_handlers()
interrupts.begin_command()
from initbench.errors import Terminated
try:
    if sys.argv[2] == "marking":
        with interrupts.RunsToMark():
            import interrupted_module
            for _ in range(10**9):
                pass
    else:
        import interrupted_module
except Terminated as error:
    print("whole", hasattr(sys.modules.get("interrupted_module"), "last"))
    print("terminated", error.signum)
"""
MODULE = """\
import os, signal
try:
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000000):
        pass
except BaseException:
    pass
last = True
"""


@pytest.mark.parametrize(
    ("state", "out", "code"), [("marking", "whole True\nterminated 15\n", 0), ("starting", "", 143)]
)
def test_an_import_is_never_left_half_done(
    tmp_path: Path, repository: Path, state: str, out: str, code: int
) -> None:
    """The module swallows exceptions, as torch does while it imports NumPy."""
    (tmp_path / "interrupted_module.py").write_text(MODULE, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, str(tmp_path), state],
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, out), done.stderr


DESTRUCTOR = """\
import os, signal, time
from initbench import interrupts
interrupts.install_signal_handlers()
interrupts.begin_command()
from initbench.errors import Terminated
class Closing:
    fired = False
    def __del__(self):
        if not Closing.fired:
            Closing.fired = True
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000000):
                pass
try:
    closing = Closing()
    del closing
    time.sleep(20)
except Terminated as error:
    print("terminated", error.signum)
"""


def test_a_signal_in_a_destructor_is_not_lost(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DESTRUCTOR],
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "terminated 2\n", "")


def test_the_first_file_imports_nothing_heavy() -> None:
    loaded = Path(interrupts.__file__).read_text(encoding="utf-8")
    lines = [line for line in loaded.splitlines() if line.startswith(("import ", "from "))]
    assert lines == ["import os", "import signal", "import sys"]
