"""Progress of the runs that live processes are writing, from their files alone and without locking them.

A training reports to the store only its evaluations, probes and checkpoints. The last step known here is
therefore the latest of these, and the rate follows from the times at which their files were written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from initbench.errors import StoreError, UsageError
from initbench.store.checkpoint_files import CHECKPOINT, stated_step
from initbench.store.line_files import read_evaluations, read_last_snapshot
from initbench.store.run_directory import LAYERS, METRICS, RUN, Record, RunPaths, record_with_live_status
from initbench.store.store import Store
from initbench.store.writer import utc_timestamp

T = TypeVar("T")
MIN_SECONDS = 0.5
"""Shortest time from which a rate is computed."""
_SAME_SECONDS = 5.0
"""Difference of the times of `created` and of run.json up to which the run was not resumed."""
_DAMAGED_KEYS = ("run_id", "status", "experiment", "seed", "error")
"""Keys that are kept of a damaged run.json; the values of others may have any type."""
_SETTLED_NS = 2_000_000_000
_FileState = tuple[int, int, int]


@dataclass(frozen=True)
class StepTime:
    """A step, and the time at which a file that states it was written (seconds since the epoch)."""

    seconds: float
    step: int


@dataclass(frozen=True)
class RunProgress:
    """State of a run in progress, or of a run that has ended while it was observed."""

    run_id: str
    status: str
    record: Record
    """Contents of run.json; a damaged one may lack any key."""
    evaluations: list[Record] = field(default_factory=list)
    snapshot: Record | None = None
    """The latest probe of all layers."""
    step_times: tuple[StepTime, ...] = ()
    """Known steps since this attempt started, by increasing time."""
    pretraining_left: int = 0
    """Number of pre-training updates that remained at the last checkpoint; 0 outside of pre-training."""
    error: str | None = None
    """A file of the run that cannot be read, and why; or why the run failed or is damaged."""

    @property
    def experiment(self) -> str:
        """Name of the experiment; the run id if the record is damaged."""
        return str(self.record.get("experiment") or self.run_id)

    @property
    def seed(self) -> int | None:
        """Seed of the run; None if the record is damaged."""
        seed = self.record.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def budget(self) -> int | None:
        """Number of updates of the whole run; None if the record does not tell."""
        return planned_steps(self.record)

    @property
    def step(self) -> int:
        """The last known number of updates."""
        evaluated = [int(entry["step"]) for entry in self.evaluations[-1:]]
        return max([0, *evaluated, *(step_time.step for step_time in self.step_times)])

    @property
    def known_since(self) -> float | None:
        """Time at which the last known step was stored (seconds since the epoch)."""
        return next((step_time.seconds for step_time in self.step_times if step_time.step == self.step), None)

    @property
    def rate(self) -> float | None:
        """Updates per second in the observed part of this attempt; None if it is too short.

        The start of the attempt, which includes the start of its process, counts only if one step is known.
        """
        if not self.step_times:
            return None
        first, last = self.step_times[1 if len(self.step_times) > 2 else 0], self.step_times[-1]
        seconds = last.seconds - first.seconds
        return (
            (last.step - first.step) / seconds if seconds >= MIN_SECONDS and last.step > first.step else None
        )

    def seconds_left(self, now: float) -> float | None:
        """Return the estimated time until the last update; None if it is unknown."""
        if self.rate is None or self.budget is None or self.known_since is None:
            return None
        return max(0.0, (self.budget - self.step) / self.rate - max(0.0, now - self.known_since))


def planned_steps(record: Record) -> int | None:
    """Return the budget of a run in updates, from its config and the size of its training split."""
    train = (record.get("config") or {}).get("train") or {}
    steps, epochs, batch_size = (
        record.get("steps") or train.get("steps"),
        train.get("epochs"),
        train.get("batch_size"),
    )
    samples = (record.get("samples") or {}).get("train")
    if steps is None and isinstance(samples, int) and epochs is not None and batch_size:
        steps = max(1, round(epochs * (samples // batch_size)))
    return None if steps is None else int(steps)


@dataclass(frozen=True)
class Observation:
    """The runs of a store at one moment."""

    running: list[RunProgress]
    """Runs in progress, the oldest first."""
    ended: list[RunProgress]
    """Runs that have ended since the observation began, in this order."""


class RunObserver:
    """Observes the runs of a store that match patterns; reads files, and neither locks nor changes any.

    Args:
        store: The store.
        patterns: As for `Store.find`; without any, all runs are observed, also those that start later.

    Raises:
        UsageError: If a pattern matches no run.
    """

    def __init__(self, store: Store, patterns: Sequence[str]) -> None:
        self._store, self._patterns = store, patterns
        self._headers: dict[str, Record] = {}
        self._matching: set[str] = set()
        if patterns:
            self._headers = {record["run_id"]: record for record in store.record_headers()}
            self._matching = set(store.find(patterns, self._headers))
        self._known = store.run_ids()
        self._start = utc_timestamp()
        self._readers: dict[str, _RunReader] = {}
        self._ended: dict[str, RunProgress] = {}
        self._idle: dict[str, tuple[_FileState | None, ...]] = {}
        """States of the directories of runs that no process was writing."""

    @property
    def matching(self) -> int:
        """Number of stored runs that are observed, in progress or not."""
        return len(self._matching) if self._patterns else len(self._known)

    def observe(self) -> Observation:
        """Read what has changed since the last call; raise StoreError if the store cannot be read."""
        run_ids = self._store.run_ids()
        running = []
        for run_id in self._select(run_ids):
            directory = self._busy_directory(run_id)
            if directory is None:
                continue
            reader = self._readers.setdefault(run_id, _RunReader(run_id))
            if (progress := reader.read(directory)) is not None:
                running.append(progress)
                self._ended.pop(run_id, None)
        busy = {progress.run_id for progress in running}
        for run_id in [run_id for run_id in self._readers if run_id not in busy]:
            self._end(run_id, self._readers.pop(run_id).latest)
        for run_id in self._select(run_ids - self._known - busy - self._ended.keys()):
            self._end(run_id, None)  # it started and ended between two calls
        self._known = run_ids
        return Observation(sorted(running, key=_by_start), list(self._ended.values()))

    def _busy_directory(self, run_id: str) -> Path | None:
        """Return `Store.busy_directory`, but check a run again only after its directories have changed.

        A claim replaces run.json, which changes the directory. One that changed just now is checked again,
        because the times of a file system are coarse.
        """
        paths = RunPaths(self._store.root, run_id)
        states = _file_state(paths.live), _file_state(paths.rerun)
        if self._idle.get(run_id) == states:
            return None
        directory = self._store.busy_directory(run_id)
        latest = max((state[2] for state in states if state is not None), default=0)
        if directory is None and time.time_ns() - latest > _SETTLED_NS:
            self._idle[run_id] = states
        return directory

    def _end(self, run_id: str, latest: RunProgress | None) -> None:
        run = self._store.read_or_mark_damaged(run_id)
        if run is None:
            if latest is not None:
                self._ended[run_id] = RunProgress(run_id, "removed", latest.record, latest.evaluations)
            return
        status, error = str(run.record["status"]), run.record.get("error")
        if status == "running" or (latest is None and str(run.record.get("finished")) < self._start):
            return  # claimed again meanwhile, or copied from elsewhere
        evaluations = run.convergence or ([] if latest is None else latest.evaluations)
        last_step = StepTime(0.0, max(0, self._store.stated_step(run_id)))
        self._ended[run_id] = RunProgress(
            run_id, status, run.record, evaluations, step_times=(last_step,), error=error
        )

    def _select(self, run_ids: Iterable[str]) -> list[str]:
        """Return the runs among `run_ids` that match the patterns."""
        if not self._patterns:
            return sorted(run_ids)
        new = [run_id for run_id in run_ids if run_id not in self._headers and self._is_new(run_id)]
        if new:
            with suppress(UsageError):  # a beginning of a run id has become ambiguous
                self._matching |= set(self._store.find(self._patterns, self._headers))
        return sorted(self._matching.intersection(run_ids))

    def _is_new(self, run_id: str) -> bool:
        """Read the header of a run that did not exist before; return whether it exists now."""
        run = self._store.read_or_mark_damaged(run_id)
        if run is not None:
            self._headers[run_id] = {key: run.record.get(key) for key in ("run_id", "created", "experiment")}
        return run is not None


class _RunReader:
    """Reads the files of one run, and those that have not changed only once."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._cache: dict[str, tuple[_FileState, Any]] = {}
        self._attempt: _FileState | None = None
        self._times: dict[int, float] = {}
        """Step → time at which it was stored first, in this attempt."""
        self.latest: RunProgress | None = None
        """Result of the last successful read."""

    def read(self, directory: Path) -> RunProgress | None:
        """Return the progress of the run, or None if its record has vanished meanwhile."""
        record, attempt = record_with_live_status(directory), _file_state(directory / RUN)
        if record is None or attempt is None:
            return None
        if record["status"] == "damaged":
            record = {key: record.get(key) for key in _DAMAGED_KEYS}
        if attempt != self._attempt:
            self._attempt, self._times = attempt, _start_of_attempt(record, attempt)
        evaluations: list[Record] = []
        snapshot, checkpoint, error = None, None, record.get("error")
        try:
            evaluations = self._cached(directory / METRICS, lambda: read_evaluations(directory)) or []
            snapshot = self._cached(directory / LAYERS, lambda: read_last_snapshot(directory))
            checkpoint = self._cached(directory / CHECKPOINT, lambda: stated_step(directory))
        except (StoreError, OSError) as fault:
            error = str(fault)
        self._remember(directory / METRICS, evaluations[-1]["step"] if evaluations else None)
        self._remember(directory / CHECKPOINT, checkpoint)
        self.latest = RunProgress(
            run_id=self._run_id,
            status=str(record["status"]),
            record=record,
            evaluations=evaluations,
            snapshot=snapshot,
            step_times=tuple(StepTime(seconds, step) for step, seconds in sorted(self._times.items())),
            pretraining_left=max(0, -(checkpoint or 0)) if not evaluations else 0,
            error=error,
        )
        return self.latest

    def _cached(self, path: Path, read: Callable[[], T]) -> T | None:
        """Return the result of `read`, from an earlier call if the file has not changed since."""
        state = _file_state(path)
        if state is None:
            return None
        if path.name not in self._cache or self._cache[path.name][0] != state:
            self._cache[path.name] = state, read()
        result: T = self._cache[path.name][1]
        return result

    def _remember(self, path: Path, step: int | None) -> None:
        """Keep the time at which a file of this attempt was written, as the time of its step."""
        state = _file_state(path)
        if step is None or step < 0 or state is None or self._attempt is None:
            return
        if state[2] >= self._attempt[2] and (step == 0 or step not in self._times):
            self._times[step] = state[2] / 1e9


def _file_state(path: Path) -> _FileState | None:
    """Return inode, size and time (ns) of a file, or None if it cannot be found."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _start_of_attempt(record: Record, attempt: _FileState) -> dict[int, float]:
    """Return step 0 with the time at which run.json was written, unless the run was resumed then."""
    seconds = attempt[2] / 1e9
    try:
        created = datetime.fromisoformat(str(record.get("created"))).timestamp()
    except (ValueError, OverflowError):
        return {}
    return {0: seconds} if abs(seconds - created) < _SAME_SECONDS else {}


def _by_start(progress: RunProgress) -> tuple[str, str]:
    return str(progress.record.get("created")), progress.run_id
