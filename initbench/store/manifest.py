"""The manifest of a complete run: its files with their sizes and hashes, and whether they are still so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from initbench.store import strict_json
from initbench.store.checkpoint_files import LINE_FILES
from initbench.store.files import LINES_BYTES, odd_kind, read_bytes, read_text, sha256

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = "initbench.manifest/1"
_STEP = re.compile(rb'"step": ?(-?\d{1,18})\b')
_WHEN = re.compile(rb'"when": ?"([a-z]+)"')


def build_manifest(directory: Path, names: Iterable[str]) -> dict[str, Any]:
    """The manifest of those of the files `names` that are there now."""
    paths = [path for path in (directory / name for name in names) if path.exists()]
    files = {path.name: {"sha256": sha256(path), "bytes": path.stat().st_size} for path in paths}
    return {"schema": MANIFEST_SCHEMA, "files": files}


def manifest_differences(directory: Path, *, hashes: bool) -> Iterator[str]:
    """One sentence for each file that is not as the manifest says, or for a manifest that says nothing.

    Names and sizes are looked at, and with `hashes` every byte and the order of the steps. Raises OSError
    when the system does not let us look, which is no difference.
    """
    path = directory / MANIFEST
    if kind := _odd_file_kind(path):
        yield f"{MANIFEST} is {kind}, not a regular file"
        return
    try:
        listed = _listed_files(strict_json.loads(read_text(path)))
    except (FileNotFoundError, NotADirectoryError):
        yield f"{MANIFEST} is missing: the run is not complete"
        return
    except ValueError:
        listed = []
    if not listed:
        yield f"{MANIFEST} is damaged"
    for name, size, digest in listed:
        if problem := _file_difference(directory / name, size, digest if hashes else None):
            yield problem
    if hashes:
        yield from repeated_steps(directory)


def repeated_steps(directory: Path) -> Iterator[str]:
    """One sentence for each file of lines whose steps do not increase from line to line."""
    for name in LINE_FILES:
        try:
            content = read_bytes(directory / name, LINES_BYTES)
        except OSError:  # is told of where it is read
            continue
        if problem := find_step_disorder(map(_step_and_moment, content.splitlines())):
            yield f"{name}: {problem}"


def _step_and_moment(line: bytes) -> tuple[int | None, object]:
    """The step and the moment of a line, which is not parsed: a probe's is long, and begins with them."""
    step, when = _STEP.search(line), _WHEN.search(line)
    return (int(step[1]) if step else None, when[1] if when else None)


def find_step_disorder(moments: Iterable[tuple[object, object]]) -> str | None:
    """Where the steps of lines do not increase, in words; lines without a step are passed over.

    `moments`: step and, of a probe, its moment. Two moments may share a step, where a run makes no update.
    """
    last, last_moment = None, None
    for number, (step, moment) in enumerate(moments, 1):
        if type(step) is not int:
            continue
        if last is not None and (step < last or (step == last and moment == last_moment)):
            return f"line {number}: step {step} comes after step {last}"
        last, last_moment = step, moment
    return None


def file_hashes(directory: Path) -> dict[str, str]:
    """The SHA-256 of each file of a complete run, as its manifest has it."""
    return {
        name: digest for name, _, digest in _listed_files(strict_json.loads(read_text(directory / MANIFEST)))
    }


def _listed_files(document: Any) -> list[tuple[str, int, str]]:
    """Name, size and SHA-256 of each file; raises ValueError where it is no manifest."""
    files = document.get("files") if isinstance(document, dict) else None
    if not isinstance(files, dict):
        raise ValueError("no files")
    listed = []
    for name, entry in files.items():
        size, digest = (entry.get("bytes"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
        # A name with a path in it would have files outside the run read.
        if "/" in name or name.startswith(".") or type(size) is not int or not isinstance(digest, str):
            raise ValueError(f"no size and hash of {name!r}")
        listed.append((name, size, digest))
    return listed


def _odd_file_kind(path: Path) -> str | None:
    """What stands there instead of a regular file; None where there is one, or nothing."""
    try:
        return odd_kind(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _file_difference(path: Path, size: int, digest: str | None) -> str | None:
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return f"{path.name} is missing"
    if kind := odd_kind(status.st_mode):
        return f"{path.name} is {kind}, not a regular file"
    if status.st_size != size:
        return f"{path.name} holds {status.st_size} bytes, not {size}"
    if digest is None or sha256(path) == digest:
        return None
    return f"{path.name} has changed since the run was stored"
