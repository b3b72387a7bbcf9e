"""Experiments one after another: what is stored is read, what is missing is trained first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from initbench.compare.facts import RunFacts, facts_of
from initbench.config.schema import ExperimentConfig
from initbench.execute.experiment import Workplace, plan, run_experiment
from initbench.execute.recorder import Observer
from initbench.store.store import StoredRun


@dataclass(frozen=True)
class Trained:
    """An experiment and its runs, as they are stored now."""

    config: ExperimentConfig
    runs: tuple[StoredRun, ...]
    errors: tuple[Exception, ...] = ()
    """What stopped runs that failed."""

    @cached_property
    def facts(self) -> tuple[RunFacts, ...]:
        """What a comparison needs of each run."""
        return tuple(facts_of(run) for run in self.runs)

    @property
    def complete(self) -> int:
        """Runs that have come to a result."""
        return sum(run.is_complete for run in self.facts)


Get = Callable[[ExperimentConfig], Trained]
"""How an experiment's runs are come by."""


def trained(
    config: ExperimentConfig, *, workplace: Workplace, observer: Observer, rerun: bool = False
) -> Trained:
    """Train what is missing of an experiment, and read all of it. Raises as `run_experiment` does."""
    todo = plan(config, workplace, rerun=rerun)
    if not todo.missing:
        return _read(config, todo.run_ids.values(), workplace)
    execution = run_experiment(config, workplace, observer, rerun=rerun)
    return _read(config, execution.run_ids, workplace, execution.errors)


def stored(config: ExperimentConfig, *, workplace: Workplace) -> Trained:
    """What there is of an experiment, without training. Raises DataError where its data is not there."""
    return _read(config, plan(config, workplace, rerun=False).run_ids.values(), workplace)


def _read(
    config: ExperimentConfig, run_ids: Iterable[str], workplace: Workplace, errors: tuple[Exception, ...] = ()
) -> Trained:
    store = workplace.store
    return Trained(config, tuple(store.read(one) for one in run_ids if store.status(one)), errors)
