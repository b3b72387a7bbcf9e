"""Provide a worker pool of this process alone, which trains one task after another."""

from __future__ import annotations

import torch

from initbench.errors import InitbenchError
from initbench.runner.dataset_cache import DatasetCache
from initbench.runner.workers.base import PROGRESS_SECONDS, Deliver, Event, ReleaseRequest, run_task
from initbench.runner.workers.task import WorkerTask
from initbench.train.thread_tuner import usable_threads


class InProcessWorkers:
    """A worker pool that trains during `poll`."""

    workers = 1

    def __init__(self, device: torch.device, datasets: DatasetCache) -> None:
        self._device, self._datasets = device, datasets
        self._task: WorkerTask | None = None
        self.threads = usable_threads() if device.type == "cpu" else 1

    def free_device(self) -> str | None:
        """Return the device of this process, or None if a task is already waiting."""
        return str(self._device) if self._task is None else None

    def submit(self, task: WorkerTask) -> None:
        """Keep the task until the next `poll`."""
        self._task = task

    def request_release(self, request: ReleaseRequest) -> None:
        """Do nothing, because no other worker can go on with the runs."""

    def poll(self, deliver: Deliver, seconds: float) -> None:
        """Train the waiting task until it finishes."""
        del seconds
        task, self._task = self._task, None
        if task is None:
            return

        def handed(event: Event) -> None:
            try:
                deliver(event)
            except InitbenchError as error:  # an error of the runner, not of the training
                raise _DeliveryError(error) from error

        pause = 0.0 if self._device.type == "cpu" else PROGRESS_SECONDS
        try:
            run_task(task, self._datasets, handed, progress_seconds=pause)
        except _DeliveryError as refused:
            raise refused.error from None

    def stop(self, deliver: Deliver, seconds: float) -> None:
        """Do nothing: a training ends with `poll`, and emits its checkpoint there if a signal ends it."""

    def close(self) -> None:
        """Do nothing, because no worker runs outside `poll`."""


class _DeliveryError(BaseException):
    """Carries an exception of the runner through the training code."""

    def __init__(self, error: InitbenchError) -> None:
        super().__init__()
        self.error = error
