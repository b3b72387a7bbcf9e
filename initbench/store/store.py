"""The run store: one directory of plain files per run below runs/."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from initbench.errors import StoreError, UsageError
from initbench.store import directory_swap, sweep_index
from initbench.store.checkpoint_files import checkpoint_step, stated_step
from initbench.store.damaged_records import damaged_record, with_identity
from initbench.store.line_files import read_line_files
from initbench.store.locks import is_locked, structure_lock
from initbench.store.manifest import manifest_differences
from initbench.store.run_directory import (
    LOCK,
    RUN,
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
from initbench.store.strict_json import parse_number_or_none
from initbench.store.summary_file import StoredSummary, read_summary
from initbench.store.writer import (
    RunWriter,
    create_run,
    has_leftovers,
    lost_steps_notice,
    remove_leftovers,
    resume_run,
)

T = TypeVar("T")

_MAX_LISTINGS = 10
"""Maximum number of listings of the runs while directories are being renamed."""


@dataclass(frozen=True)
class StoredRun:
    """Everything stored about a run except its weights."""

    run_id: str
    record: Record
    """Contents of run.json, with the current status of the run."""
    convergence: list[Record]
    """One entry for each evaluation."""
    snapshots: list[Record]
    """One entry for each probe."""
    shifts: list[Record] = field(default_factory=list)
    """One entry for each update whose covariate shift was measured."""

    @property
    def evaluation_share(self) -> float | None:
        """Time of evaluations and probes, relative to that of updates; None if there were no updates."""
        timings = self.record.get("timings") or {}
        seconds = [parse_number_or_none(timings.get(name)) for name in ("train", "evaluate", "probe")]
        train, evaluate, probe = seconds
        return (evaluate + probe) / train if train and evaluate is not None and probe is not None else None


class Store:
    """The runs below `root`; no file is read or created before a method is called.

    Every method raises StoreError, with a one-sentence message, if a file operation fails.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._recovered = False

    def directory(self, run_id: str) -> Path | None:
        """Return the directory to read the run from, or None if there is no such run."""
        with wrap_os_errors(f"read run {run_id}"):
            return self.read_stable(run_id, lambda directory: directory)

    def status(self, run_id: str) -> str | None:
        """Return one of `run_directory.STATUSES`, or None if there is no such run."""
        with wrap_os_errors(f"read run {run_id}"):
            record = self._live_record_of(run_id)
        return None if record is None else str(record["status"])

    def statuses(self, run_ids: Iterable[str]) -> dict[str, str]:
        """Return the statuses of those of `run_ids` that exist.

        The store is listed once, which is faster than `status` for many runs that do not exist.
        """
        stored = self.run_ids()
        looks = ((run_id, self.status(run_id)) for run_id in run_ids if run_id in stored)
        return {run_id: status for run_id, status in looks if status is not None}

    def is_busy(self, run_id: str) -> bool:
        """Return whether a live process is writing the run or its next attempt."""
        return self.busy_directory(run_id) is not None

    def busy_directory(self, run_id: str) -> Path | None:
        """Return the directory that a live process is writing: the run's, or that of its next attempt."""
        places = RunPaths(self.root, run_id)
        with wrap_os_errors(f"read run {run_id}"):
            return next((path for path in (places.live, places.rerun) if is_locked(path / LOCK)), None)

    def records(self) -> list[Record]:
        """Return run.json of every run with its current status, oldest first; other files are ignored."""
        return self._records({})

    def iterate_records(self) -> Iterator[Record]:
        """Yield the `records` one by one and in any order, so that only one of them need be in memory."""
        return self._iterate_records({})

    def record_headers(self) -> list[Record]:
        """Return `records`, but only the keys in the header of the summary for runs that have one."""
        return self._records({run_id: summary.header for run_id, summary in self._summaries(self.run_ids())})

    def read_summaries(self, run_ids: Iterable[str] | None = None) -> dict[str, StoredSummary]:
        """Return the summaries of complete runs by run id; runs without a valid summary are skipped.

        With `run_ids`, only the summaries of these runs are read.
        """
        return dict(self._summaries(self.run_ids() if run_ids is None else run_ids))

    def _summaries(self, run_ids: Iterable[str]) -> Iterator[tuple[str, StoredSummary]]:
        """Yield the summaries one by one, so that the caller decides what stays in memory."""
        with wrap_os_errors(f"read the runs in {self.root}"):
            for run_id in run_ids:
                if (summary := read_summary(self.root / run_id, run_id)) is not None:
                    yield run_id, summary

    def read(self, run_id: str) -> StoredRun:
        """Read a run.

        Raises:
            UsageError: If there is no such run.
            StoreError: If a file of the run is damaged; the message names the file and the defect.
        """
        run = self.read_if_there(run_id)
        if run is None:
            raise _no_such_run(run_id)
        return run

    def read_if_there(self, run_id: str) -> StoredRun | None:
        """Read a run, or return None if it does not exist or is removed; raise StoreError like `read`."""
        with wrap_os_errors(f"read run {run_id}"):
            return self.read_stable(run_id, lambda directory: _read_run(run_id, directory))

    def read_or_mark_damaged(self, run_id: str) -> StoredRun | None:
        """Read a run like `read_if_there`, but return a damaged run instead of raising StoreError.

        The record of a damaged run has `status` "damaged" and the file and its defect in `error`; only
        run_id, status, final and error are guaranteed. Such a run has no lines.
        """
        with wrap_os_errors(f"read run {run_id}"):
            return self.read_stable(run_id, lambda directory: _read_or_mark_damaged(run_id, directory))

    def find(self, patterns: Sequence[str], records_by_id: Mapping[str, Record] | None = None) -> list[str]:
        """Return the ids of the runs that match any of `patterns`, in the order of `records`.

        Args:
            patterns: Run ids, unique beginnings of run ids, experiments, sweeps or globs. An empty sequence
                matches all runs.
            records_by_id: Records that need not be read again; they need only run_id, created and experiment.

        Raises:
            UsageError: If a pattern matches nothing (with the nearest name) or begins several run ids.
        """
        records = self.record_headers() if records_by_id is None else self._records(records_by_id)
        experiments = {record["run_id"]: str(record.get("experiment", "")) for record in records}
        if not patterns:
            return list(experiments)
        wanted = {run_id for pattern in patterns for run_id in self._matches(pattern, experiments)}
        return [run_id for run_id in experiments if run_id in wanted]

    def _matches(self, pattern: str, experiments: Mapping[str, str]) -> Collection[str]:
        """Return the runs that a pattern matches; an experiment takes precedence over a sweep of its name."""
        if pattern in sweep_index.sweep_names(self.root) and pattern not in experiments.values():
            swept = sweep_index.run_ids_of(sweep_index.read_points(self.root, pattern), tuning=False)
            if swept & experiments.keys():
                return swept
        return matching_run_ids(pattern, experiments, self.root)

    def verify(self, run_id: str) -> list[str]:
        """Compare every byte of a run with its manifest and return one message for each file that differs.

        Raises UsageError if there is no such run.
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
        """Claim a run and return its only writer.

        An interrupted run is resumed from its checkpoint (`RunWriter.resumption`). Without a checkpoint, or
        with `rerun`, the files of an unfinished attempt are deleted first. With `rerun` a finished run stays
        readable until the new attempt replaces it in `RunWriter.finish`.

        Raises:
            StoreError: If a live process is writing the run, or it is finished and `rerun` is False.
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
        """Delete a run; readers see it disappear in one step.

        Raises UsageError if there is no such run, StoreError if a live process is writing it.
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
        """Remove the checkpoints and temporary files that a killed process left in finished runs."""
        for run_id in run_ids:
            live = RunPaths(self.root, run_id).live
            with suppress(OSError, StoreError):
                if has_leftovers(live) and is_complete(live) and not is_locked(live / LOCK):
                    remove_leftovers(live)

    def recover(self) -> None:
        """Complete or roll back the unfinished changes of crashed processes.

        The first `claim` or `remove` of a Store does so too.
        """
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
        """Return the step from which an unfinished run resumes; 0 if it must start from scratch."""
        return self._step(run_id, checkpoint_step)

    def stated_step(self, run_id: str) -> int:
        """Return `checkpoint_step` as the header states it: fast, but the checkpoint is not verified."""
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
        writer, notice = resume_run(places, record, created=earlier.get("created"))
        if writer is None and notice is None and earlier.get("status") in ("running", "interrupted"):
            notice = lost_steps_notice(places)
        return writer, notice

    def _new_attempt_dir(self, places: RunPaths, rerun: bool) -> Path:
        """Return the directory to create for a new attempt."""
        if is_locked(places.rerun / LOCK):
            raise run_locked_error(places.run_id, places.rerun)
        if is_complete(places.live) and not is_locked(places.live / LOCK):
            if rerun:
                return places.rerun
            raise StoreError(f"run {places.run_id} is already finished")
        return places.live

    def _records(self, records_by_id: Mapping[str, Record]) -> list[Record]:
        records = self._iterate_records(records_by_id)
        return sorted(records, key=lambda record: (str(record.get("created")), record["run_id"]))

    def _iterate_records(self, records_by_id: Mapping[str, Record]) -> Iterator[Record]:
        with wrap_os_errors(f"read the runs in {self.root}"):
            for run_id in self.run_ids():
                if record := records_by_id.get(run_id) or self._live_record_of(run_id):
                    yield record

    def run_ids(self) -> set[str]:
        """Return the ids of runs that may exist; repeat the listing if the root changed during it.

        A listing may miss a directory that is renamed at the same time.
        """
        with wrap_os_errors(f"read the runs in {self.root}"):
            return self._list_run_ids()

    def _list_run_ids(self) -> set[str]:
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
        """Call `look` with the run's directory and return its result, or None if there is no such run.

        Consistent even if a rerun replaces the run; see `stable_reads.read_stable_directory`.
        """
        return read_stable_directory(RunPaths(self.root, run_id), look)


def group_by_experiment(runs: Iterable[StoredRun]) -> list[list[StoredRun]]:
    """Group the runs that differ only in their seed, each group sorted by seed."""
    groups: dict[tuple[str, str], list[StoredRun]] = {}
    for run in runs:
        groups.setdefault((run.record["experiment"], run.record["arm"]), []).append(run)
    return [sorted(group, key=lambda run: int(run.record["seed"])) for group in groups.values()]


def _live_record(run_id: str, directory: Path) -> Record | None:
    # Read again at the end: the record may be written between the first two calls.
    record = (
        record_with_live_status(directory)
        or damaged_record(run_id, directory)
        or record_with_live_status(directory)
    )
    if record is not None and record["status"] == "damaged":
        record = with_identity(run_id, record)
    return record if record is not None and record.get("run_id") == run_id else None


def _read_run(run_id: str, directory: Path) -> StoredRun | None:
    record = _live_record(run_id, directory)  # read first: if it says finished, all lines are there
    if record is None:
        return None
    if record["status"] == "damaged":
        raise StoreError(f"{directory / RUN} is damaged: {record['error']}")
    return StoredRun(run_id, record, *read_line_files(directory))


def _read_or_mark_damaged(run_id: str, directory: Path) -> StoredRun | None:
    try:
        return _read_run(run_id, directory)
    except (StoreError, OSError) as error:
        record = _live_record(run_id, directory)
        fault = _describe_fault(error)
    marked = {**(record or {}), "status": "damaged", "final": None, "error": fault}
    return None if record is None else StoredRun(run_id, marked, [], [])


def _describe_fault(error: StoreError | OSError) -> str:
    """Return a one-sentence description of what is wrong with a run."""
    if isinstance(error, OSError) and error.strerror is not None:
        return f"cannot read {error.filename}: {error.strerror.lower()}"
    return str(error)


def _no_such_run(run_id: str) -> UsageError:
    return UsageError(f"there is no stored run {run_id!r}")
