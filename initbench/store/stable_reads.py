"""Consistent reads of a run that a rerun may replace at any moment.

A writer swaps two directories by renames (`directory_swap.promote_rerun`): live → old, rerun → live, old →
trash. A reader opens files by their paths: it may find no live directory, see files of two attempts, or lose
a file between two calls. A result or an error therefore counts only if the path named the same directory
before and after the read. The read is repeated only after another swap, so a high load cannot exhaust a fixed
number of attempts.
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
"""Consecutive failures to find a run, in a root that does not change, after which the run does not exist."""
_MAX_RESTLESS_READS, _MAX_RESTLESS_SECONDS = 10, 5.0
"""Reads, and seconds, for which a directory is read again that is not replaced but gets new files."""
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
_PIN = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


def read_stable_directory(places: RunPaths, look: Callable[[Path], T | None]) -> T | None:
    """Call `look` with the run's directory until it has read one and the same directory throughout.

    Args:
        places: The directories that may hold the run.
        look: A function that reads one directory. It may be called several times. An exception is
            propagated under the same conditions under which a result is returned.

    Returns:
        The result of `look`, or None if there is no such run.
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
    """Return device, inode and ctime (ns) of a directory or descriptor, or None if it does not exist."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a descriptor has no Path
    except OSError as error:
        if error.errno in _VANISHED:
            return None
        raise
    return status.st_dev, status.st_ino, status.st_ctime_ns


@contextmanager
def _pinned(directory: Path | None) -> Iterator[DirectoryIdentity | None]:
    """Hold a directory open, so that no directory created in the meantime can reuse its inode number."""
    if directory is None:
        yield None
        return
    try:
        descriptor = os.open(directory, _PIN)
    except OSError:  # it vanished, permission is denied, or there are too many open files
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
