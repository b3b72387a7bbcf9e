"""A parallel map over processes, which is used only for enough items to be worth it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from initbench.machine import available_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

MIN_PARALLEL_ITEMS = 200
"""Number of items from which on processes are started; reading that many runs takes a second."""
_CHUNK_SIZE = 20


def parallel_map(
    act: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    min_items: int | None = None,
    chunk_size: int = _CHUNK_SIZE,
) -> Generator[Result]:
    """Yield `act(item)` for each item, in order; an exception of `act` is raised and ends the iteration.

    Items and results must be picklable. If a worker process dies, the remaining items are processed in this
    process. Close the generator if it is not exhausted, to stop the worker processes.

    Args:
        act: A function that can be pickled.
        items: The items.
        min_items: Number of items from which on processes are started; default: MIN_PARALLEL_ITEMS.
        chunk_size: Number of items that a process receives at a time.
    """
    workers = min(available_cores(), len(items) // chunk_size)
    if (
        len(items) < (MIN_PARALLEL_ITEMS if min_items is None else min_items)
        or workers < 2
        or not _may_fork()
    ):
        yield from map(act, items)
        return
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    done = 0
    pool = ProcessPoolExecutor(workers, mp_context=get_context("fork"), initializer=_ignore_interrupts)
    try:
        for result in pool.map(act, items, chunksize=chunk_size):
            yield result
            done += 1
    except (BrokenProcessPool, OSError):  # a worker was killed, or the system refused to start one
        yield from map(act, items[done:])
    finally:
        pool.shutdown(cancel_futures=True)


def _may_fork() -> bool:
    """Return whether forking is safe: this process has a single thread and has not imported torch.

    A forked process has only the forking thread, so locks held by other threads are never released.
    """
    return threading.active_count() == 1 and "torch" not in sys.modules


def _ignore_interrupts() -> None:
    """Ignore SIGINT in a worker: Ctrl-C reaches the whole process group, and the parent stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
