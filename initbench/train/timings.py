"""Where the time of a training goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Timings:
    """Seconds spent, by what they were spent on."""

    train: float = 0.0
    evaluate: float = 0.0
    probe: float = 0.0


class Stopwatch:
    """Adds up the seconds of one activity after another; a nested one is not counted for the outer."""

    def __init__(self, earlier: Timings | None = None) -> None:
        self._seconds: dict[str, float] = {} if earlier is None else dict(vars(earlier))
        self._open: tuple[str, float] | None = None

    @contextmanager
    def measure(self, what: str) -> Iterator[None]:
        """Count the time inside for `what`, one of the fields of Timings."""
        outer = self._pause()
        self._open = (what, time.perf_counter())
        try:
            yield
        finally:
            self._pause()
            self._open = None if outer is None else (outer, time.perf_counter())

    def timings(self) -> Timings:
        """What was counted until now, the activity that is going on included."""
        going_on = () if self._open is None else (self._open[0],)
        return Timings(**{what: self._so_far(what) for what in {*self._seconds, *going_on}})

    def _pause(self) -> str | None:
        """Count what is going on until now; what that is."""
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
