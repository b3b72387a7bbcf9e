"""Times of the parts of a training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Timings:
    """Seconds spent on each activity."""

    train: float = 0.0
    evaluate: float = 0.0
    probe: float = 0.0


class Stopwatch:
    """Adds up the seconds of activities; the time of a nested one does not count for the outer one."""

    def __init__(self, earlier: Timings | None = None) -> None:
        self._seconds: dict[str, float] = {} if earlier is None else dict(vars(earlier))
        self._open: tuple[str, float] | None = None

    @contextmanager
    def measure(self, what: str) -> Iterator[None]:
        """Count the time of the block for `what`, a field of Timings."""
        outer = self._pause()
        self._open = (what, time.perf_counter())
        try:
            yield
        finally:
            self._pause()
            self._open = None if outer is None else (outer, time.perf_counter())

    def timings(self) -> Timings:
        """Return the seconds counted so far, including the current activity."""
        going_on = () if self._open is None else (self._open[0],)
        return Timings(**{what: self._so_far(what) for what in {*self._seconds, *going_on}})

    def _pause(self) -> str | None:
        """Count and end the current activity; return its name, or None if there is none."""
        if self._open is None:
            return None
        what, _ = self._open
        self._seconds[what] = self._so_far(what)
        self._open = None
        return what

    def _so_far(self, what: str) -> float:
        earlier = self._seconds.get(what, 0.0)
        if self._open is None or self._open[0] != what:
            return earlier
        return earlier + time.perf_counter() - self._open[1]
