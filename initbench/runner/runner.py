"""Train the missing runs of experiments, several at a time. All stored runs are made here.

Experiments that others start from are trained first. Among the others, the longest runs start first, and
batches of different experiments run in parallel. Workers stay alive until the runner is closed. Only the
process of the runner writes to the store.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Self

from initbench.components.inits.pretrained_scheme import TransferOptions
from initbench.config.schema import ExperimentConfig
from initbench.data.preprocessing import PreparedData
from initbench.errors import InitbenchError, StoreError
from initbench.interrupts import RunsToMark
from initbench.machine import available_cores
from initbench.models.model_factory import loaded_factory
from initbench.runner.batching import choose_cohort_sizes, group_by_step, max_cohort_size, merge_by_program
from initbench.runner.cost_model import (
    MOST_PRODUCTS_PER_SECOND,
    equivalent_updates,
    measurement_cost,
    training_cost,
)
from initbench.runner.dataset_cache import DatasetCache
from initbench.runner.environment import environment_record
from initbench.runner.pending import PendingExperiment, Run, RunBatch, RunLimits, count_open_batches
from initbench.runner.plan import ExperimentOutcome, Plan, RunContext, plan
from initbench.runner.preflight import Preflight, preflight
from initbench.runner.recorder import ProgressDisplay, Recorder, RunClaim, claim_runs
from initbench.runner.run_identity import training_mode
from initbench.runner.scheduler import Scheduler, StopRequested
from initbench.runner.worker_count import optimal_worker_count, time_one_update
from initbench.runner.workers.base import EXECUTORS, WorkerPool, WorkerPoolOptions
from initbench.runner.workers.task import WorkerTask
from initbench.store.run_directory import Record
from initbench.train.loop import total_steps
from initbench.train.matmul_precision import has_bf16_units

CHECKPOINT_SECONDS = 15.0
"""Seconds between checkpoints: an interrupted run loses about this much work at most."""


class Runner:
    """Trains experiments until the budget, which all calls share, is spent; a context manager."""

    def __init__(
        self, workplace: RunContext, observer: ProgressDisplay, budget: RunLimits | None = None
    ) -> None:
        self._runs_to_mark = RunsToMark()
        self._workplace, self._observer = workplace, observer
        self._budget = budget or RunLimits()
        self._left = self._budget.limit
        seconds = self._budget.max_seconds
        self._end = None if seconds is None else time.monotonic() + seconds
        self._stopped = False
        self._slow_bf16_reported = False
        self._datasets = DatasetCache()
        self._crews: dict[str, WorkerPool] = {}

    def __enter__(self) -> Self:
        self._runs_to_mark.__enter__()
        return self

    def __exit__(self, *_error: object) -> None:
        self._runs_to_mark.__exit__()
        self.close()

    def close(self) -> None:
        """End the workers."""
        while self._crews:
            self._crews.popitem()[1].close()

    def run(self, configs: Sequence[ExperimentConfig]) -> list[ExperimentOutcome]:
        """Train the missing runs of these experiments and return their outcomes in the same order.

        Exceptions other than those below are stored with the runs and added to `ExperimentOutcome.errors`.

        Raises:
            InitbenchError: If the user can fix the cause (data, config, store), or if a signal arrived.
                Unfinished runs are then marked as interrupted.
        """
        outcomes: dict[int, ExperimentOutcome] = {}
        for wave in dependency_waves(configs):
            if self._stopped:
                outcomes |= {i: ExperimentOutcome(configs[i], ()) for i in wave}
                continue
            plans = [plan(configs[i], self._workplace) for i in wave]
            stored = self._workplace.store.statuses(id_ for of in plans for id_ in of.run_ids.values())
            undertakings = [self._prepare(of, stored) for of in plans]
            self._train_wave([pending for pending in undertakings if pending.seeds])
            outcomes |= {i: pending.outcome for i, pending in zip(wave, undertakings, strict=True)}
        return [outcomes[i] for i in range(len(configs))]

    def _prepare(self, of: Plan, stored: Mapping[str, str]) -> PendingExperiment:
        pending = PendingExperiment(of, self._workplace.store, self._budget, stored)
        if self._left is not None:
            pending.limit_runs(self._left)
            self._left -= len(pending.seeds)
        if not pending.seeds:
            self._observer.planned(pending.config, 0, pending.stored, None)
        pending.most = max_cohort_size(pending.config, self._workplace.device)
        return pending

    def _train_wave(self, undertakings: Sequence[PendingExperiment]) -> None:
        if not undertakings:
            return
        self._report_slow_bf16([pending.config for pending in undertakings])
        name, limit = self._choose_executor(undertakings)
        crew = self._worker_pool(name)
        groups = _make_batches(undertakings, min(limit, crew.workers))

        def begin(group: RunBatch, number: int, device: str) -> tuple[WorkerTask, Recorder]:
            return self._start_batch(group, number, device, crew.threads)

        store, fail_fast = self._workplace.store, self._budget.fail_fast
        try:
            Scheduler(crew, store, begin, check=self._check_deadline, fail_fast=fail_fast).run(groups, limit)
        except BaseException as error:
            del self._crews[name]  # it is closed
            if not isinstance(error, StopRequested):
                raise
            self._stopped = True
        self._stopped = self._stopped or self._left == 0

    def _report_slow_bf16(self, configs: Sequence[ExperimentConfig]) -> None:
        """Say once that the processor does not multiply in bf16, if a config asks for it."""
        wanted = any(config.train.precision == "bf16" for config in configs)
        if self._slow_bf16_reported or not wanted or self._workplace.device.type != "cpu" or has_bf16_units():
            return
        self._slow_bf16_reported = True
        self._workplace.source.notify(
            "this processor has no bf16 instructions: train.precision=bf16 works, but fp32 is faster"
        )

    def _check_deadline(self) -> None:
        if self._end is not None and time.monotonic() >= self._end:
            raise StopRequested

    def _choose_executor(self, undertakings: Sequence[PendingExperiment]) -> tuple[str, int]:
        """Return the name of the executor and a limit of its number of workers."""
        context = self._workplace
        if context.executor is not None or context.device.type == "cuda":
            return context.executor or "cuda", context.workers or sys.maxsize
        workers = context.workers or self._choose_worker_count(undertakings)
        return ("inprocess" if workers == 1 and context.worker_bytes is None else "local"), workers

    def _worker_pool(self, name: str) -> WorkerPool:
        """Return the worker pool of this executor; later calls reuse it."""
        if name not in self._crews:
            context = self._workplace
            self._crews[name] = EXECUTORS[name].start(
                WorkerPoolOptions(
                    device=context.device,
                    workers=context.workers,
                    datasets=self._datasets,
                    memory=context.worker_bytes,
                    address=context.executor_address,
                    notify=context.source.notify,
                )
            )
        return self._crews[name]

    def _choose_worker_count(self, undertakings: Sequence[PendingExperiment]) -> int:
        """Choose from the measured time of an update of the costliest experiment.

        The times of the other experiments are estimated from the ratio of their costs. Nothing is measured if
        all cores pay even on the fastest processor.
        """
        most = max(undertakings, key=lambda pending: training_cost(pending.config))
        together = sum(len(pending.seeds) for pending in undertakings if pending.program == most.program)
        data, mode = self._prepared_data(most), training_mode(most.config, self._workplace.device)
        steps = _steps_per_run(most.config, data)
        shares = [
            training_cost(pending.config) / training_cost(most.config) * _remaining_work(pending, steps)
            for pending in undertakings
        ]
        runs = sum(len(pending.seeds) for pending in undertakings)
        started = "local" in self._crews
        if most.config.train.precision == "fp32":
            least = training_cost(most.config) / MOST_PRODUCTS_PER_SECOND * sum(shares)
            workers = optimal_worker_count(least, runs, mode, started=started)
            if workers == min(available_cores(), runs):
                return workers
        try:
            updates = steps + measurement_cost(most.config, data, steps)
            seconds = updates * time_one_update(most.config, data, mode, together)
        except InitbenchError:
            raise
        except Exception:  # fails in training too, where the error is stored with the runs
            return 1
        return optimal_worker_count(seconds * sum(shares), runs, mode, started=started)

    def _prepared_data(self, pending: PendingExperiment) -> PreparedData:
        return self._datasets.of(pending.plan.resolved, pending.config.data, self._workplace.device)

    def _start_batch(
        self, group: RunBatch, number: int, device: str, threads: int
    ) -> tuple[WorkerTask, Recorder]:
        first = next(iter(group.seeds_by_experiment))
        mode = training_mode(first.config, self._workplace.device)
        threads = threads if mode == "vmap" else 1
        preflights = {of: of.ready or self._preflight(of) for of in group.seeds_by_experiment}
        claims = [
            RunClaim(
                run.of.config,
                run.seed,
                run.run_id,
                preflights[run.of].initial_record(
                    run.seed, run.of.plan.identities[run.seed], threads, device
                ),
            )
            for run in group.runs
        ]
        recorder = claim_runs(self._workplace.store, claims, self._observer, rerun=group.restarts)
        try:
            resume = recorder.resumptions
        except StoreError:
            recorder.interrupt()
            raise
        task = WorkerTask(
            number=number,
            runs=tuple((preflights[run.of].record["config"], run.seed) for run in group.runs),
            resolved=first.plan.resolved,
            device=device,
            mode=mode,
            threads=threads,
            checkpoint_seconds=CHECKPOINT_SECONDS,
            resume=resume,
            model=None if (factory := loaded_factory()) is None else factory.path,
            captures=not any("plugins" in checked.record for checked in preflights.values()),
            origins=tuple(run.of.plan.origins[run.seed] for run in group.runs if run.of.plan.origins),
        )
        return task, recorder

    def _preflight(self, of: PendingExperiment) -> Preflight:
        of.ready = checked = preflight(of.plan, of.seeds, self._prepared_data(of), self._environment)
        self._observer.planned(of.config, len(of.seeds), of.stored, checked.steps)
        return checked

    @cached_property
    def _environment(self) -> Record:
        return environment_record(self._workplace.device)


def dependency_waves(configs: Sequence[ExperimentConfig]) -> Iterator[list[int]]:
    """Yield indices of experiments to train together, after those whose weights they start from."""
    remaining = list(range(len(configs)))
    while remaining:
        names = {configs[i].name for i in remaining}
        wave = [i for i in remaining if dependency_in(configs[i], names) is None] or remaining
        yield wave
        remaining = [i for i in remaining if i not in set(wave)]


def dependency_in(config: ExperimentConfig, names: set[str]) -> str | None:
    """Return the one of these other experiments whose weights this one starts from, or None."""
    options = config.init.scheme
    if not isinstance(options, TransferOptions):
        return None
    experiment = re.sub(r"-s\d+-[0-9a-f]+$", "", options.source)  # of a run's id
    return next((name for name in (options.source, experiment) if name in names - {config.name}), None)


def _make_batches(undertakings: Sequence[PendingExperiment], workers: int) -> list[RunBatch]:
    """Return all runs in batches, the costliest first; experiments of one program share batches."""
    stacks: dict[str, list[PendingExperiment]] = {}
    for pending in undertakings:
        stacks.setdefault(pending.program, []).append(pending)
    cohort_sizes = choose_cohort_sizes(
        merge_by_program(pending.work_item for pending in undertakings), workers
    )
    groups = [
        group
        for stack, size in zip(stacks.values(), cohort_sizes, strict=True)
        for group in _batches_of_program(stack, size)
    ]
    count_open_batches(groups)
    return sorted(groups, key=lambda group: -group.cost)


def _batches_of_program(stack: Sequence[PendingExperiment], size: int) -> Iterator[RunBatch]:
    missing = [Run(pending, seed) for pending in stack for seed in pending.missing]
    restarted = [Run(pending, seed) for pending in stack for seed in pending.restarted]
    for runs in group_by_step(missing, lambda run: run.of.steps[run.seed], size):
        yield RunBatch(runs, restarts=False)
    for runs in group_by_step(restarted, lambda _run: 0, size):
        yield RunBatch(runs, restarts=True)


def _steps_per_run(config: ExperimentConfig, data: PreparedData) -> int:
    return total_steps(config.train, len(data.train) // max(1, min(config.train.batch_size, len(data.train))))


def _remaining_work(pending: PendingExperiment, steps: int) -> float:
    """Return the remaining work of an experiment, in whole runs."""
    steps_before_training = equivalent_updates(pending.config) / steps
    steps_done = [max(0, pending.steps.get(seed, 0)) for seed in pending.seeds]
    return sum(max(0.0, 1.0 - step / steps) + (0.0 if step else steps_before_training) for step in steps_done)
