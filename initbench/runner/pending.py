"""Track an experiment in training: its missing runs, the data for its tasks, and its errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """The limits of a command, and its choice of runs to train."""

    fail_fast: bool = False
    max_seconds: float | None = None
    limit: int | None = None
    """Maximum number of runs to train."""
    retry: tuple[str, ...] = ()
    """Statuses of runs that are retrained."""
    rerun: bool = False
    """Whether all runs are retrained."""
    keep_failed: bool = False
    """Whether failed runs are kept unless `retry` lists them; otherwise they are trained again."""

    def restarts(self, status: str | None) -> bool:
        """Return whether a run of this status is retrained from the start."""
        return status is not None and (self.rerun or status in self.retry)

    def needs_run(self, status: str | None) -> bool:
        """Return whether a run of this status is started or resumed."""
        final_statuses = (*COMPLETE, "failed") if self.keep_failed else COMPLETE
        return status not in final_statuses and not self.restarts(status)

    def will_run(self, status: str | None) -> bool:
        """Return whether a run of this status is trained at all."""
        return self.restarts(status) or self.needs_run(status)


class PendingExperiment:
    """One of several experiments that are trained in parallel; `stored`: statuses of the runs that exist.

    Plan, preflight and steps are freed once all batches are done, because sweeps can have thousands of
    experiments.
    """

    def __init__(self, plan: Plan, store: Store, budget: RunLimits, stored: Mapping[str, str]) -> None:
        statuses = {seed: stored.get(run_id) for seed, run_id in plan.run_ids.items()}
        self.config: ExperimentConfig = plan.config
        self.run_ids = tuple(plan.run_ids.values())
        store.tidy(run_id for seed, run_id in plan.run_ids.items() if statuses[seed] in COMPLETE)
        self.missing = [seed for seed, status in statuses.items() if budget.needs_run(status)]
        self.restarted = [seed for seed, status in statuses.items() if budget.restarts(status)]
        self.stored = len(statuses) - len(self.seeds)
        """Number of runs that are not trained."""
        self.steps = {
            seed: 0 if statuses[seed] is None else store.checkpoint_step(plan.run_ids[seed])
            for seed in self.missing
        }
        """Steps of the checkpoints, by seed. In pre-training: minus the number of remaining updates."""
        self.most = 1
        """Maximum number of runs in a batch."""
        self.errors: list[str] = []
        self._plan: Plan | None = plan
        self._ready: Preflight | None = None
        self._groups = 0

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds to train."""
        return (*self.missing, *self.restarted)

    @property
    def plan(self) -> Plan:
        """The plan of the runs."""
        assert self._plan is not None
        return self._plan

    @property
    def ready(self) -> Preflight | None:
        """The preflight, which the first batch computes for all; None before."""
        return self._ready

    @ready.setter
    def ready(self, checked: Preflight) -> None:
        self._ready = checked

    @property
    def outcome(self) -> ExperimentOutcome:
        """The run ids and errors of the experiment."""
        return ExperimentOutcome(self.config, self.run_ids, tuple(self.errors))

    @property
    def work_item(self) -> WorkItem:
        """The runs to train, for the choice of batch sizes."""
        return WorkItem(self.config, self.program, len(self.seeds), self.most)

    @cached_property
    def program(self) -> str:
        """The key shared by experiments whose runs can be trained together."""
        return program_key(self.config)

    def limit_runs(self, runs: int) -> None:
        """Train at most this number of runs."""
        self.missing = self.missing[:runs]
        self.restarted = self.restarted[: max(0, runs - len(self.missing))]

    def count_batches(self, groups: int) -> None:
        """Add to the number of open batches; a negative count removes batches that are done."""
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
        """The id of the run."""
        return self.of.plan.run_ids[self.seed]


@dataclass(frozen=True)
class RunBatch:
    """Runs that are trained together, from one experiment or from several with the same program."""

    runs: tuple[Run, ...]
    restarts: bool
    """Whether the runs start from scratch instead of their checkpoints."""
    deaths: int = 0
    """Number of worker deaths while the batch was a single run."""
    lost_machines: int = 0
    """Number of times that the machine of its worker was lost."""

    @property
    def seeds_by_experiment(self) -> dict[PendingExperiment, tuple[int, ...]]:
        """The seeds of each experiment."""
        by_experiment: dict[PendingExperiment, list[int]] = {}
        for run in self.runs:
            by_experiment.setdefault(run.of, []).append(run.seed)
        return {of: tuple(seeds) for of, seeds in by_experiment.items()}

    @property
    def max_size(self) -> int:
        """The maximum number of runs that may be trained together."""
        return min(run.of.most for run in self.runs)

    @property
    def cost(self) -> float:
        """The training cost of the whole batch, in multiplications."""
        return sum(training_cost(run.of.config) for run in self.runs)


def mark_done(group: RunBatch, instead: Sequence[RunBatch] = ()) -> None:
    """Count a batch as done, and the batches that replace it as open."""
    count_open_batches(instead)
    for of in group.seeds_by_experiment:
        of.count_batches(-1)


def count_open_batches(groups: Sequence[RunBatch]) -> None:
    """Count these batches as open in each of their experiments."""
    for group in groups:
        for of in group.seeds_by_experiment:
            of.count_batches(1)
