"""The manifest of a complete run: its files with their sizes and hashes, and whether they are still so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from initbench.store import strictjson
from initbench.store.files import sha256

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = "initbench.manifest/1"


def manifest_of(directory: Path, names: Iterable[str]) -> dict[str, Any]:
    """The manifest of those of the files `names` that are there now."""
    paths = [path for path in (directory / name for name in names) if path.exists()]
    files = {path.name: {"sha256": sha256(path), "bytes": path.stat().st_size} for path in paths}
    return {"schema": MANIFEST_SCHEMA, "files": files}


def differences(directory: Path, *, hashes: bool) -> Iterator[str]:
    """One sentence for each file that is not as the manifest says, or for a manifest that says nothing.

    Names and sizes are looked at, and with `hashes` every byte. Raises OSError when the system does not let
    us look, which is no difference.
    """
    path = directory / MANIFEST
    try:
        files = strictjson.loads(path.read_text(encoding="utf-8"))["files"]
        listed = [(str(name), int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()]
    except (FileNotFoundError, NotADirectoryError):
        yield f"{MANIFEST} is missing: the run is not complete"
        return
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        listed = []
    if not listed:
        yield f"{MANIFEST} is damaged"
    for name, size, digest in listed:
        if problem := _difference(directory / name, size, digest if hashes else None):
            yield problem


def _difference(path: Path, size: int, digest: str | None) -> str | None:
    try:
        found = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return f"{path.name} is missing"
    if found != size:
        return f"{path.name} holds {found} bytes, not {size}"
    if digest is None or sha256(path) == digest:
        return None
    return f"{path.name} has changed since the run was stored"
