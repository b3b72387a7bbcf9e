"""Define workers, which receive tasks and return events, in this process or in others.

Tasks and events are plain data that can be pickled, so that they can pass between processes and machines.
Workers do not access the store; only the process of the runner writes to it. An executor is one entry in
`executors/`, which defines how its worker pool is started.
"""

from __future__ import annotations

import gc
import math
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from initbench.registry import Registry, RegistryEntry
from initbench.runner.dataset_cache import DatasetCache
from initbench.runner.workers.task import WorkerTask, train
from initbench.train.events import Advanced, Pretrained, RunEvent

PROGRESS_SECONDS = 0.1
"""Seconds between progress events that go through a pipe."""
_CPU_OUT_OF_MEMORY = "can't allocate memory"
"""Error message of torch on the CPU, where it raises a plain RuntimeError."""


@dataclass(frozen=True)
class ReleaseRequest:
    """Ask a task to release runs, so that a worker without a task can go on with them."""

    task: int
    runs: int
    """Number of runs to release."""


@dataclass(frozen=True)
class Reported:
    """A task emitted an event of its training."""

    task: int
    event: RunEvent


@dataclass(frozen=True)
class Finished:
    """A task finished; its results were reported before."""

    task: int


@dataclass(frozen=True)
class Failed:
    """A task raised an exception; its worker can take other tasks."""

    task: int
    error: str
    """Type and message of the exception, in one line."""
    traceback: str
    out_of_memory: bool = False
    """Whether fewer runs at a time may fit into memory."""


@dataclass(frozen=True)
class Died:
    """The worker of a task died, and the task is lost."""

    task: int
    reason: str
    out_of_memory: bool = False
    is_machine_lost: bool = False
    """Whether the machine of the worker was lost, which is no fault of the runs."""


Event = Reported | Finished | Failed | Died
Deliver = Callable[[Event], None]


def run_task(
    task: WorkerTask,
    datasets: DatasetCache,
    deliver: Deliver,
    *,
    progress_seconds: float,
    runs_to_release: Callable[[], int] = lambda: 0,
) -> None:
    """Train the task. An Exception in training becomes an event; other BaseExceptions propagate.

    Args:
        task: The task.
        datasets: Cached data sets of this process.
        deliver: Function that receives the events.
        progress_seconds: Minimum time between progress events; the end of a pre-trained layer always counts.
        runs_to_release: Returns the number of runs that the training releases at its current step.
    """
    deliver(_train_task(task, datasets, deliver, progress_seconds, runs_to_release))


def _train_task(
    task: WorkerTask,
    datasets: DatasetCache,
    deliver: Deliver,
    progress_seconds: float,
    runs_to_release: Callable[[], int],
) -> Event:
    reported = -math.inf

    def emit(event: RunEvent) -> None:
        """Deliver an event, but of progress only what is not too frequent."""
        nonlocal reported
        if isinstance(event, Advanced | Pretrained):
            now = time.monotonic()
            is_last = isinstance(event, Pretrained) and event.step == event.steps
            if now - reported < progress_seconds and not is_last:
                return
            reported = now
        deliver(Reported(task.number, event))

    try:
        data = datasets.of(task.resolved, task.program.data, torch.device(task.device), task.shared_data)
        train(task, data, emit, runs_to_release)
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


class WorkerPool(Protocol):
    """Workers that stay alive for any number of tasks."""

    threads: int
    """Number of threads that a task may use if the training mode of its cohort allows it."""

    @property
    def workers(self) -> int:
        """Maximum number of tasks in training at a time."""

    def free_device(self) -> str | None:
        """Return the device of a free worker, or None while all are busy."""

    def submit(self, task: WorkerTask) -> None:
        """Start a task on a free worker of its device."""

    def request_release(self, request: ReleaseRequest) -> None:
        """Ask a task in training for some of its runs, which it reports as released after their checkpoints.

        The task may end before it receives the request.
        """

    def poll(self, deliver: Deliver, seconds: float) -> None:
        """Wait up to `seconds` for events and deliver them; takes longer if this process trains.

        Exceptions of `deliver` propagate; after one, only `close` may be called.
        """

    def stop(self, deliver: Deliver, seconds: float) -> None:
        """Tell busy workers to emit a checkpoint of their runs and to stop, and deliver their events.

        Returns after `seconds` at the latest; only `close` may be called afterwards. Exceptions of `deliver`
        propagate.
        """

    def close(self) -> None:
        """Stop all workers, even busy ones; no events are delivered afterwards."""


@dataclass(frozen=True, kw_only=True)
class WorkerPoolOptions:
    """The options of a worker pool."""

    device: torch.device
    workers: int | None = None
    """Maximum number of workers; None for as many as the executor finds useful."""
    datasets: DatasetCache
    """Cached data sets of this process."""
    memory: float | None = None
    """Memory limit of a worker in bytes; None for no limit."""
    address: str | None = None
    """Where the executor finds its machines, if it takes an address."""
    notify: Callable[[str], None] = lambda _message: None
    """Callback for one-sentence messages to the user."""


@dataclass(frozen=True, kw_only=True)
class Executor(RegistryEntry):
    """A way to train tasks."""

    devices: tuple[str, ...]
    """Supported kinds of device."""
    start: Callable[[WorkerPoolOptions], WorkerPool]
    address_forms: tuple[str, ...] = ()
    """Forms of the address in `--executor NAME:ADDRESS`; empty if the executor takes none."""
    check: Callable[[str | None], None] = lambda _address: None
    """Raise UsageError if the address is not valid, or if packages of the executor are missing."""


EXECUTORS: Registry[Executor] = Registry("executor", "initbench.runner.workers.executors", group="executors")
