"""What an interrupted run goes on from: its last checkpoint, and what was reported until then.

A checkpoint is one safetensors file with the number of updates in its metadata, under "step". The store adds
two entries: "lines", the size and SHA-256 of each file of lines at that moment, to which it is cut when the
run is taken up again; and "sha256" of all the rest, header and tensors. The checkpoint before the last one is
kept beside it: where the last one is damaged, the run goes on from there.
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
"""The evaluations, probes and covariate shifts of a run."""
_SNAPSHOTS = LINE_FILES[1]
_HEADER_BYTES = 100 * 2**20
"""What safetensors itself reads at most."""
_STEP, _LINES, _CHECKSUM = "step", "lines", "sha256"


@dataclass(frozen=True)
class Resumption:
    """Where a run that was interrupted goes on."""

    step: int
    """Updates made."""
    state: bytes
    """The contents of its checkpoint."""
    snapshots: list[dict[str, Any]]
    """The probes reported until then."""


@dataclass(frozen=True)
class _UsableCheckpoint:
    """A checkpoint that is as it was written, with the lines that it was written after."""

    step: int
    state: bytes
    lines: dict[str, bytes]
    """File name → contents at that moment; a file that is not named was not there."""


def write_checkpoint(directory: Path, state: bytes) -> None:
    """Make `state`, a safetensors file, the run's last checkpoint; the one before it is kept.

    The lines have to be synced before. Raises OSError.
    """
    lines = {}
    for name in LINE_FILES:
        with suppress(FileNotFoundError):
            lines[name] = read_bytes(directory / name, LINES_BYTES)
    sealed = _with_checksum(state, lines)
    _keep_as_previous(directory)
    write_atomic(directory / CHECKPOINT, sealed)


def _keep_as_previous(directory: Path) -> None:
    """Give the last checkpoint its second name, under which it outlasts the next one."""
    last, previous = directory / CHECKPOINT, directory / PREVIOUS
    if not last.exists():  # what was taken up had to be the one before it, which stays
        return
    previous.unlink(missing_ok=True)
    try:
        previous.hardlink_to(last)
    except OSError:  # not every file system has links
        last.replace(previous)


def checkpoint_step(directory: Path) -> int | None:
    """The step that a run in this directory goes on from; None when it has to begin anew."""
    usable, _ = _last_usable_checkpoint(directory)
    return None if usable is None else usable.step


def stated_step(directory: Path) -> int | None:
    """`checkpoint_step` as the header of the checkpoint has it, its contents unseen."""
    for name in CHECKPOINTS:
        with suppress(OSError, ValueError):
            return _read_stated_step(directory / name)
    return None


def truncate_to_checkpoint(directory: Path) -> tuple[Resumption | None, list[str]]:
    """Cut the lines of a run back to its last usable checkpoint; also what is wrong with any other, in words.

    None when it has to begin anew. Raises OSError when the lines cannot be cut.
    """
    usable, faults = _last_usable_checkpoint(directory)
    if usable is None:
        return None, faults
    if faults:  # else the next checkpoint would keep the damaged one, and not that which has served
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
    """Leave of a file of lines what it held at the checkpoint."""
    if content is None:
        path.unlink(missing_ok=True)
    elif path.lstat().st_size > len(content):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.ftruncate(descriptor, len(content))
        finally:
            os.close(descriptor)


def _last_usable_checkpoint(directory: Path) -> tuple[_UsableCheckpoint | None, list[str]]:
    """The last checkpoint that is as it was written; also what is wrong with a later one, in words."""
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
    """Read a checkpoint; raises OSError where it cannot be read, ValueError where it is damaged."""
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
    """What a file of lines held at a checkpoint; raises ValueError where it does not hold that any more."""
    try:
        content = read_bytes(path, LINES_BYTES)[:size]
    except FileNotFoundError:
        raise ValueError(f"{path.name}, which belongs to it, is missing") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{path.name} does not hold what it held then")
    return content


def _with_checksum(state: bytes, lines: dict[str, bytes]) -> bytes:
    """The checkpoint with its two further entries. What is no safetensors file is never gone on from."""
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
    """The header and the tensors' bytes of a safetensors file; raises ValueError where it is none."""
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
