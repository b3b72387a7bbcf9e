"""Experiments with their runs: missing runs are trained first, or only stored runs are read."""

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
    """Errors that ended failed runs."""

    @cached_property
    def facts(self) -> tuple[RunSummary, ...]:
        """Summary of each run, as comparisons need it."""
        return tuple(summarise_run(run) for run in self.runs)

    @property
    def complete(self) -> int:
        """Number of runs with a result."""
        return sum(run.is_complete for run in self.facts)


Get = Callable[[Sequence[ExperimentConfig]], list[ExperimentRuns]]
"""Function that provides the runs of experiments."""


def run_experiments(
    configs: Sequence[ExperimentConfig], *, runner: Runner, store: Store
) -> list[ExperimentRuns]:
    """Train the missing runs of experiments, and read all runs. Raises the errors of `Runner.run`."""
    return [
        _read_runs(outcome.config, outcome.run_ids, store, outcome.errors) for outcome in runner.run(configs)
    ]


def load_stored_runs(configs: Sequence[ExperimentConfig], *, context: RunContext) -> list[ExperimentRuns]:
    """Read the stored runs of experiments, without training. Raises DataError if their data are missing."""
    return [_read_runs(config, plan(config, context).run_ids.values(), context.store) for config in configs]


def _read_runs(
    config: ExperimentConfig, run_ids: Iterable[str], store: Store, errors: tuple[str, ...] = ()
) -> ExperimentRuns:
    return ExperimentRuns(
        config, tuple(store.read(run_id) for run_id in run_ids if store.status(run_id)), errors
    )
