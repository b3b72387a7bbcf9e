"""A sweep as an array job of SLURM."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from initbench.cluster.array_job import SWEEP_FILE, ArrayJob, script_body, shell_array

MAX_REQUEUES = 50
"""Number of times that a task requeues itself before it gives up."""
MIN_TIME_LIMIT, MAX_TIME_LIMIT = 60.0, 366 * 86_400.0
_MERGE_SECONDS = 3600.0
_MARGIN, _MAX_MARGIN = 0.1, 600.0
"""Share of the time limit, and maximum number of seconds, for starting and stopping."""


@dataclass(frozen=True)
class SlurmOptions:
    """Settings of an array job that only SLURM has."""

    directory: Path
    """Directory of the scripts, absolute."""
    working_directory: Path
    """Directory in which the commands are executed, absolute."""
    program: Sequence[str]
    """Words that start initbench."""
    time_limit: float
    """Seconds."""
    array_size: int
    """Maximum number of tasks of an array."""
    sbatch: Sequence[str]
    """Further options of sbatch."""

    @property
    def margin(self) -> float:
        """Seconds of the time limit in which nothing is trained."""
        return min(_MARGIN * self.time_limit, _MAX_MARGIN)


def slurm_files(job: ArrayJob, options: SlurmOptions) -> dict[str, str]:
    """Return the scripts by name: `array.sbatch`, `merge.sbatch`, and `submit.sh`, which submits both."""
    return {
        "array.sbatch": _array_script(job, options),
        "merge.sbatch": _merge_script(job, options),
        "submit.sh": _submit_script(job, options),
    }


def _array_script(job: ArrayJob, options: SlurmOptions) -> str:
    directives = [
        f"--job-name=initbench-{job.name}",
        f"--time={_format_time(options.time_limit)}",
        *_resource_directives(job),
        f"--signal=B:USR1@{max(1, math.floor(options.margin / 2))}",
        "--requeue",
        "--open-mode=append",
        "--output=logs/%A_%a.log",
        *options.sbatch,
    ]
    variables = [
        f"shards={job.shards}",
        f"max_seconds={math.floor(options.time_limit - options.margin)}",
        f"max_requeues={MAX_REQUEUES}",
        _command("train", job.train),
    ]
    purpose = f"Trains shard K of {job.shards} of the sweep {job.name} in each task; submit.sh submits it."
    return _script(job, options, directives, purpose, variables, "slurm_task.sh")


def _merge_script(job: ArrayJob, options: SlurmOptions) -> str:
    directives = [
        f"--job-name=initbench-{job.name}-merge",
        f"--time={_format_time(min(options.time_limit, _MERGE_SECONDS))}",
        "--cpus-per-task=1",
        "--output=logs/merge-%j.log",
        *options.sbatch,
    ]
    variables = [f"runs={shlex.quote(job.runs_dir)}", _command("judge", job.judge)]
    purpose = "Merges the runs of all tasks, and shows and judges them; fails if a run is missing."
    return _script(job, options, directives, purpose, variables, "slurm_merge.sh")


def _submit_script(job: ArrayJob, options: SlurmOptions) -> str:
    limit = "" if job.max_parallel is None else f"%{job.max_parallel}"
    lines = [
        "#!/bin/bash",
        "# Submits all tasks, and then the merge of their runs. Its options are passed to sbatch, as in",
        "#   ./submit.sh --partition=short --account=mine",
        "# If runs are missing at the end, submit again: finished runs are not trained again.",
        "set -euo pipefail",
        f"shards={job.shards}",
        f"array_size={options.array_size}",
        f"at_a_time={limit}",
        script_body("slurm_submit.sh"),
    ]
    return "\n".join(lines)


def _script(
    job: ArrayJob,
    options: SlurmOptions,
    directives: Sequence[str],
    purpose: str,
    variables: Sequence[str],
    body: str,
) -> str:
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {directive}" for directive in directives),
        f"# {purpose}",
        f"# Written by: {job.command_line}",
        "",
        f"cd -- {shlex.quote(str(options.working_directory))} || exit 3",
        *job.setup,
        f"directory={shlex.quote(str(options.directory))}",
        shell_array("initbench", options.program),
        *variables,
        "",
        script_body(body),
    ]
    return "\n".join(lines)


def _command(name: str, arguments: Sequence[str]) -> str:
    """Return the assignment of a command on the sweep's file."""
    return f'{name}=(sweep "$directory/{SWEEP_FILE}" {shlex.join(arguments)})'


def _resource_directives(job: ArrayJob) -> list[str]:
    gpus = [f"--gres=gpu:{job.gpus}"] if job.gpus else []
    memory = [] if job.memory is None else [f"--mem={math.ceil(job.memory * 1e9 / 2**20)}M"]
    return ["--nodes=1", "--ntasks=1", f"--cpus-per-task={job.cpus}", *gpus, *memory]


def _format_time(seconds: float) -> str:
    """Return a time limit as days, hours, minutes and seconds, in whole minutes."""
    minutes = math.ceil(seconds / 60.0)
    days, hours = divmod(minutes // 60, 24)
    return f"{days}-{hours:02}:{minutes % 60:02}:00"
