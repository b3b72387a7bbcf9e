"""Read a run although a rerun may take its place at any moment.

A writer swaps two directories by renames (`moves.swap`): live → old, rerun → live, old → trash. A reader
opens files by their paths: it may find nothing at the live place, see files of two attempts, or lose a file
between two calls. A result therefore counts only when the path named the same directory before and after, and
so does an error. Each repetition needs another swap: a high load cannot use up a number of attempts.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from initbench.store.run_directory import RunPaths

T = TypeVar("T")
DirectoryIdentity = tuple[int, int, int]

_MAX_ABSENCES = 10
"""Looks in a row, in a root that does not change, after which there is no such run."""
_MAX_RESTLESS_READS, _MAX_RESTLESS_SECONDS = 10, 5.0
"""How often and how long a directory that stays in its place, but gets new files, is read again."""
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
_PIN = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


def read_stable_directory(places: RunPaths, look: Callable[[Path], T | None]) -> T | None:
    """Return what `look` sees in the run's directory, read while that was one and the same directory.

    Args:
        places: The directories that may hold the run.
        look: Reads one directory. It may be called several times, and its errors count like its results.

    Returns:
        What `look` returned, or None when there is no such run.
    """
    absences, looks, end = 0, 0, time.monotonic() + _MAX_RESTLESS_SECONDS
    root: DirectoryIdentity | None = None
    while absences < _MAX_ABSENCES:
        previous_root, root = root, directory_identity(places.root)
        directory = places.locate()
        with _pinned(directory) as identity:
            if directory is None or identity is None:
                absences = absences + 1 if root == previous_root else 1
                continue
            absences, looks = 0, looks + 1
            result, error = _attempt(look, directory)
            after = directory_identity(directory)
        if after is None or after[:2] != identity[:2]:
            continue
        is_restless = after != identity or (isinstance(error, OSError) and error.errno == errno.ESTALE)
        if is_restless and (looks < _MAX_RESTLESS_READS or time.monotonic() < end):
            continue
        if error is not None:
            raise error
        return result
    return None


def directory_identity(path: Path | int) -> DirectoryIdentity | None:
    """Return device, inode and last change of a directory or descriptor, or None when it is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a descriptor has no Path
    except OSError as error:
        if error.errno in _VANISHED:
            return None
        raise
    return status.st_dev, status.st_ino, status.st_ctime_ns


@contextmanager
def _pinned(directory: Path | None) -> Iterator[DirectoryIdentity | None]:
    """Hold a directory open, so that none that is made meanwhile can be given its inode number."""
    if directory is None:
        yield None
        return
    try:
        descriptor = os.open(directory, _PIN)
    except OSError:  # vanished, or this process may not open it or any more
        yield directory_identity(directory)
        return
    try:
        yield directory_identity(descriptor)
    finally:
        os.close(descriptor)


def _attempt(look: Callable[[Path], T | None], directory: Path) -> tuple[T | None, Exception | None]:
    try:
        return look(directory), None
    except Exception as error:
        return None, error
