"""Train large cohorts on the GPUs of this machine, one process per GPU."""

from __future__ import annotations

import torch

from initbench.runner.workers.base import EXECUTORS, Executor, WorkerPool, WorkerPoolOptions
from initbench.runner.workers.in_process import InProcessWorkers
from initbench.runner.workers.process_pool import ProcessPool


def _start(conditions: WorkerPoolOptions) -> WorkerPool:
    """Start one process per GPU, the selected GPU first; a single GPU is used from this process."""
    first = conditions.device.index or 0
    available = torch.cuda.device_count()
    count = min(conditions.workers or available, available)
    if count < 2:
        return InProcessWorkers(conditions.device, conditions.datasets)
    others = [index for index in range(available) if index != first]
    devices = [f"cuda:{index}" for index in [first, *others][:count]]
    return ProcessPool(devices, conditions.datasets, conditions.memory)


EXECUTORS.add(
    Executor(
        name="cuda",
        summary="Each GPU trains cohorts as large as its memory allows, halved where that was too many.",
        source="initbench",
        devices=("cuda",),
        start=_start,
    )
)
