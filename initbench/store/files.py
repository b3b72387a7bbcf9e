"""Files that are either wholly there or not there at all, whenever the process is killed.

Everything here raises OSError as the system gives it; the store turns that into a StoreError.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_serial = itertools.count()
TEMPORARY = ".tmp"
"""What the name of a file that is still being written ends in."""


def write_atomic(path: Path, content: str | bytes, *, sync_name: bool = True) -> None:
    """Replace `path` by `content` (text as UTF-8): readers see the old file or the new one, never a part."""
    data = content.encode() if isinstance(content, str) else content
    produce_atomic(path, lambda temporary: _write_new(temporary, data), sync_name=sync_name)


def produce_atomic(path: Path, produce: Callable[[Path], object], *, sync_name: bool = True) -> None:
    """Replace `path` by the file that `produce` writes to the temporary path it is called with.

    Without `sync_name` the contents are durable and the name is not, until its directory is synced.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{next(_serial)}{TEMPORARY}")
    try:
        produce(temporary)
        _sync(temporary, os.O_RDWR)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if sync_name:
        sync_directory(path.parent)


def append_line(path: Path, text: str) -> None:
    """Append `text` as one line, which a kill cannot tear; on an error the file is as it was.

    Only after `sync_file` does it outlast a loss of power. Raises ValueError when `text` holds a newline.
    """
    if "\n" in text:
        raise ValueError("a line cannot hold a newline")
    data = (text + "\n").encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        try:
            _write_all(descriptor, data)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make what is in a file durable."""
    _sync(path, os.O_RDWR)


def read_lines(path: Path) -> list[str]:
    """Return the complete lines of `path`; a last one without its newline was never acknowledged."""
    return [line.decode() for line in path.read_bytes().split(b"\n")[:-1]]


def sha256(path: Path) -> str:
    """Return the SHA-256 of the file at `path` in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: creations, renames and removals."""
    try:
        _sync(path, os.O_RDONLY)
    except OSError as error:  # some network file systems cannot, and need not, sync a directory
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        _write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:  # one write, unless the system takes less than it was given
        view = view[os.write(descriptor, view) :]


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
