"""Changes to the set of run directories, each one rename at its heart, and their repair after a crash.

Every function here is called under `locks.structure_lock`.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from initbench.errors import StoreError
from initbench.store.files import sync_directory
from initbench.store.layout import LOCK, RUN, Places, busy, hidden_run_id, is_complete, is_ours
from initbench.store.locks import acquire, is_locked


def discard(places: Places, directory: Path, *, spare_complete: bool = False) -> None:
    """Delete `directory`: it is gone for readers at once, its files follow.

    Raises StoreError when a live process holds it, when it holds no run, or (with `spare_complete`) when it
    holds a complete one; OSError when it cannot be moved.
    """
    if not is_ours(directory):
        raise StoreError(f"{directory} holds something other than a run; move it away first")
    lock = acquire(directory / LOCK)
    if lock is None:
        raise busy(places.run_id, directory)
    try:
        if spare_complete and is_complete(directory):  # it came to its end while we waited for the lock
            raise StoreError(f"run {places.run_id} is finished already")
        _delete(places.trash)
        _move(directory, places.trash)
    finally:
        lock.release()
    _delete(places.trash)


def _drop(places: Places, directory: Path) -> None:
    """Delete what no process holds; moved first, so that no reader finds it half deleted."""
    with suppress(OSError):
        if is_ours(directory):
            _delete(places.trash)
            _move(directory, places.trash)
    _delete(places.trash)


def swap(places: Places) -> None:
    """Put the finished `.rerun` in the place of the live run; on an error both are where they were."""
    if places.live.exists():
        _drop(places, places.old)
    try:
        if places.live.exists():
            _move(places.live, places.old)
        _move(places.rerun, places.live)
    except BaseException:
        with suppress(OSError):
            _roll_back(places)
        raise
    _drop(places, places.old)


def adopt(places: Places) -> None:
    """Make the run that was written beside it the live one, where there is none."""
    _move(places.rerun, places.live)


def recover(root: Path) -> None:
    """Bring every swap and deletion that a crash cut off to an end."""
    names = [entry.name for entry in root.iterdir() if entry.name.startswith(".")]
    for run_id in {run_id for name in names if (run_id := hidden_run_id(name))}:
        recover_run(Places(root, run_id))


def recover_run(places: Places) -> None:
    """Complete or roll back one run's swap and remove what was abandoned; a live rerun is left alone."""
    if is_locked(places.rerun / LOCK):
        return
    if is_complete(places.rerun) and places.live.exists():
        swap(places)
    elif is_complete(places.rerun):
        _move(places.rerun, places.live)
    elif places.old.exists() and not places.live.exists():
        _move(places.old, places.live)
    if is_complete(places.live):
        _drop(places, places.old)
    _drop(places, places.rerun)


def _move(source: Path, target: Path) -> None:
    source.rename(target)
    sync_directory(target.parent)


def _roll_back(places: Places) -> None:
    if places.live.exists() and places.old.exists() and not places.rerun.exists():
        places.live.rename(places.rerun)
    if places.old.exists() and not places.live.exists():
        places.old.rename(places.live)


def _delete(directory: Path) -> None:
    """Delete a hidden directory of ours as far as the system lets us; the next recovery tries again."""
    with suppress(OSError):
        if directory.is_symlink():
            directory.unlink()
        elif is_ours(directory):
            for entry in directory.iterdir():
                if entry.name != RUN:  # the record goes last: it is what tells that the rest is ours
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            shutil.rmtree(directory)
