"""A sweep as an array job of a cluster, whose tasks train one shard each, and a last job that merges them."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from initbench.config.study import Sweep
from initbench.errors import UsageError
from initbench.runner.cost_model import training_cost
from initbench.runner.plan import RunContext
from initbench.store.files import read_text, write_atomic, writing_to
from initbench.store.merging import copy_runs
from initbench.study.run_study import load_stored_study
from initbench.study.sharding import split_into_shards

SWEEP_FILE = "sweep.yaml"
JOB_FILE = "job.json"
"""File that records the command by which a directory was written."""
SCHEMA = "initbench.job/1"


@dataclass(frozen=True)
class ArrayJob:
    """A sweep, divided into tasks."""

    name: str
    """Name of the sweep."""
    sweep: str
    """Contents of the sweep's file."""
    shards: int
    """Number of tasks, each of which trains one shard."""
    train: Sequence[str]
    """Arguments of `initbench sweep` for a task, after the file."""
    judge: Sequence[str]
    """Arguments of `initbench sweep` for the results, after the file."""
    runs_dir: str
    """Directory of the merged runs."""
    setup: Sequence[str]
    """Lines that a shell executes first, such as the activation of an environment."""
    cpus: int
    gpus: int
    """Processors and GPUs of a task."""
    memory: float | None
    """Memory of a task in GB; None for the default of the cluster."""
    max_parallel: int | None
    """Maximum number of tasks at a time."""
    command: Sequence[str]
    """Arguments of the command that writes the job."""

    @property
    def command_line(self) -> str:
        """The command that writes the job, on one line."""
        return shlex.join(["initbench", *self.command]).replace("\n", " ")


def script_body(name: str) -> str:
    """Return the fixed part of a script, which follows the variables of the job."""
    return (files("initbench.cluster") / "scripts" / name).read_text(encoding="utf-8")


def shell_array(name: str, words: Sequence[str]) -> str:
    """Return the assignment of an array in bash."""
    return f"{name}=({shlex.join(words)})"


def read_job(directory: Path, command: Sequence[str], sweep: str) -> dict[str, Any] | None:
    """Return the record of a job that the same command has written to a directory for the same sweep.

    Returns:
        The contents of `job.json`; None if the directory is empty or does not exist.

    Raises:
        UsageError: If the directory holds anything else.
    """
    with writing_to(directory):
        if not directory.exists() or not any(directory.iterdir()):
            return None
    try:
        record = json.loads(read_text(directory / JOB_FILE))
        contents = read_text(directory / SWEEP_FILE)
    except (OSError, ValueError):
        record, contents = None, ""
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise UsageError(f"{directory} is not empty; choose a new directory for --output")
    if record.get("command") != list(command) or contents != sweep:
        raise UsageError(
            f"{directory} holds the job of another command or of another version of the sweep; choose a new"
            " directory for --output"
        )
    return record


def write_job(
    directory: Path, job: ArrayJob, texts: Mapping[str, str], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the files of a job, and return its record.

    Args:
        directory: New or empty directory.
        job: The job.
        texts: Contents of the scripts by name; those that end with `.sh` become executable.
        facts: Further keys of the record.

    Raises:
        UsageError: If the directory cannot be written.
    """
    texts = {SWEEP_FILE: job.sweep, **texts}
    record = {"schema": SCHEMA, "command": list(job.command), "files": sorted([*texts, JOB_FILE]), **facts}
    with writing_to(directory):
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_atomic(directory / name, text)
            if name.endswith(".sh"):
                (directory / name).chmod(0o777 & ~_umask())
        write_atomic(directory / JOB_FILE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return record


def copy_stored_runs(sweep: Sweep, shards: int, context: RunContext, directory: Path) -> int:
    """Copy finished runs to the stores of the tasks that would train them; return the number of copies."""
    copied = 0
    for index, part in enumerate(split_into_shards(sweep, shards, training_cost), start=1):
        run_ids = load_stored_study(part, context).run_ids
        copied += copy_runs(context.store, run_ids, directory / "runs" / f"shard-{index}")
    return copied


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
