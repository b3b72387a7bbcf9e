"""How many threads a training step uses on the CPU: as many as help right now.

Two threads in one process are up to 1.4 times as fast as one on a quiet machine, and up to
ten times slower when another process wants a core, since every parallel region waits for
the thread that was pushed aside. No constant is right, so both are timed while training. The
numbers do not change with it: a test holds them equal bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

WARM_UP = 4
"""Single-thread steps at the start, of which the first, which allocates, does not count."""
SMOOTHING = 0.3
RETRY_SECONDS, RETRY_SECONDS_MOST = 2.0, 30.0


class ThreadPacer:
    """Chooses between one thread and `most` for every step.

    A few steps with one thread give the time to beat. Several threads are used as long as their
    smoothed time beats it; when it does not, one thread goes on, and several are tried again after
    a pause that doubles with each failure.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.steps_with: dict[int, int] = {}
        self._threads = 1
        self._seconds: dict[int, float] = {}
        self._pause = RETRY_SECONDS
        self._next_try = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Run one training step under the thread count of the moment, and time it."""
        threads = self._threads
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        start = time.perf_counter()
        yield
        now = time.perf_counter()
        self.steps_with[threads] = self.steps_with.get(threads, 0) + 1
        if sum(self.steps_with.values()) > 1:
            self._smooth(threads, now - start)
            self._decide(now)

    def _smooth(self, threads: int, seconds: float) -> None:
        before = self._seconds.get(threads, seconds)
        self._seconds[threads] = before + SMOOTHING * (seconds - before)

    def _decide(self, now: float) -> None:
        if self._threads > 1:
            if self._seconds[self._threads] > self._seconds[1]:
                self._threads, self._next_try = 1, now + self._pause
                self._pause = min(2 * self._pause, RETRY_SECONDS_MOST)
        elif self.most > 1 and self.steps_with[1] >= WARM_UP and now >= self._next_try:
            self._threads = self.most
            self._seconds.pop(self.most, None)


@contextmanager
def thread_count_restored() -> Iterator[None]:
    """Leave torch's thread count as it was found."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
