"""Train on the nodes of a Ray cluster."""

from __future__ import annotations

from initbench.runner.workers.base import EXECUTORS, Executor, WorkerPool, WorkerPoolOptions
from initbench.runner.workers.ray_connection import ADDRESS_FORMS, check_address


def _start(conditions: WorkerPoolOptions) -> WorkerPool:
    from initbench.runner.workers.ray_pool import RayPool

    return RayPool(conditions)


EXECUTORS.add(
    Executor(
        name="ray",
        summary="The nodes of a Ray cluster train, one actor per CPU; without an address, Ray starts on this"
        " machine (extra ray).",
        source="initbench",
        devices=("cpu", "cuda"),
        start=_start,
        address_forms=ADDRESS_FORMS,
        check=check_address,
    )
)
