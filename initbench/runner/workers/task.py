"""Train one task and report it in events, in this process or in a worker."""

from __future__ import annotations

import gc
import math
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from initbench.pretrain.layerwise import PretrainingProgress
from initbench.runner.dataset_cache import DatasetCache
from initbench.runner.workers.base import Deliver, Event, Failed, Finished, Reported, WorkerTask
from initbench.runner.workers.job import train

PROGRESS_SECONDS = 0.1
"""Seconds between progress reports that go through a pipe or need a GPU synchronization."""
_CPU_OUT_OF_MEMORY = "can't allocate memory"
"""Error message of torch on the CPU, where it raises a plain RuntimeError."""


def run_task(task: WorkerTask, datasets: DatasetCache, deliver: Deliver, *, progress_seconds: float) -> None:
    """Train the task. An Exception in training becomes an event; other BaseExceptions propagate."""
    deliver(_train_task(task, datasets, deliver, progress_seconds))


def _train_task(task: WorkerTask, datasets: DatasetCache, deliver: Deliver, progress_seconds: float) -> Event:
    try:
        job = task.job()
        data = datasets.of(task.resolved, job.program.data, job.device)
        train(job, data, _EventSender(task.number, deliver, progress_seconds))
        return Finished(task.number)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        failed = Failed(task.number, message, traceback.format_exc(), is_out_of_memory(error))
    if failed.out_of_memory:  # the frames of the exception, which held the tensors, are gone by now
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return failed


def is_out_of_memory(error: Exception) -> bool:
    """Return whether a training failed because memory ran out."""
    is_torch = isinstance(error, torch.OutOfMemoryError) or _CPU_OUT_OF_MEMORY in str(error)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and is_torch)


class _EventSender:
    """A sink that turns reports into events and limits the rate of progress events."""

    def __init__(self, task: int, deliver: Deliver, progress_seconds: float) -> None:
        self._task, self._deliver = task, deliver
        self._pause = progress_seconds
        self._last = -math.inf

    def advanced(self, step: int, losses: Tensor) -> None:
        """Send the progress, unless an event was sent less than `progress_seconds` ago."""
        if self._is_due():
            self._send("advanced", step, tuple(losses.tolist()))

    def pretraining(self, stride: PretrainingProgress) -> None:
        """Send the progress of pre-training at the same rate, and always the end of each layer."""
        if self._is_due() or stride.step == stride.steps:
            self._send("pretraining", stride)

    def __getattr__(self, report: str) -> Callable[..., None]:
        return lambda *arguments: self._send(report, *arguments)

    def _is_due(self) -> bool:
        now = time.monotonic()
        if self._pause and now - self._last < self._pause:
            return False
        self._last = now
        return True

    def _send(self, report: str, *arguments: Any) -> None:
        self._deliver(Reported(self._task, report, arguments))
