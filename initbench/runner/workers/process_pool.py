"""Provide a worker pool of single-threaded processes, which stay alive for any number of tasks."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from initbench.errors import DeviceError, Terminated
from initbench.interrupts import EndsAtStep, install_worker_handler
from initbench.runner.dataset_cache import DatasetCache
from initbench.runner.workers.base import (
    PROGRESS_SECONDS,
    Deliver,
    Died,
    Event,
    Failed,
    Finished,
    ReleaseRequest,
    run_task,
)
from initbench.runner.workers.fork_server import blocked_signals, safe_path, worker_context
from initbench.runner.workers.task import WorkerTask

POLL_SECONDS = 0.2
"""Seconds between memory checks of workers with a memory limit."""
_PIPE_CLOSED = (EOFError, OSError)
"""Errors of a pipe whose other end is closed, possibly in the middle of a message."""
_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def worker_main(pipe: Connection) -> None:
    """Run tasks from the pipe and send their events, until the pipe is closed or the runner ends.

    After SIGTERM the process sends a checkpoint of its runs and ends.
    """
    _exit_with_runner()
    install_worker_handler()
    torch.set_num_threads(1)
    datasets = DatasetCache()

    def send(event: Event) -> None:
        try:
            pipe.send(event)
        except OSError:
            raise SystemExit from None  # the parent closed the pipe

    try:
        pipe.send(None)  # ready
        while True:
            task = pipe.recv()
            if isinstance(task, WorkerTask):  # else a request to a task that has ended
                requests = partial(_requested_releases, pipe, task.number)
                run_task(task, datasets, send, progress_seconds=PROGRESS_SECONDS, runs_to_release=requests)
    except _PIPE_CLOSED:
        pass
    except Terminated as end:
        os._exit(end.exit_code)  # at once: all events have been sent, and the parent waits for the end


def _requested_releases(pipe: Connection, task: int) -> int:
    """Return the number of runs that the messages in the pipe ask this task to release."""
    requested = 0
    while pipe.poll():
        message = pipe.recv()
        assert isinstance(message, ReleaseRequest)  # tasks are only sent to workers without one
        if message.task == task:
            requested += message.runs
    return requested


def _exit_with_runner() -> None:
    """Make this process end together with the one that started it, even after kill -9 of either.

    The parent of a forked worker is the fork server, which ends with the process of the runner.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    process = parent_process()
    if process is None:
        os._exit(1)
    sentinel = process.sentinel

    def watch() -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class ProcessPool:
    """A pool of one process per entry of `devices`; each starts when it is first needed.

    Workers on the CPU share the data sets of this process.
    """

    threads = 1

    def __init__(self, devices: Sequence[str], datasets: DatasetCache, memory: float | None = None) -> None:
        self._workers = [_Worker(device) for device in devices]
        self._datasets, self._memory = datasets, memory

    @property
    def workers(self) -> int:
        """Maximum number of tasks in training at a time."""
        return len(self._workers)

    def free_device(self) -> str | None:
        """Return the device of a worker without a task, preferably of a started one; None if all are busy."""
        free = [worker for worker in self._workers if worker.task is None]
        return max(free, key=lambda worker: worker.is_started).device if free else None

    def submit(self, task: WorkerTask) -> None:
        """Give the task to a free worker, and start its process if necessary."""
        if task.device == "cpu":
            task = replace(task, shared_data=self._datasets.share(task.resolved, task.program.data))
        free = [w for w in self._workers if w.task is None and w.device == task.device]
        max(free, key=lambda worker: worker.is_started).begin(task)

    def request_release(self, request: ReleaseRequest) -> None:
        """Send the request to the worker of the task."""
        for worker in self._workers:
            if worker.task is not None and worker.task.number == request.task:
                worker.request_release(request)

    def poll(self, deliver: Deliver, seconds: float) -> None:
        """Deliver the events of the workers, and enforce the memory limit."""
        seconds = min(seconds, POLL_SECONDS) if self._memory is not None else seconds
        with EndsAtStep():  # a signal in the middle of a message would lose the messages after it
            self._deliver_events(deliver, seconds)
        if self._memory is not None:
            for worker in self._workers:
                worker.enforce_memory_limit(self._memory)

    def stop(self, deliver: Deliver, seconds: float) -> None:
        """Tell busy workers to send a checkpoint and to end, and deliver their events until then."""
        end = time.monotonic() + seconds
        for worker in self._workers:
            worker.request_stop()
        while (remaining := end - time.monotonic()) > 0.0 and any(w.is_readable for w in self._workers):
            self._deliver_events(deliver, remaining)

    def _deliver_events(self, deliver: Deliver, seconds: float) -> None:
        """Wait up to `seconds` for events, and deliver one of each worker that has any."""
        busy = {worker.pipe: worker for worker in self._workers if worker.is_readable}
        for pipe in connection.wait([pipe for pipe in busy if pipe is not None], seconds):
            assert isinstance(pipe, Connection)
            event = busy[pipe].receive()
            if event is not None:
                deliver(event)

    def close(self) -> None:
        """Kill all worker processes."""
        for worker in self._workers:
            worker.end()


