"""The run store: runs/ is the truth, a directory of plain files for each run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from initbench.errors import StoreError, UsageError
from initbench.store import directory_swap, strict_json, sweep_index
from initbench.store.checkpoint_files import checkpoint_step, stated_step
from initbench.store.damaged_records import damaged_record, with_identity
from initbench.store.files import read_lines
from initbench.store.locks import is_locked, structure_lock
from initbench.store.manifest import find_step_disorder, manifest_differences
from initbench.store.record_schema import EVALUATION_LINE, SHIFT_LINE, SNAPSHOT_LINE, Check, layer_signature
from initbench.store.run_directory import (
    LAYERS,
    LOCK,
    METRICS,
    RUN,
    SHIFT,
    Record,
    RunPaths,
    hidden_run_id,
    is_complete,
    is_run_id,
    read_record,
    record_with_live_status,
    run_locked_error,
    wrap_os_errors,
)
from initbench.store.run_patterns import matching_run_ids
from initbench.store.stable_reads import directory_identity, read_stable_directory
from initbench.store.writer import RunWriter, create_run, has_leftovers, remove_leftovers, resume_run

T = TypeVar("T")

_MAX_LISTINGS = 10
"""How often the runs are listed while directories are renamed."""


@dataclass(frozen=True)
class StoredRun:
    """All that was stored about a run but its weights."""

    run_id: str
    record: Record
    """run.json, with the status the run has now."""
    convergence: list[Record]
    """One entry for each evaluation."""
    snapshots: list[Record]
    """One entry for each probe."""
    shifts: list[Record] = field(default_factory=list)
    """One entry for each update whose covariate shift was measured."""


class Store:
    """The runs below `root`; nothing is read or made before a method is called.

    Every method raises StoreError, in one plain sentence, when the file system refuses.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._recovered = False

    def directory(self, run_id: str) -> Path | None:
        """The directory to read the run from, or None when there is no such run."""
        with wrap_os_errors(f"read run {run_id}"):
            return self.read_stable(run_id, lambda directory: directory)

    def status(self, run_id: str) -> str | None:
        """One of `layout.STATUSES`, or None when there is no such run."""
        with wrap_os_errors(f"read run {run_id}"):
            record = self._live_record_of(run_id)
        return None if record is None else str(record["status"])

    def is_busy(self, run_id: str) -> bool:
        """Whether a live process writes the run, or the next attempt of it."""
        places = RunPaths(self.root, run_id)
        with wrap_os_errors(f"read run {run_id}"):
            return is_locked(places.live / LOCK) or is_locked(places.rerun / LOCK)

    def records(self) -> list[Record]:
        """run.json of every run, with the status it has now, oldest first; what is not a run is ignored."""
        return self._records({})

    def read(self, run_id: str) -> StoredRun:
        """Read a run; raises UsageError when there is none, StoreError when a file of it is damaged.

        The error names the file and what it lacks.
        """
        run = self.read_if_there(run_id)
        if run is None:
            raise _no_such_run(run_id)
        return run

    def read_if_there(self, run_id: str) -> StoredRun | None:
        """Read a run that may be removed at any moment: None when it is; StoreError as `read` raises it."""
        with wrap_os_errors(f"read run {run_id}"):
            return self.read_stable(run_id, lambda directory: _read_run(run_id, directory))

    def read_or_mark_damaged(self, run_id: str) -> StoredRun | None:
        """`read_if_there`, but a damaged run is one whose record says so, with file and fault in `error`.

        Such a run has no lines, and its record may lack anything but run_id, status and error.
        """
        with wrap_os_errors(f"read run {run_id}"):
            return self.read_stable(run_id, lambda directory: _read_or_mark_damaged(run_id, directory))

    def find(self, patterns: Sequence[str], indexed: Mapping[str, Record] | None = None) -> list[str]:
        """The runs that any of `patterns` names: ids, unique beginnings of ids, experiments, sweeps, globs.

        All runs when there are no patterns; in the order of `records`. `known`: records of runs, as far as
        run_id, created and experiment, that need not be read again. Raises UsageError for a pattern
        that matches nothing (with the nearest name) or begins more than one id.
        """
        records = self._records(indexed or {})
        experiments = {record["run_id"]: str(record.get("experiment", "")) for record in records}
        if not patterns:
            return list(experiments)
        wanted = {run_id for pattern in patterns for run_id in self._matches(pattern, experiments)}
        return [run_id for run_id in experiments if run_id in wanted]

    def _matches(self, pattern: str, experiments: Mapping[str, str]) -> Collection[str]:
        """The runs that a pattern names; those of a sweep, where nothing else is called so."""
        if pattern in sweep_index.sweep_names(self.root) and pattern not in experiments.values():
            swept = sweep_index.run_ids_of(sweep_index.read_points(self.root, pattern), tuning=False)
            if swept & experiments.keys():
                return swept
        return matching_run_ids(pattern, experiments, self.root)

    def verify(self, run_id: str) -> list[str]:
        """Compare every byte of a run with its manifest; returns one sentence for each file that differs.

        Raises UsageError when there is no such run.
        """
        with wrap_os_errors(f"verify run {run_id}"):
            problems = self.read_stable(
                run_id, lambda directory: list(manifest_differences(directory, hashes=True))
            )
        if problems is None:
            raise _no_such_run(run_id)
        return problems

    def claim(
        self, run_id: str, record: Mapping[str, Any], config_yaml: str, *, rerun: bool = False
    ) -> RunWriter:
        """Become the one writer of a run.

        One that was interrupted is taken up where its checkpoint is (`RunWriter.resumption`); without a
        checkpoint, or with `rerun`, what an unfinished attempt left behind is cleared first.
        With `rerun` a finished run stays readable until the new attempt takes its place at its `finish`.
        Raises StoreError when a live process writes the run, or when it is finished and not to be rerun.
        """
        places = RunPaths(self.root, run_id)
        with wrap_os_errors(f"write run {run_id} to {self.root}"):
            self.root.mkdir(parents=True, exist_ok=True)
            with structure_lock(self.root):
                self._recover(places)
                writer, notice = (None, None) if rerun else self._resume(places, record)
                return writer or create_run(
                    places, self._new_attempt_dir(places, rerun), record, config_yaml, notice
                )

    def remove(self, run_id: str) -> None:
        """Delete a run, in one step for readers.

        Raises UsageError when there is no such run and StoreError when a live process writes it.
        """
        places = RunPaths(self.root, run_id)
        if places.locate() is None:
            raise _no_such_run(run_id)
        with wrap_os_errors(f"remove run {run_id}"), structure_lock(self.root):
            self._recover(places)
            if is_locked(places.rerun / LOCK):
                raise run_locked_error(run_id, places.rerun)
            if not places.live.exists():
                raise _no_such_run(run_id)
            directory_swap.discard_live_run(places)

    def tidy(self, run_ids: Iterable[str]) -> None:
        """Remove from finished runs what a process left that was killed as it finished them."""
        for run_id in run_ids:
            live = RunPaths(self.root, run_id).live
            with suppress(OSError, StoreError):
                if has_leftovers(live) and is_complete(live) and not is_locked(live / LOCK):
                    remove_leftovers(live)

    def recover(self) -> None:
        """Finish or roll back what crashed processes left half done; `claim` and `remove` begin with it."""
        if self.root.is_dir():
            with wrap_os_errors(f"tidy {self.root}"), structure_lock(self.root):
                directory_swap.recover_store(self.root)
                self._recovered = True

    def _recover(self, places: RunPaths) -> None:
        if not self._recovered:
            directory_swap.recover_store(self.root)
            self._recovered = True
        directory_swap.recover_run(places)

    def checkpoint_step(self, run_id: str) -> int:
        """Updates that an interrupted run need not make again; 0 when it has to begin anew."""
        return self._step(run_id, checkpoint_step)

    def stated_step(self, run_id: str) -> int:
        """`checkpoint_step` in a moment: whether the checkpoint is whole is not looked at."""
        return self._step(run_id, stated_step)

    def _step(self, run_id: str, step_in: Callable[[Path], int | None]) -> int:
        """Return the step of an unfinished run's checkpoint, or 0 for any other run."""

        def look(directory: Path) -> int | None:
            return None if is_complete(directory) else step_in(directory)

        with wrap_os_errors(f"read run {run_id}"):
            return self.read_stable(run_id, look) or 0

    def _resume(self, places: RunPaths, record: Mapping[str, Any]) -> tuple[RunWriter | None, str | None]:
        if is_complete(places.live) or is_locked(places.rerun / LOCK) or is_locked(places.live / LOCK):
            return None, None
        earlier = read_record(places.live)
        if earlier is None or earlier.get("run_id") != places.run_id:
            return None, None
        return resume_run(places, record, created=earlier.get("created"))

    def _new_attempt_dir(self, places: RunPaths, rerun: bool) -> Path:
        """The directory to make for a new attempt."""
        if is_locked(places.rerun / LOCK):
            raise run_locked_error(places.run_id, places.rerun)
        if is_complete(places.live) and not is_locked(places.live / LOCK):
            if rerun:
                return places.rerun
            raise StoreError(f"run {places.run_id} is finished already")
        return places.live

    def _records(self, indexed: Mapping[str, Record]) -> list[Record]:
        with wrap_os_errors(f"read the runs in {self.root}"):
            looks = (indexed.get(run_id) or self._live_record_of(run_id) for run_id in self._run_ids())
            records = [record for record in looks if record]
        return sorted(records, key=lambda record: (str(record.get("created")), record["run_id"]))

    def _run_ids(self) -> set[str]:
        """The runs that may be there: a listing may lack one that was renamed, and is then made again."""
        names: set[str] = set()
        for _ in range(_MAX_LISTINGS):
            identity = directory_identity(self.root)
            try:
                names |= {entry.name for entry in self.root.iterdir()}
            except FileNotFoundError:
                return set()
            if directory_identity(self.root) == identity:
                break
        hidden = (hidden_run_id(name) for name in names)
        return {name for name in names if is_run_id(name)} | {run_id for run_id in hidden if run_id}

    def _live_record_of(self, run_id: str) -> Record | None:
        return self.read_stable(run_id, lambda directory: _live_record(run_id, directory))

    def read_stable(self, run_id: str, look: Callable[[Path], T | None]) -> T | None:
        """Return what `look` sees in the run's directory although a rerun may take its place meanwhile.

        None when there is no such run. See `stable_reads.read_stable_directory`.
        """
        return read_stable_directory(RunPaths(self.root, run_id), look)


