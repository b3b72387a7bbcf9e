"""A crew of one: this process trains, one task after another."""

from __future__ import annotations

import torch

from initbench.errors import InitbenchError
from initbench.runner.dataset_cache import DatasetCache
from initbench.runner.workers.base import Deliver, Event, WorkerTask
from initbench.runner.workers.task import PROGRESS_SECONDS, run_task
from initbench.train.thread_tuner import usable_threads


class InProcessWorkers:
    """Trains while it is waited for."""

    def __init__(self, device: torch.device, datasets: DatasetCache) -> None:
        self._device, self._datasets = device, datasets
        self._task: WorkerTask | None = None
        self.threads = usable_threads() if device.type == "cpu" else 1

    def free_device(self) -> str | None:
        """This process's device, unless a task waits for it."""
        return str(self._device) if self._task is None else None

    def submit(self, task: WorkerTask) -> None:
        """Keep the task until somebody waits."""
        self._task = task

    def poll(self, deliver: Deliver, seconds: float) -> None:
        """Train the task to its end."""
        del seconds
        task, self._task = self._task, None
        if task is None:
            return

        def handed(event: Event) -> None:
            try:
                deliver(event)
            except InitbenchError as error:  # is the driver's, and no fault of the training
                raise _DeliveryError(error) from error

        pause = 0.0 if self._device.type == "cpu" else PROGRESS_SECONDS
        try:
            run_task(task, self._datasets, handed, progress_seconds=pause)
        except _DeliveryError as refused:
            raise refused.error from None

    def close(self) -> None:
        """Nothing is running."""


class _DeliveryError(BaseException):
    """Carries an exception of the driver past what trains."""

    def __init__(self, error: InitbenchError) -> None:
        super().__init__()
        self.error = error
