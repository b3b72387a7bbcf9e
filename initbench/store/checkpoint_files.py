"""Checkpoints of an interrupted run, and the lines that the run had reported by then.

A checkpoint is one safetensors file with the number of updates in its metadata, under "step". The store adds
two entries: "lines", the size and SHA-256 of each file of lines at that moment, to which the file is
truncated when the run is resumed; and "sha256", the checksum of everything else, header and tensors. The
previous checkpoint is kept too: if the last one is damaged, the run resumes from the previous one.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from initbench.store import strict_json
from initbench.store.files import (
    LINES_BYTES,
    TENSOR_BYTES,
    open_regular,
    read_bytes,
    remove_path,
    write_atomic,
)

CHECKPOINT, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"
CHECKPOINTS = (CHECKPOINT, PREVIOUS)
LINE_FILES = ("metrics.jsonl", "layers.jsonl", "shift.jsonl")
"""Files with the evaluations, probes and covariate shifts of a run, one JSON document per line."""
_SNAPSHOTS = LINE_FILES[1]
_HEADER_BYTES = 100 * 2**20
"""Largest header that safetensors itself reads."""
_STEP, _LINES, _CHECKSUM = "step", "lines", "sha256"


@dataclass(frozen=True)
class Resumption:
    """State from which an interrupted run resumes."""

    step: int
    """Updates made so far."""
    state: bytes
    """Contents of the checkpoint."""
    snapshots: list[dict[str, Any]]
    """Probes reported up to the checkpoint."""


@dataclass(frozen=True)
class _UsableCheckpoint:
    """An undamaged checkpoint, with the lines that had been written before it."""

    step: int
    state: bytes
    lines: dict[str, bytes]
    """File name → contents at that moment; files that did not exist are absent."""


def write_checkpoint(directory: Path, state: bytes) -> None:
    """Write `state`, a safetensors file, as the run's last checkpoint and keep the previous one.

    The caller must sync the files of lines first. Raises OSError.
    """
    lines = {}
    for name in LINE_FILES:
        with suppress(FileNotFoundError):
            lines[name] = read_bytes(directory / name, LINES_BYTES)
    sealed = _with_checksum(state, lines)
    _keep_as_previous(directory)
    write_atomic(directory / CHECKPOINT, sealed)


def _keep_as_previous(directory: Path) -> None:
    """Link the last checkpoint as the previous one, so that the next write does not delete it."""
    last, previous = directory / CHECKPOINT, directory / PREVIOUS
    if not last.exists():  # the run was resumed from the previous checkpoint, which stays
        return
    previous.unlink(missing_ok=True)
    try:
        previous.hardlink_to(last)
    except OSError:  # not every file system supports hard links
        last.replace(previous)


def checkpoint_step(directory: Path) -> int | None:
    """Return the step that the run in this directory resumes at, or None if it must start from scratch."""
    usable, _ = _last_usable_checkpoint(directory)
    return None if usable is None else usable.step


def stated_step(directory: Path) -> int | None:
    """Return the step that the checkpoint's header states, without verifying the checkpoint."""
    for name in CHECKPOINTS:
        with suppress(OSError, ValueError):
            return _read_stated_step(directory / name)
    return None


def truncate_to_checkpoint(directory: Path) -> tuple[Resumption | None, list[str]]:
    """Truncate the lines of a run to its last usable checkpoint.

    Returns:
        The state to resume from, or None if the run must start from scratch; and one description of the
        fault for each checkpoint that could not be used.

    Raises:
        OSError: If the lines cannot be truncated.
    """
    usable, faults = _last_usable_checkpoint(directory)
    if usable is None:
        return None, faults
    if faults:  # otherwise the next checkpoint would keep the damaged one instead of the usable one
        remove_path(directory / CHECKPOINT)
    for name in LINE_FILES:
        _truncate_lines(directory / name, usable.lines.get(name))
    probes = usable.lines.get(_SNAPSHOTS, b"").decode().splitlines()
    return Resumption(usable.step, usable.state, [strict_json.loads(line) for line in probes]), faults


