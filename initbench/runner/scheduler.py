"""Train batches of runs in a worker pool: start and record them, and split them after failures.

A worker that finds no batch takes over half of the runs of the batch that would end last. The runs go on from
their checkpoints, so their numbers stay the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from initbench.errors import InitbenchError, Terminated
from initbench.runner.batching import group_by_step, stacked_cost
from initbench.runner.pending import Run, RunBatch, count_open_batches, mark_done
from initbench.runner.recorder import Recorder
from initbench.runner.workers.base import Died, Event, Failed, Finished, ReleaseRequest, Reported, WorkerPool
from initbench.runner.workers.task import WorkerTask
from initbench.store.store import Store
from initbench.train.events import Advanced, Pretrained, Released

WAIT_SECONDS = 0.2
STOP_SECONDS = 1.5
"""Seconds that workers have to send a last checkpoint after a signal."""
MIN_SECONDS_SAVED = 1.0
"""Minimum time by which a batch must end earlier for another worker to take over half of its runs. Starting a
worker, writing the checkpoints and building the nets again takes about half of it."""
MAX_DEATHS = 2
"""Worker deaths of a run that trains alone before the run counts as failed."""
MAX_LOST_MACHINES = 5
"""Machines that a batch may lose before it counts as the cause, for example because it takes all memory."""
StartBatch = Callable[[RunBatch, int, str], tuple[WorkerTask, Recorder]]
"""(batch, number, device) → its task and its recorder; claims the runs of the batch."""


class StopRequested(Terminated):
    """Stops a training like a signal: its runs are interrupted and can resume from their checkpoints."""


@dataclass
class _StartedBatch:
    group: RunBatch
    recorder: Recorder
    device: str
    is_release_requested: bool = False
    _timed: list[tuple[float, int]] = field(default_factory=list)
    """Times and steps of the first and the last report since the number of runs changed."""

    def report(self, event: Advanced | Released) -> None:
        """Keep the time of an update; the speed changes when runs leave."""
        if isinstance(event, Released):
            self._timed, self.is_release_requested = [], False
        else:
            self._timed[1:] = [(time.monotonic(), event.step)]

    @property
    def awaits_release(self) -> bool:
        """Whether runs will be released; a batch whose other runs have ended keeps its last one."""
        return self.is_release_requested and len(self.recorder.open_runs) > 1

    @property
    def seconds_saved(self) -> float:
        """Time by which the batch would end earlier if it released half of its runs; 0 if it is unknown.

        Runs that start from scratch although they are stored have no checkpoint that could be claimed.
        """
        runs, ready = len(self.recorder.open_runs), self.group.runs[0].of.ready
        if runs < 2 or ready is None or len(self._timed) < 2 or self.group.restarts:
            return 0.0
        (begin, first), (end, last) = self._timed
        seconds = (ready.steps - last) * (end - begin) / max(1, last - first)
        return seconds * (1.0 - stacked_cost(math.ceil(runs / 2)) / stacked_cost(runs))


class Scheduler:
    """Trains batches in order, one per worker at a time."""

    def __init__(
        self,
        crew: WorkerPool,
        store: Store,
        begin: StartBatch,
        *,
        check: Callable[[], None],
        fail_fast: bool,
    ) -> None:
        self._crew, self._store, self._begin, self._check = crew, store, begin, check
        self._fail_fast = fail_fast
        self._waiting: list[RunBatch] = []
        self._begun: dict[int, _StartedBatch] = {}
        self._number = 0

    def run(self, groups: Iterable[RunBatch], limit: int) -> None:
        """Train all batches, at most `limit` of them at a time.

        Any exception closes the worker pool and interrupts the unfinished runs.
        After a signal or StopRequested, workers first get STOP_SECONDS to send a checkpoint of their runs. A
        second signal ends the command at once.

        Raises:
            StopRequested: If `check` raises it, or at the first failure if `fail_fast` is set.
        """
        self._waiting = list(groups)[::-1]
        try:
            while self._waiting or self._begun:
                self._check()
                self._start_waiting(limit)
                self._share_work(limit)
                self._crew.poll(self._handle_event, WAIT_SECONDS)
        except BaseException as error:
            try:
                if isinstance(error, Terminated):
                    self._collect_checkpoints()
            finally:
                self._close_and_interrupt()
            raise

    def _close_and_interrupt(self) -> None:
        """Interrupt the unfinished runs and close the worker pool, even if a second signal arrives."""
        try:
            for begun in self._begun.values():
                begun.recorder.interrupt()
        finally:
            self._crew.close()

    def _collect_checkpoints(self) -> None:
        """Store what the workers report until they stop, unless it cannot be written."""

        def store(event: Event) -> None:
            if isinstance(event, Reported):
                self._begun[event.task].recorder.handle(event.event)

        with suppress(InitbenchError):
            self._crew.stop(store, STOP_SECONDS)

    def _start_waiting(self, limit: int) -> None:
        while self._waiting and len(self._begun) < limit and (device := self._crew.free_device()) is not None:
            group = self._next_batch()
            task, recorder = self._begin(group, self._number, device)
            self._begun[self._number] = _StartedBatch(group, recorder, device)
            self._number += 1
            self._crew.submit(task)

    def _share_work(self, limit: int) -> None:
        """Ask the batch that ends last for half of its runs if a worker is idle.

        On a GPU a training would use the same device, or one on which the numbers may differ.
        """
        is_idle = not self._waiting and len(self._begun) < limit and self._crew.free_device() is not None
        if not is_idle or any(begun.awaits_release for begun in self._begun.values()):
            return
        on_cpu = {number: begun for number, begun in self._begun.items() if begun.device == "cpu"}
        saved = {number: begun.seconds_saved for number, begun in on_cpu.items()}
        last = max(saved, key=lambda number: saved[number], default=None)
        if last is not None and saved[last] > MIN_SECONDS_SAVED:
            on_cpu[last].is_release_requested = True
            self._crew.request_release(ReleaseRequest(last, len(on_cpu[last].recorder.open_runs) // 2))

    def _next_batch(self) -> RunBatch:
        group = self._waiting.pop()
        if len(group.runs) > group.max_size:  # this number did not fit into memory
            self._put_back(group, group.runs, group.max_size)
            group = self._waiting.pop()
        return group

    def _handle_event(self, event: Event) -> None:
        begun = self._begun[event.task]
        group, recorder = begun.group, begun.recorder
        if isinstance(event, Reported):
            recorder.handle(event.event)
            if isinstance(event.event, Advanced | Released):
                begun.report(event.event)
            if isinstance(event.event, Released):
                self._requeue(group, [group.runs[run] for run in event.event.runs])
            if isinstance(event.event, Advanced | Pretrained):
                self._check()
            return
        del self._begun[event.task]
        if isinstance(event, Finished) or not recorder.open_runs:  # all runs ended
            mark_done(group)
        elif isinstance(event, Failed):
            if event.out_of_memory and len(recorder.open_runs) > 1:
                self._split_in_half(group, recorder, smaller=True)
            elif len(group.seeds_by_experiment) > 1:  # other experiments may not be the cause
                self._split_by_experiment(group, recorder)
            else:
                self._record_failure(group, recorder, event.error, event.traceback)
        else:
            self._on_worker_death(group, recorder, event)

    def _on_worker_death(self, group: RunBatch, recorder: Recorder, event: Died) -> None:
        if event.is_machine_lost and group.lost_machines < MAX_LOST_MACHINES:
            group = replace(group, lost_machines=group.lost_machines + 1)
            self._put_back(group, self._interrupt(group, recorder), len(group.runs))
            return
        deaths = group.deaths + 1 if len(group.runs) == 1 else 0
        if deaths >= MAX_DEATHS or (deaths and event.out_of_memory):
            self._record_failure(group, recorder, event.reason, event.reason)
        else:
            self._split_in_half(replace(group, deaths=deaths), recorder, smaller=event.out_of_memory)

    def _split_in_half(self, group: RunBatch, recorder: Recorder, *, smaller: bool) -> None:
        """Requeue the unfinished runs of a batch first, in halves, to resume from their checkpoints."""
        open_runs = self._interrupt(group, recorder)
        size = -(-len(open_runs) // 2)
        if smaller:
            for of in group.seeds_by_experiment:
                of.most = min(of.most, size)
        self._put_back(group, open_runs, size)

    def _split_by_experiment(self, group: RunBatch, recorder: Recorder) -> None:
        """Requeue the unfinished runs of a batch, in one batch per experiment."""
        open_runs = self._interrupt(group, recorder)
        groups = [
            replace(group, runs=tuple(run for run in open_runs if run.of is of))
            for of in group.seeds_by_experiment
        ]
        self._replace_batch(group, [part for part in groups if part.runs])

    def _interrupt(self, group: RunBatch, recorder: Recorder) -> tuple[Run, ...]:
        open_runs = tuple(group.runs[position] for position in recorder.open_runs)
        recorder.interrupt()
        return open_runs

    def _put_back(self, group: RunBatch, runs: Iterable[Run], size: int) -> None:
        def step_of(run: Run) -> int:
            return 0 if group.restarts else self._store.checkpoint_step(run.run_id)

        self._replace_batch(group, [replace(group, runs=some) for some in group_by_step(runs, step_of, size)])

    def _requeue(self, group: RunBatch, runs: Sequence[Run]) -> None:
        """Let another worker go on with these runs of a batch, which trains the others."""
        released = replace(group, runs=tuple(runs))
        count_open_batches([released])
        self._waiting.append(released)

    def _replace_batch(self, group: RunBatch, groups: Sequence[RunBatch]) -> None:
        mark_done(group, instead=groups)
        self._waiting += groups[::-1]

    def _record_failure(self, group: RunBatch, recorder: Recorder, error: str, traceback: str) -> None:
        for of in group.seeds_by_experiment:
            of.errors.append(error)
        recorder.fail(traceback)
        mark_done(group)
        if self._fail_fast:
            raise StopRequested
