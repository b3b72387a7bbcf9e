"""A progress bar on stderr for one download, in the form pooch asks for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class DownloadBar:
    """pooch's progress protocol (`total`, `update`, `reset`, `close`) drawn by rich."""

    def __init__(self, progress: Any, label: str) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=None)
        self._total = 0

    @property
    def total(self) -> int:
        """Size of the download in bytes; pooch sets it once the mirror has answered."""
        return self._total

    @total.setter
    def total(self, size: int) -> None:
        self._total = size
        self._progress.update(self._task, total=size or None)

    def update(self, size: int) -> None:
        """Move on by `size` bytes."""
        self._progress.advance(self._task, size)

    def reset(self) -> None:
        """Go back to zero; pooch does so before it fills the bar."""
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        """Draw the last state."""
        self._progress.refresh()


@contextmanager
def download_bar(label: str) -> Iterator[DownloadBar | None]:
    """A bar while the block runs, or None when stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.DownloadColumn())
    # The context ends the live display (and gives the cursor back) when the download fails, too.
    with bars.Progress(*columns, bars.TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        yield DownloadBar(progress, label)
