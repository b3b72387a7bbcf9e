"""Crash-safe writing of one run: a kill loses no acknowledged data and leaves no partial line."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from initbench.errors import InitbenchError, StoreError, Terminated
from initbench.store import checkpoint_files as checkpoints
from initbench.store import directory_swap, strict_json
from initbench.store.checkpoint_files import CHECKPOINTS, Resumption
from initbench.store.files import (
    append_line,
    is_temporary,
    produce_atomic,
    remove_path,
    remove_temporaries,
    sync_directory,
    sync_file,
    write_atomic,
)
from initbench.store.line_files import read_line_files, read_shifts
from initbench.store.locks import FileLock, acquire_lock, structure_lock
from initbench.store.manifest import MANIFEST, SUMMARY, build_manifest, repeated_steps
from initbench.store.run_directory import (
    COMPLETE,
    CONFIG,
    LAYERS,
    LISTED,
    LOCK,
    METRICS,
    RUN,
    SCHEMA,
    SHIFT,
    STOPPED,
    WEIGHTS,
    Record,
    RunPaths,
    odd_files,
    run_locked_error,
    wrap_os_errors,
)
from initbench.store.summary_file import LineStatistics, summary_text

Weights = bytes | Callable[[Path], object]
"""Contents of weights.safetensors, or a function that writes them to the path it is given."""
_Add = Callable[[LineStatistics, Mapping[str, Any]], None]


class RunWriter:
    """The only writer of a run, from `Store.claim` until `finish` or `stop`; a context manager.

    An exception in the context ends the run: as interrupted for KeyboardInterrupt and `errors.Terminated`, as
    failed with the traceback in `record["error"]` for any other. The methods raise StoreError if a write
    fails, and InitbenchError once the run is closed.
    """

    def __init__(
        self,
        places: RunPaths,
        directory: Path,
        lock: FileLock,
        record: Record,
        resumption: Resumption | None = None,
        notice: str | None = None,
    ) -> None:
        self.run_id = places.run_id
        self.directory = directory
        self.record = record
        """Contents of run.json."""
        self.resumption = resumption
        """State from which a resumed run continues; None for a run that starts from scratch."""
        self.notice = notice
        """Message if the run cannot resume from its last checkpoint: why, and where it starts instead."""
        self._places = places
        self._lock = lock
        self._open = True
        self._made_progress = False
        """Whether there is a checkpoint later than the one it was resumed from."""
        self._unsynced: set[str] = set()
        """Files with lines that a loss of power would lose."""
        self._statistics = None if resumption else LineStatistics()
        """Statistics of the evaluations and probes; None if they must be read from the files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._open:
            return
        with suppress(StoreError):  # on a full disk the run shows as crashed; `error` is more important
            if error is None:
                self.stop("failed", "the run ended without a result")
            elif isinstance(error, KeyboardInterrupt | Terminated):
                self.stop("interrupted")
            else:
                self.stop("failed", "".join(traceback.format_exception(error)))

    def append_convergence(self, entry: Mapping[str, Any]) -> None:
        """Append one evaluation.

        It survives the end of this process at once, and a loss of power from the next checkpoint on.
        """
        self._append(METRICS, entry)
        self._collect(LineStatistics.add_evaluation, entry)

    def append_snapshot(self, snapshot: Mapping[str, Any]) -> None:
        """Append one probe of all layers, as durably as an evaluation."""
        self._append(LAYERS, snapshot)
        self._collect(LineStatistics.add_snapshot, snapshot)

    def append_shift(self, entry: Mapping[str, Any]) -> None:
        """Append the covariate shift of one update, as durably as an evaluation."""
        self._append(SHIFT, entry)

    def checkpoint(self, state: bytes) -> None:
        """Write a new checkpoint: `state`, a safetensors file with its "step" in the metadata."""
        self._check_open()
        with wrap_os_errors(f"write to run {self.run_id}"):
            self._sync_lines()  # the checkpoint refers to them
            checkpoints.write_checkpoint(self.directory, state)
        self._made_progress = True

    def finish(self, updates: Mapping[str, Any], weights: Weights | None = None) -> None:
        """Store the result: weights, run.json, summary, and then the manifest that makes the run complete.

        A rerun finally replaces the previous attempt. On an error the run stays open.

        Args:
            updates: Keys to add to the record; "status" may be finished (the default) or diverged.
            weights: Contents of weights.safetensors, or None to store no weights.
        """
        self._check_open()
        status = updates.get("status", "finished")
        if status not in COMPLETE:
            raise ValueError(f"a run finishes as {' or '.join(COMPLETE)}, not as {status!r}")
        with wrap_os_errors(f"store the result of run {self.run_id}"):
            self._sync_lines()
            if weights is not None:
                self._write_weights(weights)
            self._write_record({**updates, "status": status, "finished": utc_timestamp()})
            self._write_summary()
            sync_directory(self.directory)
            for problem in repeated_steps(self.directory):
                raise StoreError(f"{self.directory}: {problem}; run the command again")
            manifest = build_manifest(self.directory, LISTED)
            write_atomic(self.directory / MANIFEST, strict_json.dumps(manifest) + "\n")
            with suppress(OSError):  # leftovers do not make a run incomplete
                remove_leftovers(self.directory)
            if self.directory == self._places.rerun:
                with structure_lock(self._places.root):
                    directory_swap.promote_rerun(self._places)
        self._close()
        self.directory = self._places.live  # only now: `stop` must never change a complete run

    def stop(self, status: str, error: str | None = None) -> None:
        """End the run without a result, as interrupted or failed; the lock is released in any case."""
        self._check_open()
        if status not in STOPPED:
            raise ValueError(f"a run stops as {' or '.join(STOPPED)}, not as {status!r}")
        try:
            with wrap_os_errors(f"mark run {self.run_id} as {status}"):
                if status == "failed" and self.resumption is not None and not self._made_progress:
                    self._drop_checkpoints()
                for name in (MANIFEST, SUMMARY):  # `finish` may have written them
                    (self.directory / name).unlink(missing_ok=True)
                self._sync_lines()
                ending = {"status": status, "finished": utc_timestamp()}
                self._write_record(ending if error is None else {**ending, "error": error})
                sync_directory(self.directory)
        finally:
            self._close()

    def _drop_checkpoints(self) -> None:
        """Delete the checkpoints, so that the next attempt starts from scratch.

        The checkpoint from which this attempt was resumed may be the cause of the failure.
        """
        for name in CHECKPOINTS:
            remove_path(self.directory / name)

    def _append(self, name: str, entry: Mapping[str, Any]) -> None:
        self._check_open()
        line = strict_json.dumps(dict(entry))
        with wrap_os_errors(f"write to run {self.run_id}"):
            append_line(self.directory / name, line)
        self._unsynced.add(name)

    def _sync_lines(self) -> None:
        while self._unsynced:
            sync_file(self.directory / self._unsynced.pop())

    def _write_weights(self, weights: Weights) -> None:
        path = self.directory / WEIGHTS
        if isinstance(weights, bytes):
            write_atomic(path, weights, sync_name=False)
        else:
            produce_atomic(path, weights, sync_name=False)

    def _write_record(self, updates: Mapping[str, Any]) -> None:
        record = {**self.record, **updates, "run_id": self.run_id, "schema": SCHEMA}
        write_atomic(self.directory / RUN, strict_json.dumps(record) + "\n", sync_name=False)
        self.record = record

    def _collect(self, add: _Add, entry: Mapping[str, Any]) -> None:
        """Add a line to the statistics of the run."""
        try:
            if self._statistics is not None:
                add(self._statistics, entry)
        except (TypeError, ValueError, AttributeError, LookupError):
            self._statistics = None

    def _write_summary(self) -> None:
        """Write the summary of the complete run, or none if its record or lines are invalid."""
        try:
            record = strict_json.loads(strict_json.dumps(self.record))
            if self._statistics is None:
                convergence, snapshots, shifts = read_line_files(self.directory)
                self._statistics = LineStatistics.from_lines(convergence, snapshots)
            else:
                shifts = read_shifts(self.directory)
            text = summary_text(record, self._statistics, shifts)
        except (TypeError, ValueError, AttributeError, LookupError, StoreError):
            (self.directory / SUMMARY).unlink(missing_ok=True)
        else:
            write_atomic(self.directory / SUMMARY, text, sync_name=False)

    def _check_open(self) -> None:
        if not self._open:
            raise InitbenchError(f"run {self.run_id} is already closed")

    def _close(self) -> None:
        self._open = False
        self._lock.release()


