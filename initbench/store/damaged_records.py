"""Records for damaged runs: directories whose run.json is missing or cannot be read."""

from __future__ import annotations

import re
from pathlib import Path

from initbench.store import strict_json
from initbench.store.checkpoint_files import CHECKPOINTS
from initbench.store.files import is_temporary, read_text
from initbench.store.locks import STRUCTURE_LOCK, is_locked
from initbench.store.manifest import MANIFEST, SUMMARY
from initbench.store.run_directory import (
    CONFIG,
    LAYERS,
    LOCK,
    METRICS,
    RUN,
    SHIFT,
    WEIGHTS,
    Record,
    read_record,
)

_RUN_ID = re.compile(r"(?P<experiment>.+)-s(?P<seed>\d+)-[0-9a-f]{10}")
_FILES_AFTER_RECORD = frozenset((METRICS, LAYERS, SHIFT, WEIGHTS, SUMMARY, MANIFEST, *CHECKPOINTS))
"""Files that are written only after run.json."""
_MIN_RUN_FILES = 2
"""Number of these files that identify a directory as a run even if its name is not a run id."""


def damaged_record(run_id: str, directory: Path) -> Record | None:
    """Return a record for a run without a readable run.json.

    The record has `status` "damaged", the fault as `error`, and experiment and seed if the run id contains
    them. None if the directory is not a run, is just being created, or has a readable run.json by now.
    """
    called = experiment_and_seed(run_id)
    try:
        names = {entry.name for entry in directory.iterdir()}
    except PermissionError:
        names = {RUN}
    except OSError:  # the directory no longer exists
        return None
    if called is None and len(names & {RUN, *_FILES_AFTER_RECORD}) < _MIN_RUN_FILES:
        return None
    if not names & {RUN, *_FILES_AFTER_RECORD} and _is_being_made(directory, names):
        return None
    if read_record(directory) is not None:  # written in the meantime
        return None
    return with_identity(
        run_id, {"status": "damaged", "final": None, "error": _describe_fault(directory / RUN)}
    )


def with_identity(run_id: str, record: Record) -> Record:
    """Return a damaged record with its run id; a missing experiment and seed are taken from the id."""
    called = experiment_and_seed(run_id)
    identity = {} if called is None else {"experiment": called[0], "seed": called[1]}
    missing = {key: value for key, value in identity.items() if type(record.get(key)) is not type(value)}
    return {**record, **({} if isinstance(record.get("run_id"), str) else {"run_id": run_id}), **missing}


def experiment_and_seed(run_id: str) -> tuple[str, int] | None:
    """Return experiment and seed from a run id, or None if the id does not have that format."""
    called = _RUN_ID.fullmatch(run_id)
    return None if called is None else (called["experiment"], int(called["seed"]))


def _is_being_made(directory: Path, names: set[str]) -> bool:
    """Return whether a process has created the directory and not yet written its run.json.

    Such a process holds the store's lock from before it creates the directory until the record exists.
    """
    begun = all(name in (LOCK, CONFIG) or is_temporary(name) for name in names)
    return begun and (is_locked(directory / LOCK) or is_locked(directory.parent / STRUCTURE_LOCK))


def _describe_fault(path: Path) -> str:
    """Return what is wrong with a run.json, as a clause that follows the file name in a message."""
    try:
        text = read_text(path)
        if not text:
            return "it is empty"
        strict_json.loads(text)
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    except ValueError as error:
        return f"it is not valid JSON: {error}"
    return "it is not the record of a run"
