"""Train tasks in a thread of this process, for an executor whose driver fetches the events.

The driver may be on another machine, so a session also reports what the numbers of its runs depend on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

import torch

from initbench import plugins
from initbench.errors import Terminated
from initbench.interrupts import stop_trainings
from initbench.runner.dataset_cache import DatasetCache
from initbench.runner.environment import TRAINING_PACKAGES, machine_record
from initbench.runner.fingerprint_cache import package_digest
from initbench.runner.workers.base import PROGRESS_SECONDS, Died, Event, ReleaseRequest, Reported, run_task
from initbench.runner.workers.process_pool import POLL_SECONDS, memory_excess
from initbench.runner.workers.task import WorkerTask
from initbench.train.events import Diagnosed

IDLE_SECONDS = 5.0
"""Seconds after which a request for events is answered, although there are none."""


@dataclass(frozen=True)
class CodeVersions:
    """The code that computes the numbers of runs in a process."""

    package: str
    """Hash of the files of initbench."""
    distributions: dict[str, str]
    """Name → version of the packages that take part in training, and of installed plug-ins."""

    def difference(self, other: CodeVersions) -> str | None:
        """Return the first difference as words for the versions here and there, or None if there is none."""
        for name in sorted(self.distributions.keys() | other.distributions.keys()):
            ours, theirs = (each.distributions.get(name) for each in (self, other))
            if ours != theirs:
                return f"{name} {theirs or 'is not installed'} there, and {ours or 'is not installed'} here"
        return None if self.package == other.package else "other code of initbench there"


@dataclass(frozen=True)
class NodeFacts:
    """Facts about a worker on another machine that its driver needs."""

    node: str
    """Id of the machine in its cluster."""
    address: str
    pid: int
    code: CodeVersions


def code_versions() -> CodeVersions:
    """Return the versions of the code in this process."""
    distributions = plugins.installed_versions()
    for name in TRAINING_PACKAGES:
        try:
            distributions[name] = version(name)
        except PackageNotFoundError:
            continue
    return CodeVersions(package_digest(), distributions)


class TrainingSession:
    """Trains one task at a time, and keeps its events until they are fetched."""

    def __init__(self, memory: float | None = None, gpu_share: float = 0.0) -> None:
        """Start without a task.

        Args:
            memory: Limit of the memory of this process in bytes, or None for no limit.
            gpu_share: Share of the GPU's memory that this process may use; 0 without a GPU. A cohort that
                needs more is halved.
        """
        if gpu_share:
            torch.cuda.set_per_process_memory_fraction(gpu_share)
        self._memory = memory
        self._datasets = DatasetCache()
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._task: WorkerTask | None = None
        self._lock = Lock()
        self._runs_to_release = 0

    def begin(self, task: WorkerTask) -> None:
        """Start to train a task; the previous one must have ended."""
        with self._lock:
            self._task, self._runs_to_release = task, 0
        Thread(target=self._train, args=(task,), daemon=True).start()

    def events(self) -> list[Event]:
        """Wait for events of the task, and return all that there are; none after a while without any."""
        assert self._task is not None
        events: list[Event] = []
        try:
            events.append(self._events.get(timeout=IDLE_SECONDS if self._memory is None else POLL_SECONDS))
            while True:
                events.append(self._events.get_nowait())
        except Empty:
            excess = None if self._memory is None else memory_excess(os.getpid(), self._memory)
            if excess is not None:
                events.append(Died(self._task.number, excess, out_of_memory=True))
        return events

    def request_release(self, request: ReleaseRequest) -> None:
        """Ask the task for some of its runs, unless it has ended."""
        with self._lock:
            if self._task is not None and self._task.number == request.task:
                self._runs_to_release += request.runs

    def stop(self) -> None:
        """Tell the task to emit a checkpoint of its runs and to stop."""
        if not stop_trainings() and self._task is not None:
            self._events.put(_stopped(self._task))

    def _train(self, task: WorkerTask) -> None:
        torch.set_num_threads(1)  # of operations that this thread calls
        machine = machine_record(torch.device(task.device))

        def deliver(event: Event) -> None:
            self._events.put(_with_machine(event, machine))

        try:
            run_task(
                task,
                self._datasets,
                deliver,
                progress_seconds=PROGRESS_SECONDS,
                runs_to_release=self._take_requests,
            )
        except Terminated:
            self._events.put(_stopped(task))

    def _take_requests(self) -> int:
        with self._lock:
            runs, self._runs_to_release = self._runs_to_release, 0
        return runs


def _stopped(task: WorkerTask) -> Died:
    return Died(task.number, "its worker was asked to stop")


def _with_machine(event: Event, machine: dict[str, Any]) -> Event:
    """Return the event; the record of a run names the machine that finished it, not that of the driver."""
    if isinstance(event, Reported) and isinstance(event.event, Diagnosed):
        result = {**event.event.result, "machine": machine}
        return replace(event, event=replace(event.event, result=result))
    return event
