"""A job of SLURM with real processes, whose tasks are preempted or reach their time limit during runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster_programs import Programs, results

Run = Callable[..., Any]


@pytest.mark.slow
def test_interrupted_tasks_resume_and_nothing_is_trained_twice(
    initbench: Run, programs: Programs, folder: Path, repository: Path
):
    steps = ("train.steps=3000", "train.eval_every=1000", "seeds=1")
    assert initbench("sweep", "configs/tiny.yaml", *steps, "--workers", 1, "--runs-dir", "local").code == 0
    programs.set(
        PYTHONPATH=str(repository),
        FAKE_SIGNALS={"0": ["TERM", "USR1"], "1": ["USR1"]},
        FAKE_ROOT=str(folder / "a job" / "runs"),
        FAKE_MOMENT="shard-{shard}/*/metrics.jsonl",
    )
    said = initbench("sweep", "configs/tiny.yaml", *steps, "--emit", "slurm", "-o", "a job", "--tasks", 2)
    assert said.code == 0, said.err
    submit = folder / "a job" / "submit.sh"
    submitted = programs.run(submit)
    assert submitted.returncode == 0, submitted.stderr
    tasks = programs.records("tasks")
    logs = {path.name: path.read_text(encoding="utf-8") for path in (folder / "a job" / "logs").iterdir()}
    codes = {(task["index"], task["restarts"]): task["code"] for task in tasks[:-1]}
    assert codes == {(0, 0): 143, (0, 1): 0, (0, 2): 0, (1, 0): 0, (1, 1): 0}, logs
    assert tasks[-1]["code"] == 0, logs
    assert (
        all(task["checkpoints"] > 0 for task in tasks if task["signal"]) and "time limit" in logs["1_0.log"]
    )
    assert len(results(folder / "local")) == 4 and results(folder / "runs") == results(folder / "local")

    times = {path: path.stat().st_mtime_ns for path in folder.rglob("run.json")}
    programs.set(FAKE_SIGNALS={})
    assert programs.run(submit).returncode == 0
    assert [task["code"] for task in programs.records("tasks")[-3:]] == [0, 0, 0]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("run.json")} == times
