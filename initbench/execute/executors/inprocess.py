"""This process trains."""

from __future__ import annotations

from initbench.execute.executor import EXECUTORS, Conditions, Crew, Executor
from initbench.execute.here import Here


def _start(conditions: Conditions) -> Crew:
    return Here(conditions.device, conditions.datasets)


EXECUTORS.add(
    Executor(
        name="inprocess",
        summary="This process trains, one cohort after another; right for short work, and for a debugger.",
        source="initbench",
        devices=("cpu", "cuda"),
        start=_start,
    )
)
