"""A progress bar on stderr for one download, with the interface that pooch expects."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class DownloadBar:
    """An implementation of pooch's progress protocol (`total`, `update`, `reset`, `close`) with rich."""

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
        """Advance by `size` bytes."""
        self._progress.advance(self._task, size)

    def reset(self) -> None:
        """Reset to zero; pooch calls this before it fills the bar."""
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        """Draw the final state."""
        self._progress.refresh()


@contextmanager
def download_bar(label: str) -> Iterator[DownloadBar | None]:
    """Show a bar while the block runs; yields None if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.DownloadColumn())
    # The context ends the live display and restores the cursor, even if the download fails.
    with bars.Progress(*columns, bars.TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        yield DownloadBar(progress, label)
