"""Workers in which a run of one seed does harm: `monkeypatch.setattr(pool, "work", deadly.killed)`.

A worker is a process of its own, so what is to go wrong in it has to be there by import.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from initbench.runner.workers import base, process_pool
from initbench.train.events import Advanced, RunEvent

SEED = 3


def killed(pipe: Connection) -> None:
    """It is killed after its evaluation at init, as by the system when memory is short."""
    _with(lambda: os.kill(os.getpid(), signal.SIGKILL))
    process_pool.worker_main(pipe)


def greedy(pipe: Connection) -> None:
    """It takes 2 GB more than others and keeps them."""
    kept: list[bytearray] = []

    def take() -> None:
        if not kept:
            kept.append(bytearray(b"x") * 2_000_000_000)
            time.sleep(30.0)

    _with(take)
    process_pool.worker_main(pipe)


def failing(pipe: Connection) -> None:
    """It raises."""

    def fail() -> None:
        raise RuntimeError("out of luck")

    _with(fail)
    process_pool.worker_main(pipe)


def slow(pipe: Connection) -> None:
    """It takes 20 ms more for each update."""
    _with(lambda: time.sleep(0.02))
    process_pool.worker_main(pipe)


def _with(harm: Callable[[], None]) -> None:
    real = base.train

    def train(task: Any, data: Any, emit: Callable[[RunEvent], None], *rest: Any) -> None:
        def harmful(event: RunEvent) -> None:
            if isinstance(event, Advanced):
                harm()
            emit(event)

        real(task, data, harmful if SEED in task.seeds else emit, *rest)

    base.train = train
