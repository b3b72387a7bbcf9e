"""Layout of a run directory, its hidden sibling directories, and the status of a run.

runs/<run_id>/            the run
runs/.<run_id>.new/       a run that is being created, until its record is written
runs/.<run_id>.rerun/     the next attempt of a finished run, until the attempt finishes
runs/.<run_id>.old/       a run that is being replaced by another attempt
runs/.<run_id>.trash/     a run that is being deleted
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from initbench.errors import StoreError, UsageError
from initbench.store import strict_json
from initbench.store.checkpoint_files import CHECKPOINTS, LINE_FILES
from initbench.store.files import is_temporary, odd_kind, read_text
from initbench.store.locks import is_locked
from initbench.store.manifest import MANIFEST, SUMMARY, manifest_differences
from initbench.store.record_schema import find_defect

SCHEMA = "initbench.stored/1"
RUN, CONFIG, LOCK = "run.json", "config.yaml", ".lock"
METRICS, LAYERS, SHIFT = LINE_FILES
WEIGHTS = "weights.safetensors"
LISTED = (CONFIG, RUN, METRICS, LAYERS, SHIFT, WEIGHTS, SUMMARY)
"""Files that the manifest lists, in the order in which they are copied: the summary refers to the others."""

COMPLETE = ("finished", "diverged")
STOPPED = ("interrupted", "failed")
STATUSES = ("running", *COMPLETE, *STOPPED, "crashed", "damaged")
"""Statuses of a run. `crashed`: the process died without a complete result. `damaged`: run.json is missing,
cannot be read or does not match its schema."""

_HIDDEN = (".new", ".rerun", ".old", ".trash")
_RUN_FILE_NAMES = frozenset((*LISTED, *CHECKPOINTS, MANIFEST, LOCK))

_NO_RECORD_ERRNOS = (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.EFBIG)
"""Errors of `read_text` that prove there is no record: the file is missing, not regular, or too large."""

Record = dict[str, Any]


@dataclass(frozen=True)
class RunPaths:
    """The directories that may hold a run."""

    root: Path
    run_id: str

    def __post_init__(self) -> None:
        if not is_run_id(self.run_id):
            raise UsageError(f"{self.run_id!r} is not a valid run id")

    @property
    def live(self) -> Path:
        """Directory of the run."""
        return self.root / self.run_id

    @property
    def new(self) -> Path:
        """Directory where a run is created before it is moved to its final directory."""
        return self.root / f".{self.run_id}.new"

    @property
    def rerun(self) -> Path:
        """Directory where the next attempt of a finished run is written."""
        return self.root / f".{self.run_id}.rerun"

    @property
    def old(self) -> Path:
        """Directory of a run while another attempt replaces it."""
        return self.root / f".{self.run_id}.old"

    @property
    def trash(self) -> Path:
        """Directory of a run that is being deleted."""
        return self.root / f".{self.run_id}.trash"

    def locate(self) -> Path | None:
        """Return the directory that readers open, or None; an interrupted swap loses neither attempt."""
        if _is_directory(self.live):
            return self.live
        with suppress(OSError):
            if is_complete(self.rerun):
                return self.rerun
        return self.old if _is_directory(self.old) else None


def _is_directory(path: Path) -> bool:
    """Return whether `path` is a directory; False if it vanishes during the check."""
    try:
        return path.is_dir()
    except OSError as error:
        if error.errno == errno.ESTALE:
            return False
        raise


def is_run_id(name: str) -> bool:
    """Return whether `name` is a plain, visible directory name."""
    return bool(name) and not name.startswith(".") and "/" not in name and "\0" not in name


def hidden_run_id(name: str) -> str | None:
    """Return the id of the run that the hidden directory `name` belongs to, or None for other directories."""
    stem, dot, suffix = name.removeprefix(".").rpartition(".")
    return stem if name.startswith(".") and dot + suffix in _HIDDEN and is_run_id(stem) else None


def read_record(directory: Path) -> Record | None:
    """Return run.json as written, or None if it is missing, damaged, foreign or cannot be read."""
    try:
        return _read_record(directory)
    except OSError:
        return None


def _read_record(directory: Path) -> Record | None:
    """Return run.json like `read_record`, but raise OSError if it exists and cannot be read."""
    try:
        record = strict_json.loads(read_text(directory / RUN))
    except ValueError:
        return None
    except OSError as error:
        if error.errno in _NO_RECORD_ERRNOS:
            return None
        raise
    if isinstance(record, dict) and str(record.get("schema", "")).startswith("initbench.stored/"):
        return record
    return None


def record_with_live_status(directory: Path) -> Record | None:
    """Return the record with its current status and, if that differs from the stored one, why in `error`.

    A run is "crashed" if it is stored as "running" and its process is gone, or if files of a stored result
    are missing or have another size. None if there is no record.
    """
    record = read_record(directory)
    for _ in range(5):
        if record is None:
            return None
        if problem := find_defect(record):
            return {**record, "status": "damaged", "final": None, "error": problem}
        problem = _incompleteness(record, directory)
        if problem is None:
            return record
        if is_locked(directory / LOCK):
            break
        # The run may have finished between the two checks; read it again.
        earlier, record = record, read_record(directory)
        if record == earlier and problem == _incompleteness(record, directory):
            return {**record, "status": "crashed", **({"final": None, "error": problem} if problem else {})}
    return None if record is None else {**record, "status": "running"}


def is_complete(directory: Path) -> bool:
    """Return whether the directory holds a complete run, finished or diverged, with all its files.

    Raises OSError if a file cannot be read, so that an unreadable complete run is never deleted.
    """
    record = _read_record(directory)
    if record is None or record.get("status") not in COMPLETE or find_defect(record):
        return False
    return _incompleteness(record, directory) is None


def _incompleteness(record: Record, directory: Path) -> str | None:
    """Return why the stored status cannot be trusted.

    None if it can, "" for a run that has not ended, else the first difference from the manifest.
    """
    if record.get("status") in STOPPED:
        return None
    if record.get("status") in COMPLETE:
        return next(manifest_differences(directory, hashes=False), None)
    return ""


def is_deletable(directory: Path) -> bool:
    """Return whether the directory may be deleted as a run: it has a record, or only files of a run."""
    if directory.is_symlink() or not directory.is_dir():
        return directory.is_symlink() and read_record(directory) is not None
    if read_record(directory) is not None:
        return True
    return not foreign_entries(directory)


def foreign_entries(directory: Path) -> list[Path]:
    """Return the entries of a run's directory that are not part of the run."""
    entries = directory.iterdir()
    return [entry for entry in entries if entry.name not in _RUN_FILE_NAMES and not is_temporary(entry.name)]


def odd_files(directory: Path, names: Iterable[str] = _RUN_FILE_NAMES) -> list[str]:
    """Return one message for each file of a run that is a link, pipe, device or directory."""
    problems = []
    for name in sorted(names):
        with suppress(FileNotFoundError):
            if kind := odd_kind((directory / name).lstat().st_mode):
                problems.append(f"{name} is {kind}, not a regular file")
    return problems


@contextmanager
def wrap_os_errors(action: str) -> Iterator[None]:
    """Convert an OSError in the block to a StoreError with a one-sentence message."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise StoreError(f"cannot {action}: {error.strerror or error}{where}") from error


def run_locked_error(run_id: str, directory: Path) -> StoreError:
    """Return the error for a run that a live process is writing."""
    record = read_record(directory) or {}
    by = f" in process {record.get('pid')} on {record.get('host')}" if record else ""
    return StoreError(f"run {run_id} is running{by}: wait until it finishes, or stop that process")
