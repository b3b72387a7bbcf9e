"""Train in processes of this machine, one thread each."""

from __future__ import annotations

from initbench.machine import available_cores
from initbench.runner.workers.base import EXECUTORS, Executor, WorkerPool, WorkerPoolOptions
from initbench.runner.workers.process_pool import ProcessPool


def _start(conditions: WorkerPoolOptions) -> WorkerPool:
    devices = [str(conditions.device)] * (conditions.workers or available_cores())
    return ProcessPool(devices, conditions.datasets, conditions.memory)


EXECUTORS.add(
    Executor(
        name="local",
        summary="Processes of one thread each train, as many as cores; right for all that takes a while.",
        source="initbench",
        devices=("cpu",),
        start=_start,
    )
)
