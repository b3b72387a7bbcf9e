"""Experiments and their runs: what is missing is trained first, or only read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from initbench.analysis.run_summary import RunSummary, summarise_run
from initbench.config.schema import ExperimentConfig
from initbench.runner.plan import RunContext, plan
from initbench.runner.runner import Runner
from initbench.store.store import Store, StoredRun


@dataclass(frozen=True)
class ExperimentRuns:
    """An experiment and its runs, as they are stored now."""

    config: ExperimentConfig
    runs: tuple[StoredRun, ...]
    errors: tuple[str, ...] = ()
    """What stopped runs that failed."""

    @cached_property
    def facts(self) -> tuple[RunSummary, ...]:
        """What a comparison needs of each run."""
        return tuple(summarise_run(run) for run in self.runs)

    @property
    def complete(self) -> int:
        """Runs that have come to a result."""
        return sum(run.is_complete for run in self.facts)


Get = Callable[[Sequence[ExperimentConfig]], list[ExperimentRuns]]
"""How the runs of experiments are come by."""


def run_experiments(
    configs: Sequence[ExperimentConfig], *, driver: Runner, store: Store
) -> list[ExperimentRuns]:
    """Train what is missing of experiments, and read all of it. Raises as `Driver.drive` does."""
    return [_read(one.config, one.run_ids, store, one.errors) for one in driver.run(configs)]


def load_stored_runs(configs: Sequence[ExperimentConfig], *, workplace: RunContext) -> list[ExperimentRuns]:
    """What there is of experiments, without training. Raises DataError where their data is not there."""
    return [_read(one, plan(one, workplace).run_ids.values(), workplace.store) for one in configs]


def _read(
    config: ExperimentConfig, run_ids: Iterable[str], store: Store, errors: tuple[str, ...] = ()
) -> ExperimentRuns:
    return ExperimentRuns(config, tuple(store.read(one) for one in run_ids if store.status(one)), errors)
