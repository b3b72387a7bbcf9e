"""Train in this process."""

from __future__ import annotations

from initbench.runner.workers.base import EXECUTORS, Executor, WorkerPool, WorkerPoolOptions
from initbench.runner.workers.in_process import InProcessWorkers


def _start(conditions: WorkerPoolOptions) -> WorkerPool:
    return InProcessWorkers(conditions.device, conditions.datasets)


EXECUTORS.add(
    Executor(
        name="inprocess",
        summary="This process trains, one cohort after another; right for short work, and for a debugger.",
        source="initbench",
        devices=("cpu", "cuda"),
        start=_start,
    )
)
