"""Changes to the set of run directories, each one rename at its heart, and their repair after a crash.

Every function here is called under `locks.structure_lock`.
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
    """Delete the live run: it is gone for readers at once, its files follow.

    Raises StoreError when a live process holds it or when it holds no run, OSError when it cannot be moved.
    """
    with _lock_live_run(places):
        delete_hidden(places.trash)
        _move_synced(places.live, places.trash)
    delete_hidden(places.trash)


def install_new_run(places: RunPaths, target: Path) -> None:
    """Put the run that was made in `.new` in its place: live, or as the next attempt of a finished run.

    An unfinished attempt that is there is deleted. Raises StoreError where that may not be, OSError where the
    system refuses; then all is as it was.
    """
    if target != places.live or not target.exists():
        _exchange(places.new, target)
        return
    with _lock_live_run(places):
        if is_complete(places.live):  # it came to its end while we waited for the lock
            raise StoreError(f"run {places.run_id} is finished already")
        _retire_old_run(places)
        _exchange(places.new, places.live, places.old)
    _retire_old_run(places)


def promote_rerun(places: RunPaths) -> None:
    """Put the finished `.rerun` in the place of the live run; on an error both are where they were."""
    if places.live.exists():
        _retire_old_run(places)
        _exchange(places.rerun, places.live, places.old)
    else:
        _exchange(places.rerun, places.live)
    _retire_old_run(places)


@contextmanager
def _lock_live_run(places: RunPaths) -> Iterator[None]:
    """Hold the lock of the live run; raises StoreError where a live process does, or where it is no run."""
    if not is_deletable(places.live):
        raise StoreError(f"{places.live} holds something other than a run; move it away first")
    _remove_odd_lock(places.live / LOCK)
    lock = acquire_lock(places.live / LOCK)
    if lock is None:
        raise run_locked_error(places.run_id, places.live)
    try:
        yield
    finally:
        lock.release()


def _remove_odd_lock(path: Path) -> None:
    """Remove a lock that is no regular file: nobody holds it, and to open it may lead anywhere."""
    with suppress(FileNotFoundError):
        if odd_kind(path.lstat().st_mode):
            remove_path(path)


def _exchange(source: Path, target: Path, aside: Path | None = None) -> None:
    """Move `source` to `target`, and what is there to `aside` first; on an error both are where they were."""
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
    """Delete the run in `.old`; what somebody has put into it beside the run goes into the live run."""
    with suppress(OSError):  # where a file cannot be moved, the directory stays until the next recovery
        if is_deletable(places.old):
            for entry in foreign_entries(places.old):
                _move_synced(entry, places.live / entry.name)
        _drop_directory(places, places.old)


def _drop_directory(places: RunPaths, directory: Path) -> None:
    """Delete what no process holds; moved first, so that no reader finds it half deleted."""
    with suppress(OSError):
        if is_deletable(directory):
            delete_hidden(places.trash)
            _move_synced(directory, places.trash)
    delete_hidden(places.trash)


def recover_store(root: Path) -> None:
    """Bring every swap and deletion that a crash cut off to an end."""
    names = [entry.name for entry in root.iterdir() if entry.name.startswith(".")]
    for run_id in {run_id for name in names if (run_id := hidden_run_id(name))}:
        recover_run(RunPaths(root, run_id))


def recover_run(places: RunPaths) -> None:
    """Complete or roll back one run's swap and remove what was abandoned; a live rerun is left alone."""
    _drop_directory(places, places.new)  # whoever makes one holds the lock that we are called under
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
    """Delete a hidden directory of ours as far as the system lets us; the next recovery tries again.

    What a link in it points at is left alone.
    """
    with suppress(OSError):
        if directory.is_symlink():
            directory.unlink()
        elif is_deletable(directory):
            for entry in directory.iterdir():
                if entry.name != RUN:  # the record goes last: it is what tells that the rest is ours
                    remove_path(entry)
            shutil.rmtree(directory)
