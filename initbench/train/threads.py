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

TRIAL_STEPS = 3
RECONSIDER_SECONDS = 4.0


class ThreadPacer:
    """Chooses between one thread and `most`, by the fastest of a few steps of each, and again every few seconds."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.steps_with: dict[int, int] = {}
        self._choice = most
        self._trial: list[int] = self._plan()
        self._best: dict[int, float] = {}
        self._next_trial = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Run one training step under the thread count of the moment, and time it."""
        threads = self._trial[0] if self._trial else self._choice
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        self.steps_with[threads] = self.steps_with.get(threads, 0) + 1
        start = time.perf_counter()
        yield
        now = time.perf_counter()
        if self._trial:
            self._record(threads, now - start, now)
        elif self.most > 1 and now > self._next_trial:
            self._trial, self._best = self._plan(), {}

    def _plan(self) -> list[int]:
        return [self.most] * TRIAL_STEPS + [1] * TRIAL_STEPS if self.most > 1 else []

    def _record(self, threads: int, seconds: float, now: float) -> None:
        self._best[threads] = min(seconds, self._best.get(threads, seconds))
        self._trial.pop(0)
        if not self._trial:
            self._choice = min(self._best, key=self._best.__getitem__)
            self._next_trial = now + RECONSIDER_SECONDS


@contextmanager
def thread_count_restored() -> Iterator[None]:
    """Leave torch's thread count as it was found."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