class _Worker:
    """A slot for one process and its task."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.task: WorkerTask | None = None
        self.pipe: Connection | None = None
        self._process: BaseProcess | None = None
        self._is_here = False
        self._is_receiving = False
        self._excess: str | None = None

    @property
    def is_started(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.is_alive()

    @property
    def is_readable(self) -> bool:
        """Whether the process has a task, and its next message can be read from the start."""
        return self.task is not None and self.pipe is not None and not self._is_receiving

    def begin(self, task: WorkerTask) -> None:
        """Send the task, or keep it until the process is ready, because an unread pipe holds little."""
        if not self.is_started:
            self.end()
            self._start()
        self.task = task
        if self._is_here:
            self._send(task)

    def request_release(self, request: ReleaseRequest) -> None:
        """Send the request if the process has received its task."""
        if self._is_here:
            self._send(request)

    def receive(self) -> Event | None:
        """Return the next event; None if the process became ready, `Died` if it is dead."""
        assert self.pipe is not None and self.task is not None
        self._is_receiving = True  # stays so if a signal leaves the rest of a message in the pipe
        try:
            event: Event | None = self.pipe.recv()
        except _PIPE_CLOSED:
            return self._death_event()
        self._is_receiving = False
        if event is None:
            self._is_here = True
            self._send(self.task)
        if isinstance(event, Finished | Failed):
            self.task = None
        return event

    def enforce_memory_limit(self, most: float) -> None:
        """Kill the process if it uses more than `most` bytes; `receive` then reports its death."""
        if self.task is None or self._process is None or self._excess is not None:
            return
        assert self._process.pid is not None
        self._excess = memory_excess(self._process.pid, most)
        if self._excess is not None:
            self._process.kill()

    def request_stop(self) -> None:
        """Tell a busy process to send a checkpoint of its runs and to end."""
        if self.task is not None and self._process is not None:
            self._process.terminate()

    def end(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        if self.pipe is not None:
            self.pipe.close()
        self._process = self.pipe = self.task = self._excess = None
        self._is_here = self._is_receiving = False

    def _start(self) -> None:
        context = worker_context(self.device)
        try:
            self.pipe, theirs = context.Pipe()
            with theirs, blocked_signals(), safe_path():
                process = context.Process(target=worker_main, args=(theirs,), daemon=True)
                process.start()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            advice = "fewer --workers, or --executor inprocess, need less"
            raise DeviceError(f"a worker process cannot be started: {reason}; {advice}") from error
        self._process = process

    def _send(self, message: WorkerTask | ReleaseRequest) -> None:
        assert self.pipe is not None
        with suppress(*_PIPE_CLOSED):  # its death is received next
            self.pipe.send(message)

    def _death_event(self) -> Died:
        assert self._process is not None and self.task is not None
        self._process.join()
        reason = self._excess or f"its worker process ended with exit code {self._process.exitcode}"
        event = Died(self.task.number, reason, out_of_memory=self._excess is not None)
        self.end()
        return event


def memory_excess(pid: int, most: float) -> str | None:
    """Return why a worker process has to end, or None if it uses at most this number of bytes."""
    resident = resident_bytes(pid)
    if resident <= most:
        return None
    return f"its worker process took {resident / 1e9:.2f} GB of memory, and {most / 1e9:.2f} GB are allowed"


def resident_bytes(pid: int) -> float:
    """Return the resident memory of a process in bytes; 0 if it is unknown."""
    statm = Path(f"/proc/{pid}/statm")
    with suppress(OSError, ValueError, IndexError, subprocess.SubprocessError):
        if statm.exists():
            return float(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
        command = ["ps", "-o", "rss=", "-p", str(pid)]
        return 1024.0 * float(subprocess.run(command, capture_output=True, timeout=5, check=True).stdout)
    return 0.0
