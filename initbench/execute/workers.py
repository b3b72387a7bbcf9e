"""Train jobs in worker processes of one thread each; what they report is written by this process alone.

They live as long as there are jobs. Whether they pay is said by `initbench.execute.pace`.
"""

from __future__ import annotations

import math
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from initbench.config.schema import ExperimentConfig
from initbench.data.prepare import Bundle, prepare
from initbench.data.resolve import Resolved
from initbench.errors import Terminated
from initbench.execute.job import Job, Sink, train
from initbench.pretrain.greedy import Stride

Opened = Callable[[Job], AbstractContextManager[tuple[Job, Sink]]]
"""Claims the runs of a job for as long as the context lasts; gives the job as it is to be trained, with its
sink."""
_PROGRESS_SECONDS = 0.1


class WorkerError(RuntimeError):
    """What stopped a job in a worker; the traceback there is among the notes."""


@dataclass(frozen=True)
class _Order:
    """A job as it travels: the classes of a config are made at run time and cannot be pickled."""

    config: dict[str, Any]
    resolved: Resolved
    rest: dict[str, Any]

    @classmethod
    def of(cls, job: Job, resolved: Resolved) -> _Order:
        rest = {name: value for name, value in vars(job).items() if name != "config"}
        return cls(job.config.resolved(), resolved, rest)

    def job(self) -> Job:
        return Job(config=ExperimentConfig.model_validate(self.config), **self.rest)


class _Pipe:
    """A Sink that sends everything to the driver, progress a few times a second."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._last = -math.inf

    def advanced(self, step: int, losses: Tensor) -> None:
        """Send the progress, unless some was sent a moment ago."""
        now = time.monotonic()
        if now - self._last >= _PROGRESS_SECONDS:
            self._last = now
            self._pipe.send(("advanced", step, losses.clone().numpy()))

    def pretraining(self, stride: Stride) -> None:
        """The same for pre-training, and the end of each of its layers."""
        now = time.monotonic()
        if now - self._last >= _PROGRESS_SECONDS or stride.step == stride.steps:
            self._last = now
            self._pipe.send(("pretraining", stride))

    def __getattr__(self, report: str) -> Callable[..., None]:
        return lambda *arguments: self._pipe.send((report, *arguments))


def work(pipe: Connection) -> None:
    """The life of a worker: jobs come in, reports go out, until the pipe is closed."""
    torch.set_num_threads(1)
    loaded: dict[str, Bundle] = {}
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            order: _Order = pipe.recv()
            try:
                job = order.job()
                key = repr((order.resolved.located.fingerprint, job.config.data))
                if key not in loaded:
                    loaded = {key: prepare(order.resolved, job.config.data, job.device)}
                train(job, loaded[key], _Pipe(pipe))
                pipe.send(("done",))
            except (EOFError, BrokenPipeError, ConnectionResetError):
                raise
            except Exception as error:
                pipe.send(("failed", f"{type(error).__name__}: {error}", traceback.format_exc()))


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started inside never hear of Ctrl-C, not even while they import: the driver ends them."""
    if threading.current_thread() is not threading.main_thread():  # where no handler can be set
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Worker:
    """One process, and the job it has."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs,), daemon=True)
        with _deaf_to_interrupts():
            self._process.start()
        theirs.close()
        self._stack = ExitStack()
        self._sink: Sink | None = None

    @property
    def busy(self) -> bool:
        """Whether it has a job."""
        return self._sink is not None

    def begin(self, job: Job, resolved: Resolved, opened: Opened) -> None:
        """Claim the job's runs and send it off."""
        ready, self._sink = self._stack.enter_context(opened(job))
        self.pipe.send(_Order.of(ready, resolved))

    def receive(self) -> Exception | None:
        """Hand on one report; the error when the job has failed."""
        try:
            kind, *arguments = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            return self._fail(
                WorkerError(f"its worker process ended with exit code {self._process.exitcode}")
            )
        if kind == "failed":
            error = WorkerError(arguments[0])
            error.add_note(arguments[1])
            return self._fail(error)
        if kind == "done":
            self._sink = None
            self._stack.close()
        elif kind == "advanced":
            step, losses = arguments
            self._report("advanced", step, torch.from_numpy(losses))
        else:
            self._report(kind, *arguments)
        return None

    @property
    def alive(self) -> bool:
        """Whether it can take another job."""
        return self._process.is_alive()

    def leave(self) -> None:
        """End the process; the runs it still has are interrupted, for nothing that they did."""
        self._process.kill()
        self._process.join()
        self.pipe.close()
        interrupted = Terminated(signal.SIGTERM)
        self._stack.__exit__(Terminated, interrupted, None)

    def _report(self, name: str, *arguments: Any) -> None:
        getattr(self._sink, name)(*arguments)

    def _fail(self, error: WorkerError) -> WorkerError:
        self._sink = None
        stack, self._stack = self._stack, ExitStack()
        stack.__exit__(WorkerError, error, error.__traceback__)
        return error


def train_in_workers(
    jobs: Sequence[Job], resolved: Resolved, opened: Opened, *, workers: int
) -> list[Exception]:
    """Train all jobs in as many processes; returns what stopped those that failed.

    An exception here, an interrupt for one, ends the workers; the runs they had can be gone on with.
    """
    waiting = deque(jobs)
    errors: list[Exception] = []
    crew: list[Worker] = []
    try:
        while waiting or any(worker.busy for worker in crew):
            for worker in [worker for worker in crew if not worker.alive and not worker.busy]:
                worker.leave()
                crew.remove(worker)
            while len(crew) < min(workers, len(waiting) + sum(worker.busy for worker in crew)):
                crew.append(Worker())
            for worker in crew:
                if waiting and not worker.busy:
                    worker.begin(waiting.popleft(), resolved, opened)
            busy = {worker.pipe: worker for worker in crew if worker.busy}
            for pipe in connection.wait(list(busy)):
                if isinstance(pipe, Connection) and (error := busy[pipe].receive()) is not None:
                    errors.append(error)
    finally:
        for worker in crew:
            worker.leave()
    return errors