def create_run(
    places: RunPaths, target: Path, record: Mapping[str, Any], config_yaml: str, notice: str | None
) -> RunWriter:
    """Create a running run at `target`, replacing an unfinished one; called under `locks.structure_lock`.

    The run is created in a hidden directory, so that an error or a kill leaves no trace at `target`.

    Raises:
        OSError: If it cannot be written.
        StoreError: If `target` is not a run, is finished, or is being written by a live process.
    """
    lock = None
    try:
        places.new.mkdir()
        lock = acquire_lock(places.new / LOCK)
        if lock is None:
            raise run_locked_error(places.run_id, places.new)
        write_atomic(places.new / CONFIG, config_yaml, sync_name=False)
        stamp = _start_record(places.run_id)
        stamped = {**stamp, **record, **stamp}
        write_atomic(places.new / RUN, strict_json.dumps(stamped) + "\n")
        directory_swap.install_new_run(places, target)
        return RunWriter(places, target, lock, stamped, notice=notice)
    except BaseException:
        if lock is not None:
            lock.release()
        directory_swap.delete_hidden(places.new)
        raise


def resume_run(
    places: RunPaths, record: Mapping[str, Any], *, created: str | None
) -> tuple[RunWriter | None, str | None]:
    """Resume an interrupted run from its last usable checkpoint; called under `locks.structure_lock`.

    Returns:
        The writer, or None if the run must start from scratch; and a message if a checkpoint could not be
        used, else None.

    Raises:
        OSError: If the directory cannot be written.
        StoreError: If a live process is writing the run.
    """
    directory = places.live
    if odd := odd_files(directory, (CONFIG, METRICS, LAYERS, SHIFT, LOCK)):
        return None, f"{places.run_id}: {odd[0]}; starting from scratch"
    lock = acquire_lock(directory / LOCK)
    if lock is None:
        raise run_locked_error(places.run_id, directory)
    try:
        remove_temporaries(directory)
        resumption, faults = checkpoints.truncate_to_checkpoint(directory)
        notice = _damage_notice(places.run_id, resumption, faults)
        if resumption is None:
            lock.release()
            return None, notice
        stamp = _start_record(places.run_id)
        stamped = {**stamp, **record, **stamp, "created": created or stamp["created"]}
        write_atomic(directory / RUN, strict_json.dumps(stamped) + "\n")
        return RunWriter(places, directory, lock, stamped, resumption, notice), notice
    except BaseException:
        lock.release()
        raise


