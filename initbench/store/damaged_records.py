"""Directories that were a run and no longer say so: their run.json is missing or cannot be read."""

from __future__ import annotations

import re
from pathlib import Path

from initbench.store import strict_json
from initbench.store.checkpoint_files import CHECKPOINTS
from initbench.store.files import is_temporary, read_text
from initbench.store.locks import STRUCTURE_LOCK, is_locked
from initbench.store.manifest import MANIFEST
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
_FILES_AFTER_RECORD = frozenset((METRICS, LAYERS, SHIFT, WEIGHTS, MANIFEST, *CHECKPOINTS))
"""Files that a run gets once its run.json is there."""
_MIN_RUN_FILES = 2
"""Files of these names that make a run of a directory which is not called like one."""


def damaged_record(run_id: str, directory: Path) -> Record | None:
    """The record of a run without a run.json of its own; None for what never was one, or is just begun.

    It has `status` "damaged", the fault as `error`, and experiment and seed as far as the run's id tells.
    """
    called = experiment_and_seed(run_id)
    try:
        names = {entry.name for entry in directory.iterdir()}
    except PermissionError:
        names = {RUN}
    except OSError:  # it is gone
        return None
    if called is None and len(names & {RUN, *_FILES_AFTER_RECORD}) < _MIN_RUN_FILES:
        return None
    if not names & {RUN, *_FILES_AFTER_RECORD} and _is_being_made(directory, names):
        return None
    if read_record(directory) is not None:  # it has come since we looked
        return None
    return with_identity(
        run_id, {"status": "damaged", "final": None, "error": _describe_fault(directory / RUN)}
    )


def with_identity(run_id: str, record: Record) -> Record:
    """A damaged record with its run's id, and with experiment and seed as the id says them if it does not."""
    called = experiment_and_seed(run_id)
    identity = {} if called is None else {"experiment": called[0], "seed": called[1]}
    missing = {key: value for key, value in identity.items() if type(record.get(key)) is not type(value)}
    return {**record, **({} if isinstance(record.get("run_id"), str) else {"run_id": run_id}), **missing}


def experiment_and_seed(run_id: str) -> tuple[str, int] | None:
    """What a run's id says; None where it is not made like one."""
    called = _RUN_ID.fullmatch(run_id)
    return None if called is None else (called["experiment"], int(called["seed"]))


def _is_being_made(directory: Path, names: set[str]) -> bool:
    """Whether a process has made the directory and not yet come to its run.json.

    It holds the store's lock from before there is the directory until there is the record.
    """
    begun = all(name in (LOCK, CONFIG) or is_temporary(name) for name in names)
    return begun and (is_locked(directory / LOCK) or is_locked(directory.parent / STRUCTURE_LOCK))


def _describe_fault(path: Path) -> str:
    """What is wrong with a run.json, to be said after its name."""
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
        return f"it is no JSON: {error}"
    return "it is no record of a run"
