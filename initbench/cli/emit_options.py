"""Options of `initbench sweep --emit`, which writes the sweep as a job of a cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import typer

from initbench.errors import UsageError

Emit = Annotated[
    Literal["slurm", "k8s"] | None,
    typer.Option(
        "--emit", help="Write the sweep as an array job of SLURM or Kubernetes instead (docs/cluster.md)."
    ),
]
JobDirectory = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="DIR", help="With --emit: new directory of the job.", file_okay=False
    ),
]
Tasks = Annotated[
    int | None,
    typer.Option(
        "--tasks",
        metavar="N",
        min=1,
        max=100_000,
        help="With --emit: number of tasks, which share the runs; default: by estimated time.",
    ),
]
MaxParallel = Annotated[
    int | None,
    typer.Option(
        "--max-parallel",
        metavar="N",
        min=1,
        max=100_000,
        help="With --emit: tasks that run at the same time.",
    ),
]
CpusPerTask = Annotated[
    int | None,
    typer.Option(
        "--cpus-per-task", metavar="N", min=1, max=1024, help="With --emit: processors of a task; default: 1."
    ),
]
GpusPerTask = Annotated[
    int | None,
    typer.Option(
        "--gpus-per-task",
        metavar="N",
        min=0,
        max=64,
        help="With --emit: GPUs of a task; default: 0, training on CPUs.",
    ),
]
MemoryPerTask = Annotated[
    float | None,
    typer.Option("--memory", metavar="GB", help="With --emit: memory of a task; default: the cluster's."),
]
TimeLimit = Annotated[
    str | None,
    typer.Option(
        "--time-limit",
        metavar="TIME",
        help="With --emit slurm: limit of a task, such as 30m or 4h; a task requeues itself. Default: 1h.",
    ),
]
MaxArraySize = Annotated[
    int | None,
    typer.Option(
        "--max-array-size",
        metavar="N",
        min=1,
        max=100_000,
        help="With --emit slurm: tasks per array; more tasks become several arrays. Default: 1000.",
    ),
]
SbatchOption = Annotated[
    list[str] | None,
    typer.Option(
        "--sbatch",
        metavar="OPTION",
        help="With --emit slurm: further option of sbatch, such as --sbatch=--partition=short; repeatable.",
    ),
]
Image = Annotated[
    str | None,
    typer.Option("--image", metavar="IMAGE", help="With --emit k8s: image with initbench installed."),
]
VolumeClaim = Annotated[
    str | None,
    typer.Option(
        "--volume-claim", metavar="NAME", help="With --emit k8s: persistent volume claim for the runs."
    ),
]
Setup = Annotated[
    list[str] | None,
    typer.Option(
        "--setup",
        metavar="COMMAND",
        help="With --emit: shell command before initbench, such as 'source venv/bin/activate'; repeatable.",
    ),
]
_OPTIONS = {
    "array_size": "max_array_size",
    "cpus": "cpus_per_task",
    "gpus": "gpus_per_task",
    "volume": "volume_claim",
}
"""Options that are not named after their parameter."""
_SLURM_ONLY = ("time_limit", "array_size", "sbatch")
_KUBERNETES_ONLY = ("image", "volume")


@dataclass(frozen=True)
class EmitOptions:
    """Options of `--emit`; None for those that are not on the command line."""

    output: Path | None
    tasks: int | None
    max_parallel: int | None
    cpus: int | None
    gpus: int | None
    memory: float | None
    time_limit: str | None
    array_size: int | None
    sbatch: list[str] | None
    image: str | None
    volume: str | None
    setup: list[str] | None

    @property
    def names(self) -> list[str]:
        """Names of the options on the command line, as fields of this class."""
        return [field.name for field in fields(self) if getattr(self, field.name) not in (None, [])]

    def device(self, device: str) -> str:
        """Return the device of the command: `device`, or the kind on which the tasks of a job train.

        Raises:
            UsageError: If `device` is not of the kind that the tasks have.
        """
        if self.output is None:
            return device
        kind = "cuda" if self.gpus else "cpu"
        if device not in ("auto", kind):
            remedy = "drop --device" if self.gpus else "request a GPU with --gpus-per-task 1"
            raise UsageError(f"--device {device} does not fit --gpus-per-task {self.gpus or 0}: {remedy}")
        return kind

    def check(self, kind: str | None) -> None:
        """Raise UsageError unless these options fit the kind of job, None for no job."""
        if kind is None:
            for name in self.names:
                raise UsageError(f"{option_of(name)} requires --emit slurm or --emit k8s")
            return
        if self.output is None:
            raise UsageError("--emit requires --output DIR, the new directory of the job")
        for name in _KUBERNETES_ONLY if kind == "slurm" else _SLURM_ONLY:
            if name in self.names:
                raise UsageError(f"{option_of(name)} cannot be combined with --emit {kind}")
        if kind == "k8s" and (missing := [name for name in _KUBERNETES_ONLY if name not in self.names]):
            raise UsageError(f"--emit k8s requires {' and '.join(map(option_of, missing))}")
        for name in ("sbatch", "setup"):
            for line in getattr(self, name) or []:
                _check_line(name, line)
        if self.image is not None and not re.fullmatch(r"[\w./:@-]+", self.image, re.ASCII):
            raise UsageError(f"--image takes the name of an image, not {self.image!r}")
        if self.volume is not None and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", self.volume):
            raise UsageError(
                f"--volume-claim takes the name of a persistent volume claim, not {self.volume!r}"
            )
        if self.memory is not None and not 0.0 < self.memory < 1e6:
            raise UsageError("--memory must be a positive number of GB")


def option_of(name: str) -> str:
    """Return the option of the command line that a parameter stands for."""
    return f"--{_OPTIONS.get(name, name).replace('_', '-')}"


def _check_line(name: str, line: str) -> None:
    if not line.isprintable() or not line.strip():
        raise UsageError(f"{option_of(name)} takes one line of text, not {line!r}")
    if name == "sbatch" and not line.startswith("-"):
        raise UsageError(
            f"--sbatch takes an option of sbatch, as in --sbatch=--partition=short, not {line!r}"
        )
