"""Handle paths from the user and files of unknown kind safely."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from initbench.errors import UsageError


def expand_user(path: str | Path) -> Path:
    """Replace a leading `~` or `~user`; raise UsageError if there is no such home directory."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            f"{str(path)[:200]}: no such user or no home directory; write the full path"
        ) from None


def file_kind(path: Path) -> str:
    """Return `file`, `folder`, `other` (a device or pipe) or `missing`; raise OSError if it is unreadable."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except ValueError as error:  # the path contains a NUL
        raise OSError(errno.EINVAL, str(error)) from None
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Read a whole regular file.

    The call never blocks on a pipe, and it uses no more memory than the limit even if the file grows.

    Raises:
        OSError: For a device, pipe or folder, or for a file of more than `max_bytes` bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except ValueError as error:  # the path contains a NUL
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
