"""Test commands whose standard streams are closed, full or without a reader, or that may open few files."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from initbench.cli import main as command_line
from initbench.store.store import Store

EXPERIMENT = """\
kind: experiment
name: tiny
seeds: 2
data: {name: digits}
model: {family: mlp, depth: 2, width: 4}
train: {steps: 4, batch_size: 32}
probe: {batch: 16, bins: 4}
"""
FILES = {
    "tiny.yaml": EXPERIMENT,
    "bad.yaml": EXPERIMENT.replace("width", "widht"),
    "swept.yaml": """\
kind: sweep
name: swept
base: tiny.yaml
grid: {model.depth: [2, 3]}
gates: ["max(final_val_accuracy) < 2"]
""",
    "small.yaml": """\
kind: lesson
name: small
question: Does it learn?
source: none
base:
  seeds: 1
  data: {name: digits}
  model: {family: mlp, depth: 2, width: 4}
  train: {steps: 4, batch_size: 32}
  probe: {batch: 16, bins: 4}
arms:
  zeros: {init.scheme: zeros}
  random: {}
claims:
  - says: Zeros learn nothing
    holds_if: zeros.final_val_accuracy < random.final_val_accuracy
""",
}
GATE = "--fail-if max(final_val_accuracy)<2"
HERE = "--executor inprocess"
COMMANDS = {
    "--help": 0,
    "--version": 0,
    "run tiny.yaml": 0,
    f"run tiny.yaml name=other {HERE}": 0,
    f"run tiny.yaml name=other {HERE} --json -q": 0,
    f"run tiny.yaml --rerun {HERE}": 0,
    "run tiny.yaml --print-config": 0,
    "run bad.yaml": 2,
    f"sweep swept.yaml {HERE}": 1,
    f"sweep swept.yaml {HERE} --json --junit-xml new.xml": 1,
    "sweep swept.yaml --dry-run": 0,
    "lesson ls": 0,
    f"lesson small.yaml {HERE}": 0,
    f"lesson small.yaml {HERE} --json": 0,
    "compare": 0,
    f"compare {GATE}": 1,
    f"compare {GATE} --json": 1,
    f"compare {GATE} --format csv": 1,
    f"compare {GATE} --junit-xml new.xml": 1,
    f"compare {GATE} -o new.csv": 1,
    "compare --against runs": 0,
    "compare --plot": 0,
    "compare nothing": 2,
    "probe tiny.yaml": 0,
    "probe tiny.yaml --json": 0,
    "lint tiny.yaml": 0,
    "lint tiny.yaml init.scheme=zeros --fail-on any": 1,
    "ls": 0,
    "ls --json": 0,
    "ls --verify": 0,
    "show tiny": 0,
    "show tiny --json": 0,
    "show nothing": 2,
    "rm tiny": 2,
    "rm tiny --yes": 0,
    "rm tiny --dry-run": 0,
    "merge runs --into copy": 0,
    "new first": 0,
    "explain relu": 0,
    "catalog": 0,
    "catalog --json": 0,
    "validate tiny.yaml": 0,
    "validate bad.yaml": 2,
    "schema": 0,
    "data ls": 0,
    "data verify": 0,
}
SILENT = {f"compare {GATE} -o new.csv"}
"""Commands that print nothing on stdout; those that fail with 2 print nothing either."""
STREAMS = ("stdin", "stdout", "stderr")
STATES = ("closed", "full", "reader gone")
FAST = {
    (f"compare {GATE}", "stdout", "full"),
    (f"compare {GATE}", "stdout", "closed"),
    ("compare", "stdout", "full"),
    (f"run tiny.yaml name=other {HERE}", "stdout", "closed"),
    (f"run tiny.yaml name=other {HERE}", "stderr", "full"),
    (f"sweep swept.yaml {HERE}", "stderr", "reader gone"),
    (f"sweep swept.yaml {HERE}", "stderr", "closed"),
    (f"lesson small.yaml {HERE}", "stderr", "full"),
    ("show tiny", "stdout", "reader gone"),
    ("rm tiny", "stdin", "closed"),
    ("rm tiny --yes", "stdout", "full"),
    ("--help", "stdout", "full"),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the configs and the runs of the experiment."""
    place = tmp_path_factory.mktemp("streams")
    for name, content in FILES.items():
        (place / name).write_text(content, encoding="utf-8")
    arguments = ["run", str(place / "tiny.yaml"), "-q", "--runs-dir", str(place / "runs")]
    assert command_line.run_command([*arguments, "--executor", "inprocess"]) == 0
    return place


def _attach(stream: str, state: str) -> None:
    """Bring a standard stream of this process into the state."""
    descriptor = STREAMS.index(stream)
    if state == "closed":
        os.close(descriptor)
    elif state == "full":
        os.dup2(os.open("/dev/full", os.O_RDWR), descriptor)
    else:
        reading, writing = os.pipe()
        os.dup2(reading if descriptor == 0 else writing, descriptor)
        os.close(reading)
        os.close(writing)


