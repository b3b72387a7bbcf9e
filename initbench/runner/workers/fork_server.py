"""Fork worker processes from a server that has imported torch, which takes most of the time of their start.

The server is a process of its own, with a single thread: a fork of the process of the runner, which has
threads of OpenMP and others, could stop at a lock that a thread of its parent held.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext

from initbench.machine import available_cores

PRELOADED = "initbench.runner.workers.preloaded"
"""Module that the server imports."""
_SAFE_PATH = "PYTHONSAFEPATH"


def start_fork_server() -> None:
    """Start the server unless it runs; it imports torch while this process goes on.

    This function does nothing where workers are not forked, or on a machine with one core.
    """
    if can_fork() and available_cores() > 1:
        # Without it, the first worker starts the server, and reports the error if it cannot.
        with suppress(OSError), blocked_signals(), safe_path():
            forkserver.set_forkserver_preload([PRELOADED])
            forkserver.ensure_running()


def worker_context(device: str) -> ForkServerContext | SpawnContext:
    """Return the context that starts the workers of a device.

    Workers for a GPU are not forked: CUDA cannot be used in a process that was forked after it was
    initialised, and its libraries do not promise more. On macOS, system libraries do not survive a fork.
    """
    if device != "cpu" or not can_fork():
        return get_context("spawn")
    forkserver.set_forkserver_preload([PRELOADED])
    return get_context("forkserver")


def can_fork() -> bool:
    """Return whether workers on the CPU are forked on this system."""
    return sys.platform == "linux"


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Block SIGINT and SIGTERM, which a terminal or a batch system sends to all processes of a command.

    Processes started inside inherit the mask of blocked signals, and so do the processes that they fork; a
    worker unblocks SIGTERM once it can handle it. This process receives pending signals when the block ends.
    The resource tracker is started first, because its start would unblock SIGINT.
    """
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def safe_path() -> Iterator[None]:
    """Keep processes started inside from importing modules from the working directory."""
    previous = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if previous is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = previous
