"""Locks that end with their process: POSIX record locks, which kill -9 and power loss release.

A process loses such a lock as soon as it closes *any* descriptor of the locked file. Therefore only this
module opens lock files. It keeps a table of the locks that this process holds and never opens a file that is
in the table.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from initbench.errors import StoreError

_Key = tuple[int, int]  # device and inode: a lock stays the same when its directory is renamed

_table_guard = threading.Lock()
_structure_guard = threading.Lock()
_held: set[_Key] = set()

STRUCTURE_LOCK = ".store.lock"
"""Name of the lock that is held while the set of run directories changes."""
PROBE_PATIENCE = 0.5
"""Seconds to wait for readers that check the lock; each holds a shared lock for a few microseconds."""
_SAFE_OPEN_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Flags for lock files in untrusted stores, which may be links or pipes."""
_NOT_REGULAR_ERRNOS = (errno.ELOOP, errno.ENXIO)
STRUCTURE_PATIENCE = 60.0
"""Seconds to wait while another process claims, swaps or removes a run."""


class FileLock:
    """An exclusive lock on one file, held until `release` or the end of the process."""

    def __init__(self, descriptor: int, key: _Key) -> None:
        self._descriptor: int | None = descriptor
        self._key = key

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        with _table_guard:
            if self._descriptor is not None:
                _held.discard(self._key)
                os.close(self._descriptor)
                self._descriptor = None


def acquire_lock(path: Path, patience: float = 0.0) -> FileLock | None:
    """Lock the file at `path`, which is created if necessary.

    Args:
        path: The lock file.
        patience: Seconds to wait for another holder. For a reader that only checks the lock, the wait is
            at least PROBE_PATIENCE.

    Returns:
        The lock, or None if another holder kept it all the time.

    Raises:
        OSError: If the file cannot be opened or its file system does not support locks.
    """
    start = time.monotonic()
    while (lock := _try_lock(path)) is None:
        waited = time.monotonic() - start
        if waited >= max(patience, PROBE_PATIENCE) or (waited >= patience and is_locked(path)):
            return None
        time.sleep(0.005)
    return lock


def is_locked(path: Path) -> bool:
    """Return whether a live process, this one included, holds the lock at `path`.

    A lock file without read permission counts as locked: the run belongs to another user.
    """
    with _table_guard:
        try:
            if _file_key(path) in _held:
                return True
            descriptor = os.open(path, os.O_RDONLY | _SAFE_OPEN_FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except PermissionError:
            return True
        except OSError as error:
            if error.errno in _NOT_REGULAR_ERRNOS:  # a link or a special file, which the store never creates
                return False
            raise
        try:
            return not _try_fcntl_lock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)


@contextmanager
def structure_lock(root: Path) -> Iterator[None]:
    """Hold the store's own lock while the set of run directories changes; not reentrant.

    Raises StoreError if another process holds it for longer than STRUCTURE_PATIENCE.
    """
    with _structure_guard:
        lock = acquire_lock(root / STRUCTURE_LOCK, STRUCTURE_PATIENCE)
        if lock is None:
            raise StoreError(f"another process has been changing {root} for {STRUCTURE_PATIENCE:.0f} s")
        try:
            yield
        finally:
            lock.release()


def _try_lock(path: Path) -> FileLock | None:
    with _table_guard:
        if _is_held_here(path):
            return None
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _SAFE_OPEN_FLAGS, 0o666)
        try:
            if _try_fcntl_lock(descriptor, fcntl.LOCK_EX):
                key = _file_key(descriptor)
                _held.add(key)
                return FileLock(descriptor, key)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None


def _is_held_here(path: Path) -> bool:
    try:
        return _file_key(path) in _held
    except FileNotFoundError:
        return False


def _file_key(path: Path | int) -> _Key:
    status = os.stat(path)  # noqa: PTH116 - a descriptor has no Path
    return status.st_dev, status.st_ino


def _try_fcntl_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _forget_after_fork() -> None:
    """Reset the state of a forked child.

    It inherits descriptors but no locks, and perhaps a guard whose owner does not exist in the child.
    """
    global _table_guard, _structure_guard
    _table_guard, _structure_guard = threading.Lock(), threading.Lock()
    _held.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
