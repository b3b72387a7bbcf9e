"""Number of threads of a training step on the CPU: the number that is currently fastest.

Two threads in one process are up to 1.4 times as fast as one on an idle machine, and up to
ten times slower when another process needs a core, since every parallel region waits for
the thread that lost its core. No constant is right, so both are timed during training. The
numbers do not depend on it: a test checks that they are equal bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from initbench.train.matmul_precision import true_fp32

WARM_UP = 4
"""Number of single-thread steps at the start; the first of them, which allocates memory, is not timed."""
SMOOTHING = 0.1
CLIP = 3.0
"""Maximum time of a step, in single-thread steps: one outlier is tolerated, two or three are not."""
PAUSE_SECONDS, PAUSE_SECONDS_MOST = 0.5, 30.0
LASTED_SECONDS = 2.0


MAX_THREADS = 2
"""With three or more, torch chooses the number by the size of a tensor. The share of a thread may then end
within a vector, and rounding changes: with four threads, five stacked sigmoid layers of 128 × 128 differ."""


def usable_threads() -> int:
    """Return torch's number of threads, at most MAX_THREADS; 1 on a processor where numbers depend on it."""
    most = min(torch.get_num_threads(), MAX_THREADS)
    return most if most == 1 or products_agree() else 1


def _products(x: torch.Tensor, units: int) -> tuple[torch.Tensor, ...]:
    """Return the products of a forward and backward pass of a layer of `units`, for x (1, B, features)."""
    weight = torch.linspace(-1.0, 1.0, units * x.shape[2]).sin().view(1, units, x.shape[2]).to(x.dtype)
    h = x @ weight.mT
    return h, h @ weight, h.mT @ x, x[..., :8].mT @ h


@cache
def products_agree() -> bool:
    """Return whether one thread and MAX_THREADS give the same products in a training step, bit for bit.

    On some processors the library divides the terms of a sum among threads, not only the results.
    """
    previous, stream = torch.get_num_threads(), torch.Generator().manual_seed(0)
    x = torch.randn(1, 256, 128, generator=stream)
    products = []
    try:
        with true_fp32(torch.device("cpu")):
            for threads in (1, MAX_THREADS):
                torch.set_num_threads(threads)
                inputs = (x, x.bfloat16())
                products.append([p for x in inputs for units in (128, 10, 4) for p in _products(x, units)])
    finally:
        torch.set_num_threads(previous)
    return all(torch.equal(*pair) for pair in zip(*products, strict=True))


class ThreadPacer:
    """Chooses between one thread and `most` for every step.

    A few steps with one thread give the reference time. Several threads are used while their smoothed
    time is shorter; otherwise one thread is used, and several are tried again after a pause. The pause
    doubles each time, unless several threads were in use for LASTED_SECONDS.

    With `most` = 0 another device computes, and steps are neither timed nor counted.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.steps_with: dict[int, int] = {}
        self._threads = 1
        self._seconds: dict[int, float] = {}
        self._pause = PAUSE_SECONDS
        self._since = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Run one training step with the current number of threads, and time it."""
        if not self.most:
            yield
            return
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
        previous = self._seconds.get(threads, seconds)
        seconds = min(seconds, CLIP * self._seconds.get(1, seconds))
        self._seconds[threads] = previous + SMOOTHING * (seconds - previous)

    def _decide(self, now: float) -> None:
        lasted = now - self._since
        if self._threads > 1:
            if self._seconds[self._threads] > self._seconds[1]:
                self._pause = (
                    PAUSE_SECONDS if lasted > LASTED_SECONDS else min(2 * self._pause, PAUSE_SECONDS_MOST)
                )
                self._threads, self._since = 1, now
        elif self.most > 1 and self.steps_with[1] >= WARM_UP and (lasted > self._pause or not self._since):
            self._threads, self._since = self.most, now
            self._seconds[self.most] = self._seconds[1]
