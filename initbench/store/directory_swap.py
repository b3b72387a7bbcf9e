"""Changes to the set of run directories, each committed by one rename, and their recovery after a crash.

Callers of all functions in this file must hold `locks.structure_lock`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from initbench.errors import StoreError
from initbench.store.files import odd_kind, remove_path, sync_directory
from initbench.store.locks import acquire_lock, is_locked
from initbench.store.run_directory import (
    LOCK,
    RUN,
    RunPaths,
    foreign_entries,
    hidden_run_id,
    is_complete,
    is_deletable,
    run_locked_error,
)


def discard_live_run(places: RunPaths) -> None:
    """Delete the live run: readers no longer see it from the rename on, and its files are deleted afterwards.

    Raises:
        StoreError: If a live process holds its lock, or the directory is not a run.
        OSError: If it cannot be moved.
    """
    with _lock_live_run(places):
        delete_hidden(places.trash)
        _move_synced(places.live, places.trash)
    delete_hidden(places.trash)


def install_new_run(places: RunPaths, target: Path) -> None:
    """Move the run created in `.new` to `target`: the live directory, or `.rerun` for a finished run.

    An unfinished attempt in the live directory is deleted. On an error nothing has changed.

    Raises:
        StoreError: If the live run is finished or held by a live process, or the directory is not a run.
        OSError: If a directory cannot be moved.
    """
    if target != places.live or not target.exists():
        _exchange(places.new, target)
        return
    with _lock_live_run(places):
        if is_complete(places.live):  # it finished while we waited for the lock
            raise StoreError(f"run {places.run_id} is already finished")
        _retire_old_run(places)
        _exchange(places.new, places.live, places.old)
    _retire_old_run(places)


def promote_rerun(places: RunPaths) -> None:
    """Replace the live run with the finished `.rerun`; on an error neither has moved."""
    if places.live.exists():
        _retire_old_run(places)
        _exchange(places.rerun, places.live, places.old)
    else:
        _exchange(places.rerun, places.live)
    _retire_old_run(places)


@contextmanager
def _lock_live_run(places: RunPaths) -> Iterator[None]:
    """Hold the lock of the live run; raise StoreError if a live process holds it or it is not a run."""
    if not is_deletable(places.live):
        raise StoreError(f"{places.live} is not a run; move it away first")
    _remove_odd_lock(places.live / LOCK)
    lock = acquire_lock(places.live / LOCK)
    if lock is None:
        raise run_locked_error(places.run_id, places.live)
    try:
        yield
    finally:
        lock.release()


def _remove_odd_lock(path: Path) -> None:
    """Remove a lock that is not a regular file: no process holds it, and opening a link or pipe is unsafe."""
    with suppress(FileNotFoundError):
        if odd_kind(path.lstat().st_mode):
            remove_path(path)


def _exchange(source: Path, target: Path, aside: Path | None = None) -> None:
    """Move `source` to `target`, after moving an existing `target` to `aside`; undo both on an error."""
    try:
        if aside is not None:
            _move_synced(target, aside)
        _move_synced(source, target)
    except BaseException:
        with suppress(OSError):
            if target.exists() and not source.exists():
                target.rename(source)
            if aside is not None and aside.exists() and not target.exists():
                aside.rename(target)
        raise


def _retire_old_run(places: RunPaths) -> None:
    """Delete the run in `.old`; files in it that are not part of the run are moved to the live run."""
    with suppress(OSError):  # if a file cannot be moved, the directory stays until the next recovery
        if is_deletable(places.old):
            for entry in foreign_entries(places.old):
                _move_synced(entry, places.live / entry.name)
        _drop_directory(places, places.old)


def _drop_directory(places: RunPaths, directory: Path) -> None:
    """Delete a directory that no process holds; it is moved first, so that no reader sees it half deleted."""
    with suppress(OSError):
        if is_deletable(directory):
            delete_hidden(places.trash)
            _move_synced(directory, places.trash)
    delete_hidden(places.trash)


def recover_store(root: Path) -> None:
    """Complete or roll back every swap and deletion that a crash interrupted."""
    names = [entry.name for entry in root.iterdir() if entry.name.startswith(".")]
    for run_id in {run_id for name in names if (run_id := hidden_run_id(name))}:
        recover_run(RunPaths(root, run_id))


def recover_run(places: RunPaths) -> None:
    """Complete or roll back one run's swap and remove abandoned attempts; a live rerun is left alone."""
    _drop_directory(places, places.new)  # no process is creating it: it would hold the structure lock
    if is_locked(places.rerun / LOCK):
        return
    if is_complete(places.rerun):
        promote_rerun(places)
    elif places.old.exists() and not places.live.exists():
        _move_synced(places.old, places.live)
    if places.live.exists() and (is_complete(places.live) or not is_complete(places.old)):
        _retire_old_run(places)
    _drop_directory(places, places.rerun)


def _move_synced(source: Path, target: Path) -> None:
    source.rename(target)
    sync_directory(target.parent)


def delete_hidden(directory: Path) -> None:
    """Delete a hidden directory of the store; errors are ignored, and the next recovery tries again.

    The targets of links in it are left alone.
    """
    with suppress(OSError):
        if directory.is_symlink():
            directory.unlink()
        elif is_deletable(directory):
            for entry in directory.iterdir():
                if entry.name != RUN:  # deleted last: the record identifies the rest as part of a run
                    remove_path(entry)
            shutil.rmtree(directory)
