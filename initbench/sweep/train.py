"""Experiments and their runs: what is missing is trained first, or only read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from initbench.compare.facts import RunFacts, facts_of
from initbench.config.schema import ExperimentConfig
from initbench.execute.drive import Driver
from initbench.execute.experiment import Workplace, plan
from initbench.store.store import Store, StoredRun


@dataclass(frozen=True)
class Trained:
    """An experiment and its runs, as they are stored now."""

    config: ExperimentConfig
    runs: tuple[StoredRun, ...]
    errors: tuple[str, ...] = ()
    """What stopped runs that failed."""

    @cached_property
    def facts(self) -> tuple[RunFacts, ...]:
        """What a comparison needs of each run."""
        return tuple(facts_of(run) for run in self.runs)

    @property
    def complete(self) -> int:
        """Runs that have come to a result."""
        return sum(run.is_complete for run in self.facts)


Get = Callable[[Sequence[ExperimentConfig]], list[Trained]]
"""How the runs of experiments are come by."""


def trained(configs: Sequence[ExperimentConfig], *, driver: Driver, store: Store) -> list[Trained]:
    """Train what is missing of experiments, and read all of it. Raises as `Driver.drive` does."""
    return [_read(one.config, one.run_ids, store, one.errors) for one in driver.drive(configs)]


def stored(configs: Sequence[ExperimentConfig], *, workplace: Workplace) -> list[Trained]:
    """What there is of experiments, without training. Raises DataError where their data is not there."""
    return [_read(one, plan(one, workplace).run_ids.values(), workplace.store) for one in configs]


def _read(
    config: ExperimentConfig, run_ids: Iterable[str], store: Store, errors: tuple[str, ...] = ()
) -> Trained:
    return Trained(config, tuple(store.read(one) for one in run_ids if store.status(one)), errors)
