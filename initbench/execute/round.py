"""Groups of runs on their way through a crew: begun, recorded, and tried again in halves where need be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from initbench.errors import Terminated
from initbench.execute.executor import Crew, Died, Event, Failed, Finished, Reported, Task
from initbench.execute.groups import alike
from initbench.execute.recorder import Recorder
from initbench.execute.undertaking import Group, Run, settled
from initbench.store.store import Store

WAIT_SECONDS = 0.5
MOST_DEATHS = 2
"""Of the worker of a run that was alone, until the run counts as failed."""
Begin = Callable[[Group, int, str], tuple[Task, Recorder]]
"""Claims the runs of a group; from its number and a device makes its task, and what records it."""


class EnoughError(Terminated):
    """Ends a training as a signal does: its runs are interrupted, and go on from their checkpoints."""


@dataclass(frozen=True)
class _Begun:
    group: Group
    recorder: Recorder


class Round:
    """Trains groups, in order, as many at a time as the crew has workers."""

    def __init__(
        self,
        crew: Crew,
        store: Store,
        begin: Begin,
        *,
        check: Callable[[], None],
        fail_fast: bool,
    ) -> None:
        self._crew, self._store, self._begin, self._check = crew, store, begin, check
        self._fail_fast = fail_fast
        self._waiting: list[Group] = []
        self._begun: dict[int, _Begun] = {}
        self._number = 0

    def run(self, groups: Iterable[Group], workers: int) -> None:
        """Train them all. What is raised ends the crew, and all that is under way is interrupted.

        Raises EnoughError as `check` does, and at the first failure where that is to be fast.
        """
        self._waiting = list(groups)[::-1]
        try:
            while self._waiting or self._begun:
                self._check()
                self._fill(workers)
                self._crew.wait(self._receive, WAIT_SECONDS)
        except BaseException:
            self._crew.close()
            for begun in self._begun.values():
                begun.recorder.interrupt()
            raise

    def _fill(self, workers: int) -> None:
        while self._waiting and len(self._begun) < workers and (device := self._crew.vacancy()) is not None:
            group = self._next()
            task, recorder = self._begin(group, self._number, device)
            self._begun[self._number] = _Begun(group, recorder)
            self._number += 1
            self._crew.submit(task)

    def _next(self) -> Group:
        group = self._waiting.pop()
        if len(group.runs) > group.most:  # so many have turned out not to fit
            self._put_back(group, group.runs, group.most)
            group = self._waiting.pop()
        return group

    def _receive(self, event: Event) -> None:
        group, recorder = self._begun[event.task].group, self._begun[event.task].recorder
        if isinstance(event, Reported):
            recorder.receive(event.report, event.arguments)
            if event.report in ("advanced", "pretraining"):
                self._check()
            return
        del self._begun[event.task]
        if isinstance(event, Finished) or not recorder.left:  # ended, however it ended
            settled(group)
        elif isinstance(event, Failed):
            if event.out_of_memory and len(recorder.left) > 1:
                self._halve(group, recorder, smaller=True)
            elif len(group.parts) > 1:  # one experiment's fault is not the others'
                self._part(group, recorder)
            else:
                self._fail(group, recorder, event.error, event.traceback)
        else:
            self._lost(group, recorder, event)

    def _lost(self, group: Group, recorder: Recorder, event: Died) -> None:
        deaths = group.deaths + 1 if len(group.runs) == 1 else 0
        if deaths >= MOST_DEATHS or (deaths and event.out_of_memory):
            self._fail(group, recorder, event.reason, event.reason)
        else:
            self._halve(replace(group, deaths=deaths), recorder, smaller=event.out_of_memory)

    def _halve(self, group: Group, recorder: Recorder, *, smaller: bool) -> None:
        """Have what is left of a group trained by half as many at a time, from where it was; next of all."""
        left = self._interrupted(group, recorder)
        size = -(-len(left) // 2)
        if smaller:
            for of in group.parts:
                of.most = min(of.most, size)
        self._put_back(group, left, size)

    def _part(self, group: Group, recorder: Recorder) -> None:
        """Have what is left of each experiment trained by itself."""
        left = self._interrupted(group, recorder)
        groups = [replace(group, runs=tuple(run for run in left if run.of is of)) for of in group.parts]
        self._put_in_place(group, [part for part in groups if part.runs])

    def _interrupted(self, group: Group, recorder: Recorder) -> tuple[Run, ...]:
        left = tuple(group.runs[position] for position in recorder.left)
        recorder.interrupt()
        return left

    def _put_back(self, group: Group, runs: Iterable[Run], size: int) -> None:
        def step_of(run: Run) -> int:
            return 0 if group.anew else self._store.checkpoint_step(run.run_id)

        self._put_in_place(group, [replace(group, runs=some) for some in alike(runs, step_of, size)])

    def _put_in_place(self, group: Group, groups: Sequence[Group]) -> None:
        settled(group, instead=groups)
        self._waiting += groups[::-1]

    def _fail(self, group: Group, recorder: Recorder, error: str, traceback: str) -> None:
        for of in group.parts:
            of.errors.append(error)
        recorder.fail(traceback)
        settled(group)
        if self._fail_fast:
            raise EnoughError
