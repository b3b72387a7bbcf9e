"""What a run directory holds, where its hidden siblings are, and what state a run is in.

runs/<run_id>/            the run
runs/.<run_id>.new/       a run that is being claimed, until it has its record
runs/.<run_id>.rerun/     the next attempt of a finished run, until it is finished itself
runs/.<run_id>.old/       the run that another attempt takes the place of, until it has
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
from initbench.store.manifest import MANIFEST, manifest_differences
from initbench.store.record_schema import find_defect

SCHEMA = "initbench.stored/1"
RUN, CONFIG, LOCK = "run.json", "config.yaml", ".lock"
METRICS, LAYERS, SHIFT = LINE_FILES
WEIGHTS = "weights.safetensors"
LISTED = (CONFIG, RUN, METRICS, LAYERS, SHIFT, WEIGHTS)
"""The files a manifest vouches for."""

COMPLETE = ("finished", "diverged")
STOPPED = ("interrupted", "failed")
STATUSES = ("running", *COMPLETE, *STOPPED, "crashed", "damaged")
"""`crashed`: the process is gone and left no whole result. `damaged`: run.json is missing, cannot be
read, or lacks what it must hold."""

_HIDDEN = (".new", ".rerun", ".old", ".trash")
_RUN_FILE_NAMES = frozenset((*LISTED, *CHECKPOINTS, MANIFEST, LOCK))

_NO_RECORD_ERRNOS = (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.EFBIG)
"""Errors of `read_text` that say what is there: nothing, or no file of ours."""

Record = dict[str, Any]


@dataclass(frozen=True)
class RunPaths:
    """The directories that may hold a run."""

    root: Path
    run_id: str

    def __post_init__(self) -> None:
        if not is_run_id(self.run_id):
            raise UsageError(f"{self.run_id!r} cannot be the id of a run")

    @property
    def live(self) -> Path:
        """Where the run lives."""
        return self.root / self.run_id

    @property
    def new(self) -> Path:
        """Where a run is made before it is in its place."""
        return self.root / f".{self.run_id}.new"

    @property
    def rerun(self) -> Path:
        """Where the next attempt of a finished run is written."""
        return self.root / f".{self.run_id}.rerun"

    @property
    def old(self) -> Path:
        """Where a run waits while another attempt takes its place."""
        return self.root / f".{self.run_id}.old"

    @property
    def trash(self) -> Path:
        """What is being deleted."""
        return self.root / f".{self.run_id}.trash"

    def locate(self) -> Path | None:
        """The directory a reader is to open: a swap that was cut off loses neither attempt."""
        if _is_directory(self.live):
            return self.live
        with suppress(OSError):
            if is_complete(self.rerun):
                return self.rerun
        return self.old if _is_directory(self.old) else None


def _is_directory(path: Path) -> bool:
    """Whether a directory is there now; one that vanishes while it is looked at is not."""
    try:
        return path.is_dir()
    except OSError as error:
        if error.errno == errno.ESTALE:
            return False
        raise


def is_run_id(name: str) -> bool:
    """Whether `name` is a plain, visible directory name."""
    return bool(name) and not name.startswith(".") and "/" not in name and "\0" not in name


def hidden_run_id(name: str) -> str | None:
    """The run that the hidden directory `name` belongs to, or None for a foreign one."""
    stem, dot, suffix = name.removeprefix(".").rpartition(".")
    return stem if name.startswith(".") and dot + suffix in _HIDDEN and is_run_id(stem) else None


def read_record(directory: Path) -> Record | None:
    """run.json as it was written, or None when it is missing, damaged or foreign, or cannot be read."""
    try:
        return _read_record(directory)
    except OSError:
        return None


def _read_record(directory: Path) -> Record | None:
    """run.json as it was written; raises OSError where the system does not let us know."""
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
    """The record with the status it has now, and in `error` the reason why that is not what was written.

    A "running" whose process is gone, or a result whose files are not all there at their size, is "crashed".
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
        # It may have come to its end between the two looks, which only looking again can tell.
        earlier, record = record, read_record(directory)
        if record == earlier and problem == _incompleteness(record, directory):
            return {**record, "status": "crashed", **({"final": None, "error": problem} if problem else {})}
    return None if record is None else {**record, "status": "running"}


def is_complete(directory: Path) -> bool:
    """Whether the directory holds a finished or diverged run, whole.

    Raises OSError where the system does not let us know: what is complete may not be deleted for that.
    """
    record = _read_record(directory)
    if record is None or record.get("status") not in COMPLETE or find_defect(record):
        return False
    return _incompleteness(record, directory) is None


def _incompleteness(record: Record, directory: Path) -> str | None:
    """Why the record cannot be taken at its word: None when it can, "" for one that has not ended."""
    if record.get("status") in STOPPED:
        return None
    if record.get("status") in COMPLETE:
        return next(manifest_differences(directory, hashes=False), None)
    return ""


def is_deletable(directory: Path) -> bool:
    """Whether the directory may be deleted as a run: it has a record, or nothing but names of ours."""
    if directory.is_symlink() or not directory.is_dir():
        return directory.is_symlink() and read_record(directory) is not None
    if read_record(directory) is not None:
        return True
    return not foreign_entries(directory)


def foreign_entries(directory: Path) -> list[Path]:
    """What somebody has put into a run's directory beside what belongs to the run."""
    entries = directory.iterdir()
    return [entry for entry in entries if entry.name not in _RUN_FILE_NAMES and not is_temporary(entry.name)]


def odd_files(directory: Path, names: Iterable[str] = _RUN_FILE_NAMES) -> list[str]:
    """One sentence for each link, pipe or device among the files of a run, which lead outside of it."""
    problems = []
    for name in sorted(names):
        with suppress(FileNotFoundError):
            if kind := odd_kind((directory / name).lstat().st_mode):
                problems.append(f"{name} is {kind}, not a regular file")
    return problems


@contextmanager
def wrap_os_errors(action: str) -> Iterator[None]:
    """Turn an OSError inside into a StoreError of one plain sentence."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise StoreError(f"cannot {action}: {error.strerror or error}{where}") from error


def run_locked_error(run_id: str, directory: Path) -> StoreError:
    """The error for a run that a live process is writing."""
    record = read_record(directory) or {}
    by = f" by process {record.get('pid')} on {record.get('host')}" if record else ""
    return StoreError(f"run {run_id} is running{by}: wait for its end, or stop that process")
