"""An experiment whose runs are being trained: what is missing, what its tasks need, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from initbench.config.schema import ExperimentConfig
from initbench.runner.batching import WorkItem, program_key
from initbench.runner.cost_model import training_cost
from initbench.runner.plan import ExperimentOutcome, Plan
from initbench.runner.preflight import Preflight
from initbench.store.run_directory import COMPLETE
from initbench.store.store import Store


@dataclass(frozen=True)
class RunLimits:
    """What a command allows."""

    fail_fast: bool = False
    max_seconds: float | None = None
    limit: int | None = None
    """Runs to train at most."""
    retry: tuple[str, ...] = ()
    """Statuses of runs that are trained anew."""
    rerun: bool = False
    """Whether all are."""
    keep_failed: bool = False
    """Whether runs that failed stay as they are unless they are to be retried; else they are tried again."""

    def restarts(self, status: str | None) -> bool:
        """Whether a run of this status is trained from its beginning, whatever there is of it."""
        return status is not None and (self.rerun or status in self.retry)

    def needs_run(self, status: str | None) -> bool:
        """Whether a run of this status is begun, or gone on with."""
        final_statuses = (*COMPLETE, "failed") if self.keep_failed else COMPLETE
        return status not in final_statuses and not self.restarts(status)

    def will_run(self, status: str | None) -> bool:
        """Whether a run of this status is trained at all."""
        return self.restarts(status) or self.needs_run(status)


class PendingExperiment:
    """One experiment of those that are trained side by side.

    What it holds beside the ids is let go of once all its groups are settled: there may be thousands.
    """

    def __init__(self, plan: Plan, store: Store, budget: RunLimits) -> None:
        statuses = {seed: store.status(run_id) for seed, run_id in plan.run_ids.items()}
        self.config: ExperimentConfig = plan.config
        self.run_ids = tuple(plan.run_ids.values())
        store.tidy(run_id for seed, run_id in plan.run_ids.items() if statuses[seed] in COMPLETE)
        self.missing = [seed for seed, status in statuses.items() if budget.needs_run(status)]
        self.anew = [seed for seed, status in statuses.items() if budget.restarts(status)]
        self.stored = len(statuses) - len(self.seeds)
        """Runs that are left as they are."""
        self.steps = {seed: store.checkpoint_step(plan.run_ids[seed]) for seed in self.missing}
        """Updates that runs need not make again: below 0 in pre-training, of which so many are left."""
        self.most = 1
        """Runs in a group at most."""
        self.errors: list[str] = []
        self._plan: Plan | None = plan
        self._ready: Preflight | None = None
        self._groups = 0

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those that are to be trained."""
        return (*self.missing, *self.anew)

    @property
    def plan(self) -> Plan:
        """What its runs are."""
        assert self._plan is not None
        return self._plan

    @property
    def ready(self) -> Preflight | None:
        """What its first group found out for all."""
        return self._ready

    @ready.setter
    def ready(self, checked: Preflight) -> None:
        self._ready = checked

    @property
    def outcome(self) -> ExperimentOutcome:
        """Where its runs are now."""
        return ExperimentOutcome(self.config, self.run_ids, tuple(self.errors))

    @property
    def work_item(self) -> WorkItem:
        """What is to be trained of it."""
        return WorkItem(self.config, self.program, len(self.seeds), self.most)

    @cached_property
    def program(self) -> str:
        """What its runs share with those that they can be trained with."""
        return program_key(self.config)

    def limit_runs(self, runs: int) -> None:
        """Leave all but so many for another time."""
        self.missing = self.missing[:runs]
        self.anew = self.anew[: max(0, runs - len(self.missing))]

    def count_batches(self, groups: int) -> None:
        """Count groups that are to be trained, or below 0 such as have come to an end."""
        self._groups += groups
        if not self._groups:
            self._free_plan()

    def _free_plan(self) -> None:
        self._plan = self._ready = None
        self.steps = {}


class Run(NamedTuple):
    """One run of an experiment that is being trained."""

    of: PendingExperiment
    seed: int

    @property
    def run_id(self) -> str:
        """Its id."""
        return self.of.plan.run_ids[self.seed]


@dataclass(frozen=True)
class RunBatch:
    """Runs that are trained together, of one experiment or of several whose training is the same program."""

    runs: tuple[Run, ...]
    anew: bool
    deaths: int = 0
    """How often its worker died when the run was alone."""

    @property
    def seeds_by_experiment(self) -> dict[PendingExperiment, tuple[int, ...]]:
        """Seeds, by experiment."""
        by_experiment: dict[PendingExperiment, list[int]] = {}
        for run in self.runs:
            by_experiment.setdefault(run.of, []).append(run.seed)
        return {of: tuple(seeds) for of, seeds in by_experiment.items()}

    @property
    def max_size(self) -> int:
        """Runs that may be trained together."""
        return min(run.of.most for run in self.runs)

    @property
    def cost(self) -> float:
        """Of the whole group, in the units of `cost`."""
        return sum(training_cost(run.of.config) for run in self.runs)


def mark_done(group: RunBatch, instead: Sequence[RunBatch] = ()) -> None:
    """Count a group as done with, and others in its place."""
    count_open_batches(instead)
    for of in group.seeds_by_experiment:
        of.count_batches(-1)


def count_open_batches(groups: Sequence[RunBatch]) -> None:
    """Count groups that are to be trained."""
    for group in groups:
        for of in group.seeds_by_experiment:
            of.count_batches(1)
