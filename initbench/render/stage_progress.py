"""Progress of work in stages on stderr: a bar on a terminal, one line per stage when piped."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn


class StageDisplay:
    """Context manager that shows the progress of one stage at a time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._start = time.monotonic()

    def __enter__(self) -> StageDisplay:
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TaskProgressColumn(),
                TimeRemainingColumn(compact=True),
                console=self._console,
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            self._console.print(f"{self._name}: done in {time.monotonic() - self._start:.1f} s")

    def begun(self, what: str, total: int) -> None:
        """Start a stage of `total` units."""
        if self._bar is None:
            self._console.print(f"{self._name}: {what}")
            return
        self._bar.remove_task(self._task) if self._bar.task_ids else None
        self._task = self._bar.add_task(f"{self._name}: {what}", total=total)

    def advanced(self, units: int) -> None:
        """Record that `units` more units are done."""
        if self._bar is not None:
            self._bar.update(self._task, advance=units)
