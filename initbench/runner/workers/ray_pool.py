"""Provide a worker pool of actors in a Ray cluster, one CPU or a share of a GPU each.

A thread of this process per actor sends tasks and waits for their events. `poll` delivers the events in the
main thread. An actor that cannot be reached is killed before its task is given to another one, so that no run
is trained twice at a time.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from initbench.errors import DeviceError, InitbenchError
from initbench.interrupts import EndsAtStep
from initbench.runner.workers import ray_actor
from initbench.runner.workers.base import (
    Deliver,
    Died,
    Event,
    Failed,
    Finished,
    ReleaseRequest,
    WorkerPoolOptions,
)
from initbench.runner.workers.code_archive import collect_code
from initbench.runner.workers.ray_connection import RayConnection
from initbench.runner.workers.ray_data import ObjectStoreOwner
from initbench.runner.workers.task import WorkerTask
from initbench.runner.workers.training_session import NodeFacts, code_versions

COUNT_SECONDS = 2.0
"""Seconds between two counts of the processors of the cluster, which may gain and lose nodes."""
WAIT_NOTICE_SECONDS = 30.0
"""Seconds without any worker after which the command says what it waits for."""
MAX_FAILED_STARTS = 3
"""Number of actors in a row that may die while they start."""
JOIN_SECONDS = 2.0
_Message = NodeFacts | Event | BaseException


class RayPool:
    """A pool of actors; each starts when it is first needed."""

    threads = 1

    def __init__(self, options: WorkerPoolOptions) -> None:
        """Connect to the cluster; raise DeviceError if there is none."""
        self._options = options
        self._code = code_versions()
        archive = collect_code()
        self._connection = RayConnection(options.address, options.workers)
        ray = self._connection.ray
        ray.cloudpickle.register_pickle_by_value(ray_actor)
        self._actor_class = ray.remote(max_concurrency=4)(ray_actor.NodeActor)
        self._arguments = (ray.put(archive.files), archive.digest, archive.variables, str(Path.cwd()))
        self._actors: list[_Actor] = []
        self._waiting: deque[WorkerTask] = deque()
        self._inbox: SimpleQueue[tuple[_Actor, _Message]] = SimpleQueue()
        self._failed_starts = 0
        self._count, self._counted = 0, -COUNT_SECONDS
        self._waiting_since, self._is_reported = time.monotonic(), False

    @property
    def workers(self) -> int:
        """Number of actors for which the cluster has processors at present, or that `--workers` asks for."""
        if self._options.workers is not None:
            return self._options.workers
        now = time.monotonic()
        if now - self._counted >= COUNT_SECONDS:
            self._counted = now
            is_cpu = self._options.device.type == "cpu"
            self._count = max(1, self._connection.total("CPU" if is_cpu else "GPU"))
        return self._count

    def free_device(self) -> str | None:
        """Return the device of the actors if the pool takes one more task."""
        busy = len(self._waiting) + sum(actor.task is not None for actor in self._actors)
        if busy >= self.workers:
            return None
        return "cpu" if self._options.device.type == "cpu" else "cuda:0"  # an actor sees no other GPU

    def submit(self, task: WorkerTask) -> None:
        """Give the task to the next actor that is free, and start actors if necessary."""
        with EndsAtStep():
            data = self._options.datasets.share(task.resolved, task.program.data, ObjectStoreOwner)
            self._waiting.append(replace(task, shared_data=data))
            self._assign_tasks()

    def request_release(self, request: ReleaseRequest) -> None:
        """Send the request to the actor of the task."""
        for actor in self._actors:
            if actor.task is not None and actor.task.number == request.task:
                actor.handle.request_release.remote(request)

    def poll(self, deliver: Deliver, seconds: float) -> None:
        """Deliver the events of the actors, and start actors instead of those that died."""
        with EndsAtStep():  # a signal between two events must not lose the second one
            self._assign_tasks()
            self._deliver_messages(deliver, seconds)
            self._report_waiting()

    def stop(self, deliver: Deliver, seconds: float) -> None:
        """Tell busy actors to emit a checkpoint of their runs and to stop, and deliver their events."""
        self._waiting.clear()
        end = time.monotonic() + seconds
        for actor in self._actors:
            if actor.task is not None:
                actor.handle.stop.remote()
        while (remaining := end - time.monotonic()) > 0.0 and any(actor.task for actor in self._actors):
            self._deliver_messages(deliver, remaining)

    def close(self) -> None:
        """Kill all actors and disconnect."""
        for actor in self._actors:
            actor.end()
        for actor in self._actors:
            actor.thread.join(JOIN_SECONDS)
        self._actors.clear()
        self._connection.close()

    def _assign_tasks(self) -> None:
        """Give waiting tasks to idle actors, and start actors for the others."""
        for actor in self._actors:
            if self._waiting and actor.is_ready and actor.task is None:
                actor.begin(self._waiting.popleft())
        starting = sum(not actor.is_ready for actor in self._actors)
        for _ in range(min(len(self._waiting) - starting, self.workers - len(self._actors))):
            self._actors.append(self._start_actor())

    def _start_actor(self) -> _Actor:
        gpu_share = 0.0
        if self._options.device.type == "cuda":
            gpu_share = min(1.0, self._connection.total("GPU") / self.workers)
        options = {
            "num_cpus": 0 if gpu_share else 1,
            "num_gpus": gpu_share,
            "scheduling_strategy": "SPREAD",
        }
        limits = (self._options.memory, gpu_share)
        handle = self._actor_class.options(**options).remote(*self._arguments, *limits)
        return _Actor(self._connection, handle, self._inbox)

    def _deliver_messages(self, deliver: Deliver, seconds: float) -> None:
        """Wait up to `seconds` for a message, and handle all that there are."""
        with suppress(Empty):
            self._handle(*self._inbox.get(timeout=seconds), deliver)
            while True:
                self._handle(*self._inbox.get_nowait(), deliver)

    def _handle(self, actor: _Actor, message: _Message, deliver: Deliver) -> None:
        if actor not in self._actors:
            return
        if isinstance(message, NodeFacts):
            self._check_code(message)
            actor.facts, self._failed_starts = message, 0
            self._assign_tasks()
        elif isinstance(message, BaseException):
            self._on_death(actor, message, deliver)
        else:
            if isinstance(message, Finished | Failed):
                actor.task = None
            elif isinstance(message, Died):  # it exceeds its memory, or stopped on request
                self._remove(actor)
            deliver(message)

    def _check_code(self, facts: NodeFacts) -> None:
        """Raise DeviceError if an actor would compute with other code, which run ids must tell."""
        difference = self._code.difference(facts.code)
        if difference is not None:
            raise DeviceError(
                f"node {facts.address} of the Ray cluster has other packages than this machine: {difference};"
                " install the same versions on all nodes"
            )

    def _on_death(self, actor: _Actor, error: BaseException, deliver: Deliver) -> None:
        task = actor.task
        self._remove(actor)
        ray_errors = self._connection.ray.exceptions
        if not isinstance(error, ray_errors.RayError) or isinstance(error, ray_errors.RayTaskError):
            raise InitbenchError(f"a Ray actor failed: {_last_line(error)}") from error
        if actor.facts is None:
            self._failed_starts += 1
            if getattr(error, "actor_init_failed", False) or self._failed_starts >= MAX_FAILED_STARTS:
                raise DeviceError(f"a Ray actor cannot be started: {_last_line(error)}") from error
        elif task is not None:
            is_lost = isinstance(error, ray_errors.ActorUnavailableError) or not self._connection.is_alive(
                actor.facts.node
            )
            address = actor.facts.address
            reason = f"Ray lost the node {address}" if is_lost else f"its Ray actor on {address} died"
            out_of_memory = not is_lost and "low on memory" in str(error)
            deliver(Died(task.number, reason, out_of_memory=out_of_memory, is_machine_lost=is_lost))

    def _remove(self, actor: _Actor) -> None:
        actor.end()
        self._actors.remove(actor)

    def _report_waiting(self) -> None:
        """Say once what the command waits for, if no actor has run for a while."""
        if not self._waiting or any(actor.is_ready for actor in self._actors):
            self._waiting_since = time.monotonic()
        elif not self._is_reported and time.monotonic() - self._waiting_since >= WAIT_NOTICE_SECONDS:
            self._is_reported = True
            processor = "CPU" if self._options.device.type == "cpu" else "GPU"
            self._options.notify(f"waiting for a free {processor} in the Ray cluster")


class _Actor:
    """An actor, its task, and the thread that waits for it."""

    def __init__(
        self, connection: RayConnection, handle: Any, inbox: SimpleQueue[tuple[_Actor, _Message]]
    ) -> None:
        self.handle = handle
        self.task: WorkerTask | None = None
        self.facts: NodeFacts | None = None
        self._connection, self._inbox = connection, inbox
        self._tasks: SimpleQueue[WorkerTask | None] = SimpleQueue()
        self.thread = Thread(target=self._receive, daemon=True)
        self.thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether the actor runs."""
        return self.facts is not None

    def begin(self, task: WorkerTask) -> None:
        """Send a task to the actor, which must have none."""
        self.task = task
        self._tasks.put(task)

    def end(self) -> None:
        """Kill the actor, and end its thread."""
        self.task = None
        self._tasks.put(None)
        self._connection.kill(self.handle)

    def _receive(self) -> None:
        """Put everything that the actor reports into the inbox; in the thread."""
        ray = self._connection.ray
        try:
            self._inbox.put((self, ray.get(self.handle.describe.remote())))
            while (task := self._tasks.get()) is not None:
                ray.get(self.handle.begin.remote(task))
                is_training = True
                while is_training:
                    for event in ray.get(self.handle.events.remote()):
                        self._inbox.put((self, event))
                        is_training = not isinstance(event, Finished | Failed | Died)
        except BaseException as error:
            self._inbox.put((self, error))


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
