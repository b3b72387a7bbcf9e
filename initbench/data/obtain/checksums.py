"""Checksums of files on disk, computed once and remembered until the file changes.

The memory is a small JSON object in the cache folder, `{"md5:/path": [size, mtime_ns, "hex"]}`.
It only saves time: one that is missing, damaged or unwritable is ignored.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from initbench.errors import DataError


def cache_folder() -> Path:
    """Where initbench keeps what it fetched when told no other place (XDG_CACHE_HOME honoured)."""
    import pooch

    return Path(pooch.os_cache("initbench"))


def checksum(path: Path, algorithm: str, *, recheck: bool = False) -> str:
    """Hex digest of the file at `path`, from memory when its size and mtime are unchanged.

    With `recheck` the file is read in any case. Raises DataError when it cannot be read.
    """
    memory = cache_folder() / "checksums.json"
    key = f"{algorithm}:{path.absolute()}"
    try:
        stamp = _stamp(path)
        known = None if recheck else _recall(memory, key, stamp)
        if known is not None:
            return known
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, algorithm).hexdigest()
        unchanged = _stamp(path) == stamp
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if unchanged:
        _remember(memory, key, [*stamp, digest])
    return digest


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _read(memory: Path) -> dict[str, Any]:
    try:
        entries = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _recall(memory: Path, key: str, stamp: list[int]) -> str | None:
    match _read(memory).get(key):
        case [size, mtime_ns, str(digest)] if [size, mtime_ns] == stamp:
            return digest
    return None


def _remember(memory: Path, key: str, entry: list[int | str]) -> None:
    # Two writers may lose each other's entry; it is then computed once more, no harm done.
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
