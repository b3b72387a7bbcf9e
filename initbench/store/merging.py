"""Merge the runs of several stores, copying each run completely or not at all.

All runs are checked before anything is written. If the files of a run differ from its manifest, or two stores
hold different results of one run, the problems are reported and nothing is merged. Then each run is copied
under a hidden name and renamed, so that a kill leaves only complete runs and the next call copies the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from initbench.errors import StoreError, UsageError
from initbench.store import directory_swap, sweep_index
from initbench.store.checkpoint_files import CHECKPOINTS
from initbench.store.files import copy_regular, produce_atomic
from initbench.store.locks import is_locked, structure_lock
from initbench.store.manifest import MANIFEST, file_hashes, manifest_differences
from initbench.store.misplaced import find_misplaced
from initbench.store.run_directory import (
    COMPLETE,
    LAYERS,
    LISTED,
    LOCK,
    METRICS,
    SHIFT,
    STOPPED,
    WEIGHTS,
    Record,
    RunPaths,
    is_complete,
    is_deletable,
    odd_files,
    read_record,
    run_locked_error,
    wrap_os_errors,
)
from initbench.store.store import Store

RESULT_FILES = (METRICS, LAYERS, SHIFT, WEIGHTS)
"""Files with results only: two copies of one run must be equal byte for byte."""
RESULT_KEYS = ("status", "steps", "final", "diverged", "parameters")
"""Keys of run.json that describe the result; times, machines and versions may differ."""


@dataclass
class MergeResult:
    """The runs and sweeps that a merge copied, found already present, or skipped."""

    copied: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    """Runs that the target already held, with the same result."""
    left: dict[str, str] = field(default_factory=dict)
    """Skipped runs, with the reason."""
    sweeps: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _SourceRun:
    store: Store
    run_id: str
    is_complete: bool


def merge(sources: Sequence[Path], into: Path) -> MergeResult:
    """Copy the runs and sweeps of `sources` into the store at `into`.

    A result replaces an attempt that failed or was interrupted.

    Raises:
        UsageError: If a source is not a directory of runs.
        StoreError: If a run is damaged or two results of one run differ; nothing has been written then.
    """
    merged = MergeResult()
    for source in sources:
        _check_source(source, into)
        for run in find_misplaced(source):
            hint = "merge its parent directory" if run.is_nested else "rename the directory to this run id"
            merged.left[str(run.directory)] = f"contains the run {run.run_id}: {hint}"
    with wrap_os_errors(f"merge into {into}"):
        runs = _choose_runs(sources, into, merged)
        for run_id, source_run in runs.items():
            (merged.copied if _copy_run(source_run, RunPaths(into, run_id)) else merged.same).append(run_id)
        for source in sources:
            for name in sweep_index.sweep_names(source):
                sweep_index.add_points(into, name, sweep_index.read_points(source, name))
                merged.sweeps += [] if name in merged.sweeps else [name]
    return merged


def copy_runs(store: Store, run_ids: Iterable[str], into: Path) -> int:
    """Copy those of the runs that are finished and undamaged into the store at `into`; return their number.

    Raises:
        StoreError: If a run cannot be copied.
    """
    with wrap_os_errors(f"copy runs into {into}"):
        return sum(
            _copy_run(_SourceRun(store, run_id, True), RunPaths(into, run_id))
            for run_id in run_ids
            if store.status(run_id) in COMPLETE
            and not (store.root / run_id).is_symlink()
            and not store.verify(run_id)
        )


def _check_source(source: Path, into: Path) -> None:
    """Raise UsageError, with the directory to pass instead, if `source` is not a directory of runs."""
    if not source.is_dir():
        raise UsageError(f"{source} is not a directory of runs")
    if source.resolve() == into.resolve():
        raise UsageError(f"{source} is also the target of the merge: remove it from the sources")
    if (record := read_record(source)) is not None:
        run_id = record.get("run_id")
        parent = source.resolve().parent
        renamed = "" if source.resolve().name == run_id else f", and rename it to {run_id}"
        raise UsageError(
            f"{source} is the run {run_id}: pass the directory that contains it, {parent}{renamed}"
        )
    misplaced = find_misplaced(source)
    if misplaced and not Store(source).record_headers():
        parents = dict.fromkeys(str(run.directory.parent) for run in misplaced)
        if str(source) not in parents:
            raise UsageError(f"{source} does not contain runs directly: pass {' '.join(parents)}")


def _choose_runs(sources: Sequence[Path], into: Path, merged: MergeResult) -> dict[str, _SourceRun]:
    """Return the source of each run to copy; raise StoreError with all problems if there are any."""
    runs: dict[str, _SourceRun] = {}
    problems: list[str] = []
    for source in sources:
        for run_id, source_run in _candidates(source, merged, problems):
            other = runs.get(run_id)
            if other is None or (source_run.is_complete and not other.is_complete):
                runs[run_id] = source_run
            elif source_run.is_complete:
                problems += _conflicts(run_id, other.store, source_run.store)
    target = Store(into)
    for run_id, source_run in runs.items():
        merged.left.pop(run_id, None)
        if source_run.is_complete and target.status(run_id) in COMPLETE:
            problems += _conflicts(run_id, target, source_run.store)
    if problems:
        raise StoreError("\n".join([*problems, "nothing was merged"]))
    return runs


def _candidates(source: Path, merged: MergeResult, problems: list[str]) -> Iterator[tuple[str, _SourceRun]]:
    store = Store(source)
    for record in store.record_headers():
        run_id, status = record["run_id"], record["status"]
        if status not in (*COMPLETE, *STOPPED):
            merged.left[run_id] = f"is {status} in {source}"
            continue
        if (source / run_id).is_symlink():  # the target of a link in an untrusted store is never copied
            problems.append(f"{source / run_id} is a link, not a directory")
            continue
        odd = store.read_stable(run_id, odd_files)
        problems += [f"{source / run_id}: {problem}" for problem in odd or ()]
        if status in COMPLETE and not odd:
            problems += [f"{source / run_id}: {problem}" for problem in store.verify(run_id)]
        yield run_id, _SourceRun(store, run_id, status in COMPLETE)


def _conflicts(run_id: str, store: Store, other: Store) -> Iterator[str]:
    """Yield one message if two results of one run differ."""
    first, second = store.read_stable(run_id, _stored_result), other.read_stable(run_id, _stored_result)
    if first is None or second is None:  # removed in the meantime
        return
    names = [name for name in RESULT_FILES if first[0].get(name) != second[0].get(name)]
    names += [f"run.json: {key}" for key in RESULT_KEYS if first[1].get(key) != second[1].get(key)]
    if names:
        prefix = f"run {run_id} has two results, in {store.root} and in {other.root}"
        yield f"{prefix}: {', '.join(names)} differ"


def _stored_result(directory: Path) -> tuple[dict[str, str], Record] | None:
    """Return the hashes of a run's files and its record, or None if it is no longer complete."""
    try:
        return file_hashes(directory), read_record(directory) or {}
    except (FileNotFoundError, ValueError):
        return None


