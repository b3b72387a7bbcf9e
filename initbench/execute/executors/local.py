"""Processes of this machine train, one thread each."""

from __future__ import annotations

from initbench.execute.executor import EXECUTORS, Conditions, Crew, Executor
from initbench.execute.pool import Pool


def _start(conditions: Conditions) -> Crew:
    return Pool([str(conditions.device)] * conditions.workers, conditions.memory)


EXECUTORS.add(
    Executor(
        name="local",
        summary="Processes of one thread each train, as many as cores; right for all that takes a while.",
        source="initbench",
        devices=("cpu",),
        start=_start,
    )
)
