"""Index of the runs of each sweep, in runs/.sweeps/NAME.json; the runs themselves do not name their sweep.

A run may belong to several sweeps, and a sweep may be run in parts, in several stores; therefore entries are
only added, never removed. Each point has, under its label:

    experiment    name of the experiment of its runs
    keys          dotted key → value, the keys in which the point differs from others
    runs          ids of its runs
    tuning_runs   ids of the runs used for tuning
    tuning        result of the tuning, or null
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from initbench.errors import StoreError, UnknownNameError
from initbench.store import strict_json
from initbench.store.files import read_text, write_atomic
from initbench.store.locks import acquire_lock
from initbench.store.record_schema import (
    is_finite,
    is_integer,
    is_list,
    is_mapping,
    is_nonempty_list,
    is_number,
    is_one_of,
    is_table,
    is_text,
    nullable,
    optional_keys,
)
from initbench.store.run_directory import Record, wrap_os_errors

FOLDER, SCHEMA = ".sweeps", "initbench.swept/1"
_PATIENCE = 10.0
_MAX_BYTES = 2**28
"""Maximum size of a sweep's file; a sweep may have some hundred thousand runs."""
TUNING = optional_keys(
    is_mapping(
        key=is_text,
        best=is_finite,
        edge=nullable(is_one_of("low", "high")),
        tried=is_nonempty_list(
            is_mapping(value=is_finite, score=is_number, runs=is_integer, lost=is_integer)
        ),
    ),
    metric=is_text,
    good=is_list(is_finite),
    decades=is_number,
    runs=is_integer,
    seconds=is_number,
)
"""Check of the result of a tuning, as `initbench.study.tuning` writes it."""
_POINT = is_mapping(
    experiment=is_text,
    keys=is_mapping(),
    runs=is_list(is_text),
    tuning_runs=is_list(is_text),
    tuning=nullable(is_mapping()),
)
_DOCUMENT = is_mapping(points=is_table(_POINT))
Points = dict[str, Record]
"""Label of each point → its entry."""


def sweep_names(root: Path) -> list[str]:
    """Return the sorted names of the sweeps in the store at `root`."""
    return sorted(path.stem for path in (root / FOLDER).glob("*.json"))


def read_points(root: Path, name: str) -> Points:
    """Return the points of a sweep; raise UnknownNameError if it is unknown, StoreError if it is damaged."""
    path = root / FOLDER / f"{name}.json"
    points = _read_file(path)
    if points is None:
        from initbench.registry import unknown_name_message

        names = sweep_names(root)
        message = unknown_name_message("sweep", name, names) if names else f"no sweep has been run in {root}"
        raise UnknownNameError(message)
    return points


def run_ids_of(points: Mapping[str, Record], *, tuning: bool = True) -> set[str]:
    """Return the ids of all runs of a sweep; with `tuning`, the runs used for tuning are included."""
    run_ids = {run_id for point in points.values() for run_id in point["runs"]}
    if tuning:
        run_ids |= {run_id for point in points.values() for run_id in point["tuning_runs"]}
    return run_ids


def add_points(root: Path, name: str, points: Mapping[str, Record]) -> None:
    """Add points, and runs of known points, to a sweep in one atomic write."""
    folder = root / FOLDER
    path = folder / f"{name}.json"
    with wrap_os_errors(f"write {path}"):
        folder.mkdir(parents=True, exist_ok=True)
        with _folder_lock(folder):
            points_before = _read_file(path) or {}
            every = {
                **points_before,
                **{label: _merge_point(points_before.get(label), new) for label, new in points.items()},
            }
            if every != points_before:
                document = {"schema": SCHEMA, "sweep": name, "points": every}
                write_atomic(path, strict_json.dumps(document) + "\n")


def _merge_point(old: Record | None, new: Record) -> Record:
    if old is None:
        return new
    every = {key: list(dict.fromkeys([*old[key], *new[key]])) for key in ("runs", "tuning_runs")}
    return {**new, **every, "tuning": new["tuning"] or old["tuning"]}


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    lock = acquire_lock(folder / ".lock", _PATIENCE)
    if lock is None:
        raise StoreError(f"another process has been writing to {folder} for {_PATIENCE:.0f} s")
    try:
        yield
    finally:
        lock.release()


def _read_file(path: Path) -> Points | None:
    with wrap_os_errors(f"read {path}"):
        try:
            return _validate_points(strict_json.loads(read_text(path, _MAX_BYTES)))
        except FileNotFoundError:
            return None
        except ValueError as error:
            cure = "delete it and run the sweep again"
            raise StoreError(f"{path} is damaged; {cure} ({error})") from error


def _validate_points(document: Any) -> Points:
    """Return the points in a document; raise ValueError for a document that `add_points` cannot write."""
    for problem in _DOCUMENT(document, ""):
        raise ValueError(problem)
    points: Points = document["points"]
    return points