def lost_steps_notice(places: RunPaths) -> str | None:
    """Return the message for a run without a checkpoint that starts again, or None if it had not begun."""
    try:
        has_begun = (places.live / METRICS).lstat().st_size > 0
    except OSError:
        has_begun = False
    return (
        f"{places.run_id}: stopped before its first checkpoint; starting from step 0" if has_begun else None
    )


def has_leftovers(directory: Path) -> bool:
    """Return whether the directory contains files that `remove_leftovers` would remove."""
    return any(name in CHECKPOINTS or is_temporary(name) for name in os.listdir(directory))  # noqa: PTH208


def remove_leftovers(directory: Path) -> None:
    """Remove the checkpoints and temporary files of a complete run."""
    for name in CHECKPOINTS:
        remove_path(directory / name)
    remove_temporaries(directory)


def _damage_notice(run_id: str, resumption: Resumption | None, faults: Sequence[str]) -> str | None:
    if not faults:
        return None
    instead = "starting from scratch" if resumption is None else "resuming from the previous checkpoint"
    return f"{run_id}: damaged: {'; '.join(faults)}; {instead}"


def utc_timestamp() -> str:
    """Return the current time in ISO 8601, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _start_record(run_id: str) -> Record:
    return {
        "schema": SCHEMA,
        "run_id": run_id,
        "status": "running",
        "created": utc_timestamp(),
        "finished": None,
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
