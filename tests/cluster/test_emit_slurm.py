"""Sweeps as jobs of SLURM: the scripts are executed by a stand-in for sbatch, which signals and requeues."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from cluster_programs import Programs, results

from initbench.cli import emit
from initbench.cli.lazy_group import load_command
from initbench.cli.main import app
from initbench.store.store import Store
from tests.processes import run_forked

Run = Callable[..., Any]
EMIT = ("sweep", "configs/tiny.yaml", "--emit", "slurm", "-o", "a job")


@pytest.fixture
def write(initbench: Run, folder: Path) -> Run:
    """Write the job of the sweep, with initbench from the path."""

    def run(*arguments: object) -> Path:
        said = initbench(*EMIT, "--setup", "true", *arguments)
        assert said.code == 0, said.err
        return folder / "a job"

    return run


def shards(calls: list[list[str]]) -> list[str]:
    """The shards of the calls, as in 2/3."""
    return [call[call.index("--shard") + 1] for call in calls if "--shard" in call]


def test_the_job_computes_what_the_sweep_computes(
    write: Run, initbench: Run, programs: Programs, folder: Path
):
    changes = ("train.lr=0.04,0.05", "model.depth=2", "seeds=1")
    assert initbench("sweep", "configs/tiny.yaml", *changes, "--workers", 1, "--runs-dir", "local").code == 0
    job = write("--tasks", "3", *changes, "--runs-dir", "my runs", "--fail-if", "mean(test_accuracy) < 0")
    (folder / "configs" / "base.yaml").unlink()  # the job has its own copy
    (folder / "configs" / "tiny.yaml").write_text("changed", encoding="utf-8")
    submitted = programs.run(job / "submit.sh", "--partition=short")
    assert (submitted.returncode, submitted.stderr) == (0, "")
    assert submitted.stdout == "submitted 1, and 2 to merge the runs\n"
    array, merge = programs.records("sbatch")
    assert array["options"]["array"] == "0-2" and merge["options"]["dependency"] == "afterany:1"
    assert {call["options"]["partition"] for call in (array, merge)} == {"short"}
    assert [task["code"] for task in programs.records("tasks")] == [0, 0, 0, 0]

    calls = programs.calls()
    assert sorted(shards(calls)) == ["1/3", "2/3", "3/3"] and len(calls) == 5
    *tasks, merging, judging = calls
    assert all("--fail-if" not in task and "--max-time" in task for task in tasks)
    for call in [*tasks, merging]:
        assert initbench(*call).code == 0
    said = initbench(*judging)
    assert (
        said.code == 0
        and "clear: mean(test_accuracy) < 0" in said.err
        and "clear: mean(divergence" in said.err
    )
    assert len(results(folder / "local")) == 4
    assert results(folder / "my runs") == results(folder / "local")

    times = {path: path.stat().st_mtime_ns for path in folder.rglob("run.json")}
    for call in calls:
        assert initbench(*call).code == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("run.json")} == times


def test_a_missing_run_fails_the_last_job(write: Run, initbench: Run, programs: Programs):
    programs.run(write("--tasks", "2") / "submit.sh")
    first, _, merging, judging = programs.calls()
    assert initbench(*first).code == initbench(*merging).code == 0
    said = initbench(*judging)
    assert said.code == 1 and re.search(r"initbench: [35] runs missing or unfinished: \w+", said.err)


def test_a_job_without_any_run_says_where_to_look(write: Run, programs: Programs):
    programs.add("initbench", "#!/bin/sh\nexit 3\n")
    job = write("--tasks", "2")
    programs.run(job / "submit.sh")
    assert [task["code"] for task in programs.records("tasks")] == [3, 3, 1]
    (log,) = (job / "logs").glob("merge-*.log")
    assert "no task has stored a run" in log.read_text(encoding="utf-8")


def test_more_tasks_than_an_array_may_have_become_several_arrays(write: Run, programs: Programs):
    job = write("--tasks", "8", "--max-array-size", "3", "--max-parallel", "2")
    programs.run(job / "submit.sh")
    calls = programs.records("sbatch")
    assert [call["options"].get("array") for call in calls] == ["0-2%2", "0-2%2", "0-1%2", None]
    assert [call["arguments"] for call in calls] == [["0"], ["3"], ["6"], []]
    assert calls[-1]["options"]["dependency"] == "afterany:1:2:3"
    assert sorted(shards(programs.calls())) == [f"{i}/8" for i in range(1, 9)]
    assert len(list((job / "logs").iterdir())) == 9


def test_without_a_number_of_tasks_the_estimated_time_decides(write: Run):
    assert json.loads((write() / "job.json").read_text(encoding="utf-8"))["tasks"] == 1


def test_no_task_is_empty(initbench: Run, folder: Path):
    said = initbench(*EMIT, "--tasks", "99", "--json")
    assert json.loads(said.out)["tasks"] == 8 and "8 tasks instead of 99" in said.err


@pytest.mark.parametrize(
    ("signal", "code"),
    [("USR1", 0), ("TERM", 143)],
    ids=["time limit", "preempted"],
)
def test_a_signal_stops_initbench_and_requeues_the_task(
    write: Run, programs: Programs, signal: str, code: int
):
    job = write("--tasks", "1")
    (programs.state / "slow").touch()
    # The second attempt is not slow: the stand-in removes the file when it is stopped.
    programs.set(FAKE_SIGNALS={"0": [signal]})
    assert programs.run(job / "submit.sh").returncode == 0
    tasks = programs.records("tasks")[:-1]
    assert [(task["code"], task["restarts"]) for task in tasks] == [(code, 0), (0, 1)]
    assert (programs.state / "stopped").exists() and shards(programs.calls()) == ["1/1", "1/1"]
    (log,) = (job / "logs").glob("1_*.log")
    assert ("reached its time limit" in log.read_text(encoding="utf-8")) == (signal == "USR1")


def test_time_that_is_up_requeues_the_task_a_limited_number_of_times(write: Run, programs: Programs):
    job = write("--tasks", "1", "--time-limit", "1m")
    script = job / "array.sbatch"
    text = script.read_text(encoding="utf-8")
    assert "#SBATCH --time=0-00:01:00\n" in text and "\nmax_seconds=54\n" in text and "USR1@3\n" in text
    changed = text.replace("max_seconds=54", "max_seconds=0").replace("max_requeues=50", "max_requeues=2")
    script.write_text(changed, encoding="utf-8")
    programs.run(job / "submit.sh")
    assert [task["code"] for task in programs.records("tasks")][:3] == [0, 0, 1]
    (log,) = (job / "logs").glob("1_*.log")
    assert "unfinished after 2 requeues; run submit.sh again" in log.read_text(encoding="utf-8")


def test_a_site_without_requeues_is_told_to_submit_again(write: Run, programs: Programs):
    job = write("--tasks", "1")
    (programs.state / "no-requeue").touch()
    script = job / "array.sbatch"
    text = script.read_text(encoding="utf-8")
    script.write_text(re.sub("max_seconds=.*", "max_seconds=0", text), encoding="utf-8")
    programs.run(job / "submit.sh")
    assert programs.records("tasks")[0]["code"] == 1
    (log,) = (job / "logs").glob("1_*.log")
    assert "cannot be requeued; run submit.sh again" in log.read_text(encoding="utf-8")


def test_stored_runs_are_not_trained_again(write: Run, initbench: Run, folder: Path, programs: Programs):
    assert initbench("sweep", "configs/tiny.yaml", "--workers", 1, "--limit", 3).code == 0
    stored = {record["run_id"] for record in Store(folder / "runs").records()}
    programs.run(write("--tasks", "3") / "submit.sh")
    copied = {path.parent.name for path in (folder / "a job").glob("runs/shard-*/*/run.json")}
    assert copied == stored and len(stored) == 3
    trained = [
        initbench(*call).err.count(" finished, val ") for call in programs.calls() if "--shard" in call
    ]
    assert sum(trained) == 5


def test_the_same_command_writes_once_and_another_is_refused(initbench: Run, folder: Path):
    assert initbench(*EMIT, "--tasks", "2").out.startswith("wrote a job: 2 tasks for 8 runs, about ")
    edited = folder / "a job" / "array.sbatch"
    edited.write_text("mine", encoding="utf-8")
    said = initbench(*EMIT, "--tasks", "2")
    assert said.code == 0 and said.out.startswith("already written by the same command: a job")
    assert edited.read_text(encoding="utf-8") == "mine"
    assert "another command" in initbench(*EMIT, "--tasks", "3").err
    base = folder / "configs" / "base.yaml"
    base.write_text(base.read_text(encoding="utf-8").replace("0.05", "0.06"), encoding="utf-8")
    said = initbench(*EMIT, "--tasks", "2")
    assert said.code == 2 and "another version of the sweep" in said.err
    said = initbench("sweep", "configs/tiny.yaml", "--emit", "slurm", "-o", "configs")
    assert said.code == 2 and "configs is not empty" in said.err


USER_CODE = """\
import torch
from torch import nn


