"""Which runs belong to which sweep: runs/.sweeps/NAME.json, beside runs that know nothing of it.

A run may belong to several sweeps, and a sweep may be run in parts, in several stores; so what is known of
it is only ever added to. For each point, by its label:

    experiment    name of its runs' experiment
    keys          dotted key → value: what sets it apart
    runs          ids of its runs
    tuning_runs   ids of those that its tuning took
    tuning        null, or what came of it
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
"""A sweep may have some hundred thousand runs."""
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
"""What came of a tuning, as `initbench.study.tuning` writes it."""
_POINT = is_mapping(
    experiment=is_text,
    keys=is_mapping(),
    runs=is_list(is_text),
    tuning_runs=is_list(is_text),
    tuning=nullable(is_mapping()),
)
_DOCUMENT = is_mapping(points=is_table(_POINT))
Points = dict[str, Record]
"""What is known of each point."""


def sweep_names(root: Path) -> list[str]:
    """The sweeps that the store at `root` knows, in order."""
    return sorted(path.stem for path in (root / FOLDER).glob("*.json"))


def read_points(root: Path, name: str) -> Points:
    """The points of a sweep; raises UnknownNameError where there is none, StoreError where it is damaged."""
    path = root / FOLDER / f"{name}.json"
    points = _read_file(path)
    if points is None:
        from initbench.registry import unknown_name_message

        names = sweep_names(root)
        message = unknown_name_message("sweep", name, names) if names else f"no sweep has been run in {root}"
        raise UnknownNameError(message)
    return points


def run_ids_of(points: Mapping[str, Record], *, tuning: bool = True) -> set[str]:
    """The ids of all runs of a sweep; those of its tuning as well, unless told otherwise."""
    run_ids = {run_id for point in points.values() for run_id in point["runs"]}
    if tuning:
        run_ids |= {run_id for point in points.values() for run_id in point["tuning_runs"]}
    return run_ids


def add_points(root: Path, name: str, points: Mapping[str, Record]) -> None:
    """Add to what is known of a sweep, in one step."""
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
            cure = "delete it, and give the command of the sweep again"
            raise StoreError(f"{path} is damaged; {cure} ({error})") from error


def _validate_points(document: Any) -> Points:
    """The points in a document; raises ValueError for anything that `add` does not write."""
    for problem in _DOCUMENT(document, ""):
        raise ValueError(problem)
    points: Points = document["points"]
    return points
