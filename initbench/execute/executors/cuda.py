"""GPUs of this machine train large cohorts, one process for each."""

from __future__ import annotations

import torch

from initbench.execute.executor import EXECUTORS, Conditions, Crew, Executor
from initbench.execute.here import Here
from initbench.execute.pool import Pool


def _start(conditions: Conditions) -> Crew:
    """One GPU needs no second process; with several, each has one of its own, the chosen one first."""
    first = conditions.device.index or 0
    count = min(conditions.workers, torch.cuda.device_count())
    if count < 2:
        return Here(conditions.device, conditions.datasets)
    others = [index for index in range(torch.cuda.device_count()) if index != first]
    return Pool([f"cuda:{index}" for index in [first, *others][:count]], conditions.memory)


EXECUTORS.add(
    Executor(
        name="cuda",
        summary="Each GPU trains cohorts as large as its memory allows, halved where that was too many.",
        source="initbench",
        devices=("cuda",),
        start=_start,
    )
)
