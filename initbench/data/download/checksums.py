"""Checksums of files on disk, computed once and cached until the file changes.

The cache is a small JSON object in the cache folder,
`{"md5:/path": [size, mtime_ns, ctime_ns, inode, "hex"]}`; an entry for a folder has a hash of these numbers
of all its files. The ctime of a file cannot be set back, unlike its mtime, and a file that replaces another
has a different inode. Small files are read each time. The cache only saves time: if it is missing, damaged or
not writable, it is ignored.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from initbench.errors import DataError

SMALL_BYTES = 8 * 1024 * 1024
"""Size below which files are hashed each time, which takes a few hundredths of a second."""


def cache_folder() -> Path:
    """Return the folder for downloads and other files that can be made again; it respects XDG_CACHE_HOME."""
    return user_cache_path("initbench")


def checksum(path: Path, algorithm: str, *, recheck: bool = False) -> str:
    """Return the hex digest of the file at `path`, from the cache if the file is large and unchanged.

    With `recheck` the file is always read. Raises DataError if it cannot be read.
    """
    memory = cache_folder() / "checksums.json"
    key = f"{algorithm}:{path.absolute()}"
    try:
        stamp = _stamp(path)
        is_small = stamp[0] < SMALL_BYTES
        remembered = None if recheck or is_small else _recall(memory, key, stamp)
        if remembered is not None:
            return remembered
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, algorithm).hexdigest()
        unchanged = _stamp(path) == stamp
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if unchanged and not is_small:
        _remember(memory, key, [*stamp, digest])
    return digest


def folder_checksum(folder: Path, files: Sequence[Path], *, recheck: bool = False) -> str:
    """Return a SHA-256 of the names and contents of files below `folder`, from the cache if none has changed.

    With `recheck` the files are always read. Raises DataError if one cannot be read.
    """
    memory, key = cache_folder() / "checksums.json", f"folder:{folder.absolute()}"
    names = [file.relative_to(folder).as_posix() for file in files]
    try:
        stamps = [(name, *_stamp(file)) for name, file in zip(names, files, strict=True)]
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror or error}") from error
    stamp = [hashlib.sha256(repr(stamps).encode()).hexdigest()]
    remembered = None if recheck else _recall(memory, key, stamp)
    if remembered is not None:
        return remembered
    lines = [
        f"{checksum(file, 'sha256', recheck=True)}  {name}" for name, file in zip(names, files, strict=True)
    ]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    _remember(memory, key, [*stamp, digest])
    return digest


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read(memory: Path) -> dict[str, Any]:
    try:
        entries = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _recall(memory: Path, key: str, stamp: Sequence[int | str]) -> str | None:
    match _read(memory).get(key):
        case [*known_stamp, str(digest)] if known_stamp == list(stamp):
            return digest
    return None


def _remember(memory: Path, key: str, entry: Sequence[int | str]) -> None:
    # Concurrent writers may lose each other's entry, which is then only computed again.
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**_read(memory), key: entry}, indent=0, sort_keys=True)
        handle, temporary = tempfile.mkstemp(dir=memory.parent, prefix=memory.name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(temporary).replace(memory)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
