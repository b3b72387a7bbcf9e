"""Plug-in with the executor `simulated`, which replays one recorded training for all runs.

    initbench sweep FILE --plugin benchmarks/simulated_executor.py --executor simulated

The first run of the command is really trained. Every later run emits the same events with its own scores,
which differ by about a percent. So the command does everything that it does for real workers except training:
it plans, claims, batches, records and compares.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from initbench.runner.workers.base import (
    EXECUTORS,
    Deliver,
    Event,
    Executor,
    Finished,
    ReleaseRequest,
    Reported,
    WorkerPool,
    WorkerPoolOptions,
    run_task,
)
from initbench.runner.workers.task import WorkerTask
from initbench.train.events import Advanced, Diagnosed, Evaluated, Probed, RunEvent

SYNC_VARIABLE = "SIMULATED_SYNC"
SPREAD = 0.01
"""Largest relative change of a score from run to run."""


class SimulatedWorkers:
    """A worker pool that replays the events of the first run that it trained."""

    threads = 1
    workers = 1

    def __init__(self, options: WorkerPoolOptions) -> None:
        self._device, self._datasets = str(options.device), options.datasets
        self._recording: list[RunEvent] = []
        self._task: WorkerTask | None = None

    def free_device(self) -> str | None:
        """Return the device, or None if a task is already waiting."""
        return self._device if self._task is None else None

    def submit(self, task: WorkerTask) -> None:
        """Keep the task until the next `poll`."""
        self._task = task

    def request_release(self, request: ReleaseRequest) -> None:
        """Do nothing, because a task ends within one `poll`."""

    def poll(self, deliver: Deliver, seconds: float) -> None:
        """Emit the events of all runs of the waiting task."""
        del seconds
        task, self._task = self._task, None
        if task is None:
            return
        if not self._recording:
            self._recording = self._train_first_run(task)
        for run, (config, seed) in enumerate(task.runs):
            for event in _replay(self._recording, run, random.Random(f"{config['name']} {seed}")):
                deliver(Reported(task.number, event))
        deliver(Finished(task.number))

    def stop(self, deliver: Deliver, seconds: float) -> None:
        """Do nothing, because no task runs outside `poll`."""

    def close(self) -> None:
        """Do nothing, because no task runs outside `poll`."""

    def _train_first_run(self, task: WorkerTask) -> list[RunEvent]:
        """Return the events of the first run of the task, without those of single updates."""
        events: list[RunEvent] = []

        def keep(event: Event) -> None:
            if not isinstance(event, Reported | Finished):
                raise RuntimeError(f"the run to record did not finish: {event}")
            if isinstance(event, Reported) and not isinstance(event.event, Advanced):
                events.append(event.event)

        first = replace(task, runs=task.runs[:1], origins=task.origins[:1])
        run_task(first, self._datasets, keep, progress_seconds=0.0)
        return events


def _replay(recording: list[RunEvent], run: int, generator: random.Random) -> Iterator[RunEvent]:
    """Yield the events as those of another run of a cohort, with other scores."""
    for event in recording:
        match event:
            case Evaluated():
                yield Evaluated(run, _vary(event.entry, generator))
            case Probed():
                yield Probed(run, event.snapshot)
            case Diagnosed():
                result = {**event.result, "final": _vary(event.result["final"], generator)}
                yield Diagnosed(run, result, event.weights)


def _vary(values: Mapping[str, Any], generator: random.Random) -> dict[str, Any]:
    """Return the values with all losses and scores changed by up to SPREAD."""
    scores = {key: value for key, value in values.items() if isinstance(value, float) and key != "epoch"}
    return {**values, **{key: value * generator.uniform(1.0 - SPREAD, 1.0) for key, value in scores.items()}}


def _start(options: WorkerPoolOptions) -> WorkerPool:
    return SimulatedWorkers(options)


if os.environ.get(SYNC_VARIABLE) == "0":
    os.fsync = lambda _descriptor: None  # type: ignore[assignment]

EXECUTORS.add(
    Executor(
        name="simulated",
        summary="Replay the events of one training for all runs, to measure everything but training.",
        source="initbench",
        devices=("cpu",),
        start=_start,
    )
)
