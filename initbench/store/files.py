"""Atomic and durable file writes, and safe reads of regular files.

Files written here are complete or absent, whenever the process is killed. Every function lets the system's
OSError through; the store turns it into a StoreError.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from initbench.errors import StoreError, UsageError

_serial = itertools.count()
TEMPORARY = ".tmp"
"""Suffix of files that are still being written."""
DOCUMENT_BYTES = 16 * 2**20
"""Maximum size of a file with one JSON document: about a hundred times the largest one in use."""
LINES_BYTES = 2**30
"""Maximum size of a file of lines."""
_TAIL_BYTES = 2**16
"""Bytes that are read at once from the end of a file."""
TENSOR_BYTES = 2**36
"""Maximum size of a file of tensors."""

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
    """Replace `path` with `content` (text as UTF-8); readers see the old or the new file, never a part."""
    data = content.encode() if isinstance(content, str) else content
    produce_atomic(path, lambda temporary: _write_new(temporary, data), sync_name=sync_name)


DISK_ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def write_output(path: Path, content: str | bytes) -> None:
    """Write a file that the user named, atomically; a pipe or terminal is written to.

    Raises:
        UsageError: If the path cannot be written.
        StoreError: If the disk is full or fails.
    """
    with writing_to(path):
        if path.exists() and not path.is_file():  # a pipe or terminal cannot be replaced
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        else:
            write_atomic(path, content)


def check_output(path: Path) -> None:
    """Raise the error of `write_output` if a file cannot be written there; `path` is not changed."""
    with writing_to(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not path.is_file():
            return
        temporary = _temporary_path(path)
        _write_new(temporary, b"")
        temporary.unlink()


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Convert an OSError in the block to the error of `write_output`, which names `path`."""
    try:
        yield
    except OSError as error:
        kind = StoreError if error.errno in DISK_ERRORS else UsageError
        raise kind(f"cannot write {path}: {error.strerror or error}") from error


def _temporary_path(path: Path) -> Path:
    """Return the path of a new temporary file in the directory of `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}-{next(_serial)}{TEMPORARY}")


def produce_atomic(path: Path, produce: Callable[[Path], object], *, sync_name: bool = True) -> None:
    """Replace `path` with the file that `produce` writes to the temporary path it is called with.

    Without `sync_name` the contents are durable, but the name only once its directory is synced.
    """
    with replacing(path, sync_name=sync_name) as temporary:
        produce(temporary)


@contextmanager
def replacing(path: Path, *, sync_name: bool = True) -> Iterator[Path]:
    """Yield a temporary path; the file that the block writes there replaces `path` at the end of the block.

    If the block raises, `path` is unchanged. `sync_name` is that of `produce_atomic`.
    """
    temporary = _temporary_path(path)
    try:
        yield temporary
        _sync(temporary, os.O_RDWR)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if sync_name:
        sync_directory(path.parent)


def append_line(path: Path, text: str) -> None:
    """Append `text` as one line; a kill cannot leave part of it, and on an error the file is unchanged.

    The line survives a loss of power only after `sync_file`. Raises ValueError if `text` contains a newline.
    """
    if "\n" in text:
        raise ValueError("a line cannot contain a newline")
    data = (text + "\n").encode()
    # Do not write to the target of a link, and do not wait for the reader of a pipe.
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
    """Make the contents of a file durable."""
    _sync(path, os.O_RDWR)


def odd_kind(mode: int) -> str | None:
    """Return the kind of a file with this `st_mode`, e.g. `a link`, or None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    return next((words for is_kind, words in _KINDS if is_kind(mode)), "a special file")


def is_temporary(name: str) -> bool:
    """Return whether `name` is that of a file that was still being written."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


def open_regular(path: Path, limit: int) -> int:
    """Open a regular file of at most `limit` bytes for reading, and return its descriptor.

    A store may come from an untrusted source: a link would expose other files of the reader, a pipe would
    block, and a device or a sparse file would fill the memory. Raises an OSError that says what `path` is.
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
            size = f"it has {status.st_size:,} bytes, more than the limit of {limit:,}"
            raise OSError(errno.EFBIG, size, str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_bytes(path: Path, limit: int) -> bytes:
    """Return the contents of a regular file, opened by `open_regular`."""
    with os.fdopen(open_regular(path, limit), "rb") as file:
        return file.read()  # not read(limit), which would allocate `limit` bytes first


def read_text(path: Path, limit: int = DOCUMENT_BYTES) -> str:
    """Return the text of a regular UTF-8 file.

    Raises ValueError if it is not UTF-8, and OSError like `open_regular`.
    """
    return read_bytes(path, limit).decode()


def read_lines(path: Path) -> list[str]:
    """Return the complete lines of `path`; a last line without a newline was never acknowledged."""
    return [line.decode() for line in read_bytes(path, LINES_BYTES).split(b"\n")[:-1]]


def read_last_line(path: Path) -> str | None:
    """Return the last complete line of `path`, or None without any; `read_lines` defines completeness."""
    with os.fdopen(open_regular(path, LINES_BYTES), "rb") as file:
        position, tail = file.seek(0, os.SEEK_END), b""
        while position > 0 and tail.count(b"\n") < 2:
            size = min(_TAIL_BYTES, position)
            position = file.seek(position - size)
            tail = file.read(size) + tail
    complete = tail.split(b"\n")[:-1]
    return complete[-1].decode() if complete else None


def copy_regular(source: Path, target: Path) -> None:
    """Copy the contents of a regular file to `target`, which must not exist."""
    with os.fdopen(open_regular(source, TENSOR_BYTES), "rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer)


def sha256(path: Path) -> str:
    """Return the SHA-256 of the regular file at `path` in hexadecimal."""
    with os.fdopen(open_regular(path, TENSOR_BYTES), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_path(path: Path) -> None:
    """Remove the file, link or directory at `path` if it exists; the target of a link is left alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_temporaries(directory: Path) -> None:
    """Remove temporary files of killed writers; the caller must be the only writer in the directory."""
    for path in list(directory.iterdir()):
        if is_temporary(path.name):
            path.unlink(missing_ok=True)


def _not_regular(path: Path, kind: str) -> OSError:
    return OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: creations, renames and removals."""
    try:
        _sync(path, os.O_RDONLY)
    except OSError as error:  # some network file systems cannot sync a directory and need not
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
    while view:  # usually one write; the system may accept fewer bytes than given
        view = view[os.write(descriptor, view) :]


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