def _live_record(run_id: str, directory: Path) -> Record | None:
    # Once more, because it may get its record between two looks.
    record = (
        record_with_live_status(directory)
        or damaged_record(run_id, directory)
        or record_with_live_status(directory)
    )
    if record is not None and record["status"] == "damaged":
        record = with_identity(run_id, record)
    return record if record is not None and record.get("run_id") == run_id else None


def _read_run(run_id: str, directory: Path) -> StoredRun | None:
    record = _live_record(run_id, directory)  # first: what it says is finished has all its lines
    if record is None:
        return None
    if record["status"] == "damaged":
        raise StoreError(f"{directory / RUN} is damaged: {record['error']}")
    convergence = _read_checked_lines(directory / METRICS, EVALUATION_LINE)
    snapshots, shifts = (
        _read_checked_lines(directory / LAYERS, SNAPSHOT_LINE),
        _read_checked_lines(directory / SHIFT, SHIFT_LINE),
    )
    for name, lines in ((LAYERS, snapshots), (SHIFT, shifts)):
        if len(set(map(layer_signature, lines))) > 1:
            raise StoreError(f"{directory / name} is damaged: its lines are of different layers")
    return StoredRun(run_id, record, convergence, snapshots, shifts)


def _read_or_mark_damaged(run_id: str, directory: Path) -> StoredRun | None:
    try:
        return _read_run(run_id, directory)
    except (StoreError, OSError) as error:
        record = _live_record(run_id, directory)
        fault = _describe_fault(error)
    marked = {**(record or {}), "status": "damaged", "final": None, "error": fault}
    return None if record is None else StoredRun(run_id, marked, [], [])


def _describe_fault(error: StoreError | OSError) -> str:
    """Return what is wrong with a run as a sentence."""
    if isinstance(error, OSError) and error.strerror is not None:
        return f"cannot read {error.filename}: {error.strerror.lower()}"
    return str(error)


def _read_checked_lines(path: Path, check: Check) -> list[Record]:
    try:
        lines = [strict_json.loads(line) for line in read_lines(path)]
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}") from error
    for number, line in enumerate(lines, 1):
        for problem in check(line, ""):
            raise StoreError(f"{path} is damaged: line {number}: {problem}")
    if disordered := find_step_disorder((line.get("step"), line.get("when")) for line in lines):
        raise StoreError(f"{path} is damaged: {disordered}")
    return lines


def _no_such_run(run_id: str) -> UsageError:
    return UsageError(f"there is no stored run {run_id!r}")