def make(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets)
"""


def test_functions_and_plugins_of_the_user_reach_the_tasks(folder: Path, programs: Programs):
    (folder / "mine.py").write_text(USER_CODE, encoding="utf-8")
    (folder / "plug.py").touch()
    config = "kind: experiment\nname: own\nseeds: 1\ndata: {name: digits}\ninit: {scheme: as_built}\n"
    (folder / "own.yaml").write_text(config + "train: {steps: 2}\n", encoding="utf-8")
    functions = ("--model", "mine:make", "--loss-from", "mine:loss", "--plugin", "plug.py")
    said = run_forked(
        folder,
        *("sweep", "own.yaml", "model.options.width=4,8", *functions),
        *("--emit", "slurm", "-o", "a job", "--tasks", "2", "--setup", "true"),
    )
    assert said.returncode == 0, said.stderr
    programs.run(folder / "a job" / "submit.sh")
    tasks = [call for call in programs.calls() if "--shard" in call]
    assert [task[task.index("--loss-from") + 1] for task in tasks] == ["mine:loss", "mine:loss"]
    assert [task[task.index("--plugin") + 1] for task in tasks] == [str(folder / "plug.py")] * 2
    said = run_forked(folder, *tasks[0])
    assert said.returncode == 0 and "1 finished" in said.stderr, said.stderr


def test_resources_and_further_options_are_directives(write: Run, monkeypatch: pytest.MonkeyPatch):
    job = write(
        *("--tasks", "2", "--cpus-per-task", "4", "--memory", "2", "--time-limit", "30h"),
        *("--sbatch", "--partition=long", "--sbatch=--account=a b"),
    )
    text = (job / "array.sbatch").read_text(encoding="utf-8")
    for line in (
        "cpus-per-task=4",
        "mem=1908M",
        "time=1-06:00:00",
        "partition=long",
        "account=a b",
        "requeue",
    ):
        assert f"\n#SBATCH --{line}\n" in text
    assert "--device cpu --workers 4" in text and "gres" not in text
    assert "\n#SBATCH --partition=long\n" in (job / "merge.sbatch").read_text(encoding="utf-8")


def test_a_job_for_gpus_can_be_written_without_one(initbench: Run, folder: Path):
    said = initbench(*EMIT, "--gpus-per-task", "1", "--tasks", "2", "-o", "a job")
    assert said.code == 0, said.err
    text = (folder / "a job" / "array.sbatch").read_text(encoding="utf-8")
    assert "\n#SBATCH --gres=gpu:1\n" in text and "--device cuda" in text and "--workers" not in text


OPTIONS = {
    "no folder": (["--emit", "slurm"], "--emit requires --output DIR"),
    "no kind": (["-o", "x"], "--output requires --emit"),
    "tasks alone": (["--tasks", "3"], "--tasks requires --emit"),
    "shard": (["--shard", "1/2"], "--shard cannot be combined with --emit"),
    "time": (["--max-time", "2h"], "use --time-limit"),
    "retry": (["--retry", "failed"], "--retry cannot be combined with --emit"),
    "dry": (["--dry-run"], "--dry-run cannot be combined with --emit"),
    "short": (["--time-limit", "5s"], "--time-limit must be between one minute"),
    "no time": (["--time-limit", "soon"], "--time-limit takes a time such as"),
    "image": (["--image", "x"], "--image cannot be combined with --emit slurm"),
    "directive": (["--sbatch", "partition"], "--sbatch takes an option of sbatch"),
    "lines": (["--setup", "a\nb"], "--setup takes one line"),
    "memory": (["--memory", "nan"], "--memory must be a positive number"),
    "device": (["--device", "cuda"], "request a GPU with --gpus-per-task 1"),
    "one gpu": (["--device", "cuda:1", "--gpus-per-task", "1", "--tasks", "1"], "drop --device"),
    "stdin": (["-"], "--emit requires a file"),
    "gate": (["--fail-if", "nonsense"], "unknown metric"),
}


@pytest.mark.parametrize(("arguments", "message"), OPTIONS.values(), ids=OPTIONS)
def test_options_that_do_not_fit_are_refused(
    initbench: Run, folder: Path, arguments: list[str], message: str
):
    emitting = (
        [] if {"-o", "--emit"} & {*arguments} or arguments[0] == "--tasks" else ["--emit", "slurm", "-o", "x"]
    )
    said = initbench("sweep", "configs/tiny.yaml", *emitting, *arguments)
    assert said.code == 2 and message in said.err, said.err
    assert not (folder / "x").exists()


def test_a_point_that_starts_from_a_stored_run_is_refused(initbench: Run, folder: Path):
    said = initbench(*EMIT, "init.scheme={name: pretrained, from: tiny_source}")
    assert said.code == 2 and "starts from the run tiny_source" in said.err


def test_every_option_of_the_command_has_a_part_in_the_job():
    """A new option of `sweep` is passed to all commands of a job; list it here if that is right."""
    command = load_command(typer.main.get_command(app).commands["sweep"])
    passed = {"arguments", "model", "data_from", "skip_invalid", "data_dir", "offline", "loss_from"}
    parts = [passed, emit.UNSUITABLE, emit.TRAINING_ONLY, emit.RESULTS_ONLY, emit.REPLACED]
    names = [name for part in parts for name in part]
    assert sorted(names) == sorted(str(parameter.name) for parameter in command.params)
