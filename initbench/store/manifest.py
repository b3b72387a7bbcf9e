"""Manifest of a complete run: sizes and hashes of its files, and the comparison with the files on disk."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from initbench.store import strict_json
from initbench.store.checkpoint_files import LINE_FILES
from initbench.store.files import LINES_BYTES, odd_kind, read_bytes, read_text, sha256

MANIFEST, SUMMARY = "manifest.json", "summary.jsonl"
MANIFEST_SCHEMA = "initbench.manifest/1"
_STEP = re.compile(rb'"step": ?(-?\d{1,18})\b')
_WHEN = re.compile(rb'"when": ?"([a-z]+)"')


def build_manifest(directory: Path, names: Iterable[str]) -> dict[str, Any]:
    """Return the manifest of the files `names` in `directory`; missing files are skipped."""
    paths = [path for path in (directory / name for name in names) if path.exists()]
    return {"schema": MANIFEST_SCHEMA, "files": {path.name: listed_entry(path) for path in paths}}


def listed_entry(path: Path) -> dict[str, Any]:
    """Return the entry of a file in the manifest."""
    return {"sha256": sha256(path), "bytes": path.stat().st_size}


def manifest_differences(directory: Path, *, hashes: bool) -> Iterator[str]:
    """Yield one message for each file that differs from the manifest, or for a missing or damaged manifest.

    Names and sizes are compared, and with `hashes` also every byte, the order of the steps, and the summary:
    a run without its summary is complete, since the summary can be made again. Raises OSError if a file
    cannot be read, which does not count as a difference.
    """
    path = directory / MANIFEST
    if kind := _odd_file_kind(path):
        yield f"{MANIFEST} is {kind}, not a regular file"
        return
    try:
        listed = listed_files(strict_json.loads(read_text(path)))
    except (FileNotFoundError, NotADirectoryError):
        yield f"{MANIFEST} is missing: the run is not complete"
        return
    except ValueError:
        listed = []
    if not listed:
        yield f"{MANIFEST} is damaged"
    for name, size, digest in listed:
        if name == SUMMARY and not hashes:
            continue
        if problem := _file_difference(directory / name, size, digest if hashes else None):
            yield f"{problem}; `initbench upgrade` writes it again" if name == SUMMARY else problem
    if hashes:
        yield from repeated_steps(directory)


def repeated_steps(directory: Path) -> Iterator[str]:
    """Yield one message for each file of lines whose steps do not increase from line to line."""
    for name in LINE_FILES:
        try:
            content = read_bytes(directory / name, LINES_BYTES)
        except OSError:  # reported when the lines are read
            continue
        if problem := find_step_disorder(map(_step_and_moment, content.splitlines())):
            yield f"{name}: {problem}"


def _step_and_moment(line: bytes) -> tuple[int | None, object]:
    """Return the step and the moment ("when") of a line.

    The line is searched, not parsed: a probe's line is long, and both keys are at its beginning.
    """
    step, when = _STEP.search(line), _WHEN.search(line)
    return (int(step[1]) if step else None, when[1] if when else None)


def find_step_disorder(moments: Iterable[tuple[object, object]]) -> str | None:
    """Return a message for the first line whose step does not increase, or None.

    Args:
        moments: Step and, for probes, the moment of each line. Lines without a step are skipped. Two
            different moments may share a step, as in a run without updates.
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
    """Return the SHA-256 of each file of a complete run, as listed in its manifest."""
    return {
        name: digest for name, _, digest in listed_files(strict_json.loads(read_text(directory / MANIFEST)))
    }


def listed_files(document: Any) -> list[tuple[str, int, str]]:
    """Return name, size and SHA-256 of each file; raise ValueError if the document is not a manifest."""
    files = document.get("files") if isinstance(document, dict) else None
    if not isinstance(files, dict):
        raise ValueError("no files")
    listed = []
    for name, entry in files.items():
        size, digest = (entry.get("bytes"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
        # A name that contains a path would make us read files outside the run.
        if "/" in name or name.startswith(".") or type(size) is not int or not isinstance(digest, str):
            raise ValueError(f"no size and hash of {name!r}")
        listed.append((name, size, digest))
    return listed


def _odd_file_kind(path: Path) -> str | None:
    """Return the kind of a file that is not regular; None for a regular or a missing file."""
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
        return f"{path.name} has {status.st_size} bytes, expected {size}"
    if digest is None or sha256(path) == digest:
        return None
    return f"{path.name} has changed since the run was stored"