def _copy_run(source_run: _SourceRun, places: RunPaths) -> bool:
    """Copy one run unless the target holds an equally good one; return whether it was copied."""
    places.root.mkdir(parents=True, exist_ok=True)
    with structure_lock(places.root):
        directory_swap.recover_run(places)
        if is_complete(places.live) or (places.live.exists() and not source_run.is_complete):
            return False
        if places.live.exists() and not is_deletable(places.live):
            raise StoreError(f"{places.live} is not a run; move it away first")
        if is_locked(places.live / LOCK):
            raise run_locked_error(places.run_id, places.live)
        if source_run.store.read_stable(source_run.run_id, partial(_copy_files, places)) is None:
            return False
        if source_run.is_complete and (problems := list(manifest_differences(places.rerun, hashes=True))):
            raise StoreError(
                f"{source_run.store.root / source_run.run_id} changed while it was copied: {problems[0]}"
            )
        directory_swap.promote_rerun(places)
    return True


def _copy_files(places: RunPaths, directory: Path) -> bool:
    """Copy the files in `directory` to the rerun directory; return True, as None means "no such run"."""
    directory_swap.delete_hidden(places.rerun)
    places.rerun.mkdir()
    # The manifest, which makes the run complete, comes last.
    for name in (*LISTED, *CHECKPOINTS, MANIFEST):
        with suppress(FileNotFoundError):  # it may be removed in the meantime
            (directory / name).lstat()
            produce_atomic(places.rerun / name, partial(copy_regular, directory / name))
    return True
