"""Files that are either wholly there or not there at all, whenever the process is killed.

Everything here raises OSError as the system gives it; the store turns that into a StoreError.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_serial = itertools.count()
TEMPORARY = ".tmp"
"""What the name of a file that is still being written ends in."""
DOCUMENT_BYTES = 16 * 2**20
"""The most that a file of one JSON document may hold: some hundred times what any has."""
LINES_BYTES = 2**30
"""The most that a file of lines may hold."""
TENSOR_BYTES = 2**36
"""The most that a file of tensors may hold."""

_TEMPORARY_NAME = re.compile(r"\..+\.\d+-\d+" + re.escape(TEMPORARY))
_KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


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
    # Neither the target of a link is written to, nor is the reader of a pipe waited for.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o666)
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


def odd_kind(mode: int) -> str | None:
    """What a file of this `st_mode` is, where it is no regular file: `a link`, `a named pipe`."""
    if stat.S_ISREG(mode):
        return None
    return next((words for is_kind, words in _KINDS if is_kind(mode)), "a special file")


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that was still being written."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


def open_regular(path: Path, limit: int) -> int:
    """Open a regular file of at most `limit` bytes for reading, and return its descriptor.

    A store may come from somebody else: a link would show other files of the reader, a pipe keep the reader
    waiting, a device or a file with a hole fill the memory. Raises OSError that names what `path` is.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _not_regular(path, odd_kind(os.lstat(path).st_mode) or "changing") from error
        raise
    try:
        status = os.fstat(descriptor)
        if kind := odd_kind(status.st_mode):
            raise _not_regular(path, kind)
        if status.st_size > limit:
            size = f"it holds {status.st_size:,} bytes, and at most {limit:,} are read"
            raise OSError(errno.EFBIG, size, str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_bytes(path: Path, limit: int) -> bytes:
    """Return the contents of a regular file, opened by `open_regular`."""
    with os.fdopen(open_regular(path, limit), "rb") as file:
        return file.read()  # not so many: room for all of them would be made first


def read_text(path: Path, limit: int = DOCUMENT_BYTES) -> str:
    """Return the text of a regular file of UTF-8.

    Raises ValueError for other bytes, OSError as `open_regular`.
    """
    return read_bytes(path, limit).decode()


def read_lines(path: Path) -> list[str]:
    """Return the complete lines of `path`; a last one without its newline was never acknowledged."""
    return [line.decode() for line in read_bytes(path, LINES_BYTES).split(b"\n")[:-1]]


def copy_regular(source: Path, target: Path) -> None:
    """Copy the contents of a regular file to `target`, which is made."""
    with os.fdopen(open_regular(source, TENSOR_BYTES), "rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer)


def sha256(path: Path) -> str:
    """Return the SHA-256 of the regular file at `path` in hexadecimal."""
    with os.fdopen(open_regular(path, TENSOR_BYTES), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_path(path: Path) -> None:
    """Remove whatever is at `path`, if anything is; what a link points at is left alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_temporaries(directory: Path) -> None:
    """Remove what writers left in a directory that were killed; called where there is no other writer."""
    for path in list(directory.iterdir()):
        if is_temporary(path.name):
            path.unlink(missing_ok=True)


def _not_regular(path: Path, kind: str) -> OSError:
    return OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


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