def _reopen_streams() -> None:
    """Open the standard streams as the interpreter does at its start."""
    for descriptor, name in enumerate(STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            setattr(sys, name, None)
            continue
        mode = "r" if descriptor == 0 else "w"
        setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _limit_descriptors(most: int) -> None:
    """Limit the number of open files of this process, including the standard streams."""
    os.closerange(3, 1024)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _run_command(place: Path, words: str, change: Callable[[], None]) -> None:
    """Run the command in this process, a child that was made for it, and end the process with its code."""
    os.chdir(place)
    for descriptor, name in enumerate(("/dev/null", "out.txt", "err.txt")):
        log = os.open(place / name, os.O_RDWR | os.O_CREAT)
        os.dup2(log, descriptor)
        os.close(log)
    change()
    _reopen_streams()
    sys.argv = ["initbench", *words.split()]
    try:
        command_line.main()
    except SystemExit as end:
        for output in filter(None, (sys.stdout, sys.stderr)):  # as the interpreter does at its end
            output.flush()
        os._exit(int(end.code or 0))


def _outcome(place: Path, words: str, change: Callable[[], None]) -> tuple[int, str]:
    """Run the command in a child process after the change, and return its exit code and what it printed."""
    child = os.fork()
    if child == 0:
        try:
            _run_command(place, words, change)
        except BaseException:
            (place / "crash.txt").write_text(traceback.format_exc(), encoding="utf-8")
        finally:
            os._exit(120)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    printed = [path.read_text(encoding="utf-8") for path in sorted(place.glob("*.txt"))]
    return code, "\n".join(printed)


def _check(prepared: Path, place: Path, words: str, stream: str, state: str) -> None:
    """Run the command on a copy of what was prepared: its exit code is the right one, and no run is hurt."""
    shutil.copytree(prepared, place)
    expected = COMMANDS[words]
    if (stream, state) in (("stdout", "closed"), ("stdout", "full")) and words not in SILENT:
        expected = expected or 3
    code, printed = _outcome(place, words, partial(_attach, stream, state))
    crash = place / "crash.txt"
    assert not crash.exists(), crash.read_text(encoding="utf-8")
    assert code == expected, printed
    assert "Traceback" not in printed
    if stream == "stdout" and expected == 3:
        assert "stdout cannot be written" in printed
    statuses = {record["status"] for record in Store(place / "runs").records()}
    assert statuses <= {"finished"}, printed
    if words.startswith(("sweep swept.yaml --ex", "lesson small", "run tiny.yaml name")):
        assert len(Store(place / "runs").records()) > 2  # lost output stops no training


@pytest.mark.parametrize(("words", "stream", "state"), sorted(FAST))
def test_a_stream_that_fails_changes_no_decision(
    prepared: Path, tmp_path: Path, words: str, stream: str, state: str
) -> None:
    _check(prepared, tmp_path / "place", words, stream, state)


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("words", COMMANDS)
def test_a_stream_that_fails_changes_no_decision_of_any_command(
    prepared: Path, tmp_path: Path, words: str, stream: str, state: str
) -> None:
    _check(prepared, tmp_path / "place", words, stream, state)


def _check_few_descriptors(prepared: Path, place: Path, words: str, most: int) -> None:
    """Run the command with few descriptors, then without a limit: no traceback, no run that stays failed."""
    shutil.copytree(prepared, place)
    code, printed = _outcome(place, words, partial(_limit_descriptors, most))
    assert not (place / "crash.txt").exists(), (place / "crash.txt").read_text(encoding="utf-8")
    assert "Traceback" not in printed
    assert code == 0 or (code == 3 and "too many open files" in printed.lower()), (code, printed)
    statuses = {record["status"] for record in Store(place / "runs").records()}
    assert statuses <= {"finished", "interrupted"}, printed
    code, printed = _outcome(place, words, lambda: None)
    assert code == 0, printed
    assert {record["status"] for record in Store(place / "runs").records()} == {"finished"}


def test_workers_that_cannot_be_started_for_want_of_descriptors(prepared: Path, tmp_path: Path) -> None:
    words = f"run tiny.yaml name=other {HERE}"
    _check_few_descriptors(prepared, tmp_path / "inprocess", words, 12)
    code, printed = _outcome(
        tmp_path / "inprocess",
        "run tiny.yaml name=third --executor local --workers 2",
        partial(_limit_descriptors, 10),
    )
    # The reason is that of the call that failed last, which is not always the first one.
    assert (code, "a worker process cannot be started: " in printed) == (3, True), printed


@pytest.mark.slow
@pytest.mark.parametrize("most", [64, 32, 24, 20, 18, 16, 14, 12, 10, 9, 8, 7, 6, 5])
@pytest.mark.parametrize(
    "words",
    [
        "run tiny.yaml name=other --executor local --workers 2",
        f"run tiny.yaml name=other {HERE}",
        "compare",
        "ls --verify",
        "merge runs --into copy",
    ],
)
def test_few_descriptors_end_in_a_sentence(prepared: Path, tmp_path: Path, words: str, most: int) -> None:
    _check_few_descriptors(prepared, tmp_path / "place", words, most)
