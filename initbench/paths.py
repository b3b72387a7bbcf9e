"""Paths that a user typed, and files of which nothing is known yet."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from initbench.errors import UsageError


def expand_user(path: str | Path) -> Path:
    """Replace a leading `~` or `~user`; raises UsageError where there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            f"{str(path)[:200]}: there is no such user, or no home directory; write the path out"
        ) from None


def file_kind(path: Path) -> str:
    """Return `file`, `folder`, `other` (a device or pipe) or `missing`; raises OSError if none is true."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except ValueError as error:  # it holds a NUL
        raise OSError(errno.EINVAL, str(error)) from None
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Read a regular file whole. Raises OSError for a device, pipe or folder, and for more than `max_bytes`.

    It never waits for a writer, and takes no more memory than the limit even where the file grows.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except ValueError as error:  # it holds a NUL
        raise OSError(errno.EINVAL, str(error)) from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        if status.st_size > max_bytes:
            raise OSError(
                errno.EFBIG, f"it has {status.st_size:,} bytes, more than the limit of {max_bytes:,}"
            )
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it has more than {max_bytes:,} bytes, the limit")
    return content
