"""Test behaviour that needs a separate process: signals, pipes, and which commands load torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from initbench.errors import DataError, DeviceError, StoreError, UsageError
from initbench.store.run_directory import METRICS
from initbench.store.store import Store
from tests.processes import forked_workers, run_forked

COMMAND = [sys.executable, "-m", "initbench"]
LONG = """\
kind: experiment
name: long
seeds: 2
data: {name: digits}
model: {family: mlp, depth: 3, width: 16}
train: {steps: 10000000, batch_size: 32, lr: 0.01, eval_every: 100}
"""


@pytest.fixture
def environment(repository: Path, tmp_path: Path) -> dict[str, str]:
    paths = os.pathsep.join(filter(None, [str(repository), os.environ.get("PYTHONPATH")]))
    return {
        **os.environ,
        "PYTHONPATH": paths,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_signal_marks_the_runs_interrupted(
    tmp_path: Path, environment: dict[str, str], number: signal.Signals, code: int
) -> None:
    (tmp_path / "long.yaml").write_text(LONG, encoding="utf-8")
    process = subprocess.Popen(
        [*COMMAND, "run", "long.yaml"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until_training(process, tmp_path / "runs")
        process.send_signal(number)
        out, err = process.communicate(timeout=600)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == code
    assert "initbench: interrupted; resume with: initbench run long.yaml" in err
    assert "Traceback" not in err
    assert out == ""
    store = Store(tmp_path / "runs")
    records = store.records()
    assert [record["status"] for record in records] == ["interrupted", "interrupted"]
    assert all(record["final"] is None for record in records)
    assert not any(store.is_busy(record["run_id"]) for record in records)
    assert len(store.read(records[0]["run_id"]).convergence) >= 2, "what was measured until then is kept"


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_makes_workers_send_a_checkpoint(
    tmp_path: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    """Signal the whole process group, as a terminal does; the next call resumes instead of starting over."""
    (tmp_path / "long.yaml").write_text(LONG, encoding="utf-8")
    command = [*COMMAND, "run", "long.yaml", "--executor", "local", "--workers", "2"]
    process = start_in_group(command, tmp_path, environment)
    try:
        wait_until_training(process, tmp_path / "runs")
        os.killpg(process.pid, number)
        begin = time.monotonic()
        _, err = process.communicate(timeout=600)
        seconds = time.monotonic() - begin
    finally:
        end_group(process)
    assert process.returncode == 128 + number and "Traceback" not in err
    assert seconds < 10.0, "2 s on a machine with nothing else to do"
    store = Store(tmp_path / "runs")
    run_ids = [record["run_id"] for record in store.records()]
    steps = [store.checkpoint_step(run_id) for run_id in run_ids]
    assert len(steps) == 2 and all(steps)
    again = start_in_group(command, tmp_path, environment)
    try:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and any(
            store.read(run_id).convergence[-1]["step"] <= step
            for run_id, step in zip(run_ids, steps, strict=True)
        ):
            time.sleep(0.05)
        os.killpg(again.pid, signal.SIGINT)
        _, err = again.communicate(timeout=600)
    finally:
        end_group(again)
    assert all(f"long: resuming 1 run at step {step:,}" in err for step in steps)


PATIENT = """
import sys
from initbench.cli.main import main
from initbench.runner import scheduler
scheduler.STOP_SECONDS = 3600.0
main()
"""


def test_a_second_signal_ends_the_workers_at_once(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "long.yaml").write_text(LONG, encoding="utf-8")
    command = [sys.executable, "-c", PATIENT, "run", "long.yaml", "--executor", "local", "--workers", "2"]
    process = start_in_group(command, tmp_path, environment)
    try:
        wait_until_training(process, tmp_path / "runs")
        workers = forked_workers(process.pid)
        assert len(workers) == 2
        for pid in workers:  # stopped processes cannot answer the first signal
            os.kill(pid, signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):  # it waits for their checkpoints
            process.communicate(timeout=2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        end_group(process)
    assert process.returncode == 130 and "Traceback" not in err
    store = Store(tmp_path / "runs")
    assert {record["status"] for record in store.records()} == {"interrupted"}


def start_in_group(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start a command in a process group of its own."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end_group(process: subprocess.Popen[str]) -> None:
    """Kill what is left of a process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until_training(process: subprocess.Popen[str], runs: Path) -> None:
    """Until both runs have been evaluated in the middle of their training."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        files = list(runs.glob(f"*/{METRICS}"))
        if len(files) == 2 and all(file.read_bytes().count(b"\n") >= 2 for file in files):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("the training did not begin")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A store whose one run prints more than a pipe holds, made without training."""
    layers = [
        {
            "index": i,
            "name": f"blocks.{i - 1}.linear",
            "pre": {"mean": 0.0, "std": 1.0, "q": 1.0},
            "act": {
                "mean": 0.5,
                "std": 0.5,
                "zero_fraction": 0.5,
                "dead_fraction": 0.0,
                "saturated_fraction": None,
                "histogram": {"edges": [0.0, 1.0, 2.0], "counts": [5, 5], "below": 0, "above": 0, "nan": 0},
            },
            "grad": {"pre_q": 1.0, "weight_norm": 1.0},
        }
        for i in range(1, 1001)
    ]
    record: dict[str, Any] = {
        "experiment": "deep",
        "arm": "a",
        "seed": 0,
        "dataset": "digits",
        "dataset_requested": "digits",
        "device": "cpu",
        "steps": 10,
        "config": {
            "model": {"family": "mlp", "depth": 1001, "width": 4, "activation": "relu", "norm": "none"},
            "init": {"scheme": "zeros"},
        },
        "diagnosis": [],
    }
    point = {"epoch": 0.0, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5}
    with Store(tmp_path / "runs").claim("deep-s0-0123456789", record, "") as run:
        run.append_convergence({"step": 0, **point})
        run.append_snapshot({"when": "init", "step": 0, "layers": layers})
        accuracies = {"train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5, "test_accuracy": 0.5}
        run.finish({"final": accuracies})
    return tmp_path


WATCH = """
import json, sys
from initbench.cli.main import run_command
heavy = ("torch", "numpy", "scipy", "sklearn", "torchvision")
report = {"import": [name for name in heavy if name in sys.modules]}
for command in json.loads(sys.argv[1]):
    code = run_command(command)
    report[" ".join(command)] = [code, [name for name in heavy if name in sys.modules]]
print("\\n" + json.dumps(report))
"""


def test_looking_at_runs_does_not_import_torch(stored: Path, environment: dict[str, str]) -> None:
    commands = [
        ["--help"],
        ["run", "--help"],
        ["catalog", "--help"],
        ["explain", "--help"],
        ["--version"],
        ["ls"],
        ["ls", "--json"],
        ["watch"],
        ["watch", "--json"],
        ["show", "deep"],
        ["show", "deep", "--json"],
        ["compare"],
        ["compare", "--json"],
        ["rm", "deep", "--yes"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", WATCH, json.dumps(commands)],
        cwd=stored,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert report.pop("import") == []
    numerical = {"compare --json", "rm deep --yes"}  # intervals take scipy; what one has loaded stays
    expected = {" ".join(command): [0, []] for command in commands}
    assert report == expected | {command: [0, ["numpy", "scipy"]] for command in numerical}, done.stderr
    assert not (stored / "runs" / "deep-s0-0123456789").exists()


@pytest.mark.parametrize(
    "pipeline",
    [
        "show deep --all-layers | head -1",
        "--help | true",
        *(
            pytest.param(pipeline, marks=pytest.mark.slow)
            for pipeline in (
                "show deep --json | head -c 20",
                "show deep --json | true",
                "show deep --all-layers | true",
                "ls | true",
                "compare | true",
            )
        ),
    ],
)
def test_a_reader_that_goes_away_is_no_error(
    stored: Path, environment: dict[str, str], pipeline: str
) -> None:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'"{sys.executable}" -m initbench {pipeline}'],
        cwd=stored,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0


def test_the_output_of_a_process_is_whole(stored: Path, environment: dict[str, str]) -> None:
    """Exit like a command whose output is read to its end."""
    done = subprocess.run(
        [*COMMAND, "show", "deep", "--all-layers"],
        cwd=stored,
        env={**environment, "COLUMNS": "30"},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    rows = [line for line in done.stdout.splitlines() if line.startswith(("layer ", "head "))]
    assert len(rows) == 1000
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["show", "deep"],
        *(
            pytest.param(command, marks=pytest.mark.slow)
            for command in (["ls"], ["compare"], ["show", "deep", "--json"])
        ),
    ],
)
def test_an_ascii_terminal_is_written_to(
    stored: Path, environment: dict[str, str], command: list[str]
) -> None:
    done = subprocess.run(
        [*COMMAND, *command],
        cwd=stored,
        env={**environment, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"deep" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["show"], "initbench: name a run or an experiment; `initbench ls` lists them\n"),
        (["rm"], "Error: Missing argument 'RUN|NAME|GLOB'.\n"),
        (["run"], "Error: Missing argument 'FILE|KEY=VALUE'.\n"),
        (["validate"], "Error: Missing argument 'FILE|KEY=VALUE'.\n"),
        (["data", "fetch"], "Error: Missing argument 'NAME…'.\n"),
        (["compare", "--bogus"], "Error: No such option: --bogus"),
        ([], "To start, run: initbench run configs/relu_kaiming.yaml\n"),
        (["data"], "\n  fetch   Fetch data sets into the data root"),
    ],
)
def test_a_usage_error_is_a_sentence_on_stderr(initbench: Any, words: list[str], sentence: str) -> None:
    said = initbench(*words)
    assert (said.code, said.out) == (2, "")
    assert sentence in said.err
    assert "│" not in said.err


@pytest.mark.parametrize("words", [["--help"], ["data", "--help"]])
def test_help_names_every_command_uncut(initbench: Any, words: list[str]) -> None:
    said = initbench(*words)
    assert said.code == 0
    assert "..." not in said.out.partition("Commands:")[2]


def test_every_error_has_the_exit_code_of_its_kind() -> None:
    assert [kind.exit_code for kind in (UsageError, DataError, StoreError, DeviceError)] == [2, 3, 3, 3]


def test_training_does_not_load_torch_s_compiler_or_sympy(tmp_path: Path) -> None:
    """They take 1.5 s and 0.5 s. torch loads them for a pass on the device "meta", or `nll_loss` in vmap."""
    (tmp_path / "short.yaml").write_text(LONG.replace("10000000", "2"), encoding="utf-8")
    code = WATCH.replace('"torch", ', '"torch._dynamo", "sympy", ')
    command = ["run", "short.yaml", "--executor", "inprocess", "--quiet"]
    done = run_forked(tmp_path, json.dumps([command]), source=code)
    status, loaded = json.loads(done.stdout.splitlines()[-1])[" ".join(command)]
    assert status == 0 and not {"torch._dynamo", "sympy"} & set(loaded), done.stderr