def _read_stated_step(path: Path) -> int:
    with os.fdopen(open_regular(path, TENSOR_BYTES), "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return _step_of(_metadata_of(_parse_header(file.read(min(size, _HEADER_BYTES)))))


def _truncate_lines(path: Path, content: bytes | None) -> None:
    """Truncate a file of lines to `content`, its contents at the checkpoint; None if it did not exist."""
    if content is None:
        path.unlink(missing_ok=True)
    elif path.lstat().st_size > len(content):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.ftruncate(descriptor, len(content))
        finally:
            os.close(descriptor)


def _last_usable_checkpoint(directory: Path) -> tuple[_UsableCheckpoint | None, list[str]]:
    """Return the last undamaged checkpoint, and the fault of each later one."""
    faults: list[str] = []
    for name in CHECKPOINTS:
        try:
            return _read_usable(directory, name), faults
        except FileNotFoundError:
            continue
        except OSError as error:
            faults.append(f"{name}: {error.strerror or error}")
        except (ValueError, MemoryError) as error:
            faults.append(f"{name}: {error}")
    return None, faults


def _read_usable(directory: Path, name: str) -> _UsableCheckpoint:
    """Read a checkpoint; raise OSError if it cannot be read, ValueError if it is damaged."""
    state = read_bytes(directory / name, TENSOR_BYTES)
    header, body = _split_tensor_file(state)
    metadata = _metadata_of(header)
    checksum = metadata.pop(_CHECKSUM, None)
    if checksum is None:
        raise ValueError("it has no checksum")
    if checksum != _digest(header, body):
        raise ValueError("it does not match its checksum")
    recorded = strict_json.loads(metadata[_LINES])
    lines = {file: _read_prefix(directory / file, *recorded[file]) for file in recorded}
    return _UsableCheckpoint(_step_of(metadata), state, lines)


def _read_prefix(path: Path, size: int, digest: str) -> bytes:
    """Return the contents of a file of lines at a checkpoint; raise ValueError if they have changed."""
    try:
        content = read_bytes(path, LINES_BYTES)[:size]
    except FileNotFoundError:
        raise ValueError(f"{path.name} is missing") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{path.name} has changed since the checkpoint")
    return content


def _with_checksum(state: bytes, lines: dict[str, bytes]) -> bytes:
    """Return the checkpoint with its two additional metadata entries.

    Contents that are not a safetensors file are returned unchanged; no run resumes from them.
    """
    try:
        header, body = _split_tensor_file(state)
        metadata = _metadata_of(header)
    except ValueError:
        return state
    recorded = {name: [len(content), hashlib.sha256(content).hexdigest()] for name, content in lines.items()}
    metadata[_LINES] = json.dumps(recorded)
    metadata[_CHECKSUM] = _digest(header, body)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # as safetensors aligns its tensors
    return b"".join([len(text).to_bytes(8, "little"), text, body])


def _digest(header: dict[str, Any], body: memoryview) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(body)
    return digest.hexdigest()


def _split_tensor_file(state: bytes) -> tuple[dict[str, Any], memoryview]:
    """Return the header and the tensors' bytes of a safetensors file; raise ValueError for other contents."""
    size = int.from_bytes(state[:8], "little")
    if not 0 < size <= min(len(state) - 8, _HEADER_BYTES):
        raise ValueError("its header is damaged")
    return _parse_header(state[8 : 8 + size]), memoryview(state)[8 + size :]


def _parse_header(text: bytes) -> dict[str, Any]:
    try:
        header = strict_json.loads(text.decode())
    except ValueError as error:
        raise ValueError(f"its header is damaged: {error}") from error
    if not isinstance(header, dict):
        raise ValueError("its header is damaged")
    return header


def _metadata_of(header: dict[str, Any]) -> dict[str, Any]:
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict):
        raise ValueError("its header has no metadata")
    return metadata


def _step_of(metadata: dict[str, Any]) -> int:
    step = metadata.get(_STEP)
    if not isinstance(step, str):
        raise ValueError("its header has no step")
    return int(step)
