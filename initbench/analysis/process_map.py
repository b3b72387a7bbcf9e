"""The same work on many items, over the cores of the machine where that pays."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MIN_PARALLEL_ITEMS = 200
"""Items from which on processes are started: reading as many runs takes a second."""
_CHUNK_SIZE = 20


def parallel_map(act: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result]:
    """`act(item)` for each, in order; whatever it raises ends it. To be closed when it is left early.

    Items and results travel between processes, and processes that die are done without.
    """
    workers = min(_available_cores(), len(items) // _CHUNK_SIZE)
    if len(items) < MIN_PARALLEL_ITEMS or workers < 2 or not _may_fork():
        yield from map(act, items)
        return
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    done = 0
    pool = ProcessPoolExecutor(workers, mp_context=get_context("fork"), initializer=_ignore_interrupts)
    try:
        for result in pool.map(act, items, chunksize=_CHUNK_SIZE):
            yield result
            done += 1
    except (BrokenProcessPool, OSError):  # killed, or refused by the system
        yield from map(act, items[done:])
    finally:
        pool.shutdown(cancel_futures=True)


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # a container may have fewer than the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _may_fork() -> bool:
    """A forked process has one thread, and what others held is never given back."""
    return threading.active_count() == 1 and "torch" not in sys.modules


def _ignore_interrupts() -> None:
    """Ctrl-C goes to the whole group, and the process that was started is the one to end the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
