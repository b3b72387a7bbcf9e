"""Processes for the work of one command: a parallel map, and processes that work in the background."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, TypeVar

from initbench.machine import available_cores

if TYPE_CHECKING:
    from concurrent.futures import Executor

Item = TypeVar("Item")
Result = TypeVar("Result")

MIN_PARALLEL_ITEMS = 200
"""Number of items from which on processes are started; reading that many runs takes a second."""
_CHUNK_SIZE = 20
"""Number of items that a process receives at a time."""


def parallel_map(act: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result]:
    """Yield `act(item)` for each item, in order; an exception of `act` is raised and ends the iteration.

    Items and results must be picklable. If a worker process dies, the remaining items are processed in this
    process. Close the generator if it is not exhausted, to stop the worker processes.

    Args:
        act: A function that can be pickled.
        items: The items; from MIN_PARALLEL_ITEMS on, processes are started.
    """
    workers = min(available_cores(), len(items) // _CHUNK_SIZE) if len(items) >= MIN_PARALLEL_ITEMS else 1
    pool = background_processes(workers) if workers > 1 else None
    if pool is None:
        yield from map(act, items)
        return
    from concurrent.futures.process import BrokenProcessPool

    done = 0
    try:
        for result in pool.map(act, items, chunksize=_CHUNK_SIZE):
            yield result
            done += 1
    except (BrokenProcessPool, OSError):  # a worker was killed, or the system refused to start one
        yield from map(act, items[done:])
    finally:
        pool.shutdown(cancel_futures=True)


def background_processes(count: int) -> Executor | None:
    """Return processes that work for this one in the background; they ignore Ctrl-C.

    Shut them down at the end. If one dies, waiting for a result raises BrokenProcessPool.

    Args:
        count: Number of processes.

    Returns:
        The processes, forked at the first task, or None if `count` is 0 or this process must not fork.
    """
    if count < 1 or not _may_fork():
        return None
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    return ProcessPoolExecutor(count, mp_context=get_context("fork"), initializer=_ignore_interrupts)


def _may_fork() -> bool:
    """Return whether forking is safe: this process has a single thread and has not imported torch.

    A forked process has only the forking thread, so locks held by other threads are never released.
    """
    return threading.active_count() == 1 and "torch" not in sys.modules


def _ignore_interrupts() -> None:
    """Ignore SIGINT in a worker: Ctrl-C reaches the whole process group, and the parent stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
