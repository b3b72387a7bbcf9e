"""Plan an experiment before training: resolve its data set and the ids of its runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import DataSource
from initbench.data.locate import ResolvedDataset, options_used, resolve_dataset
from initbench.pretrain.weight_sources import WeightSource, resolve_weight_sources
from initbench.runner.run_identity import Identity, experiment_identity
from initbench.store.store import Store


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """The store, the data source, the device and the executor of a command."""

    store: Store
    source: DataSource
    device: torch.device
    workers: int | None = None
    """Number of training processes; None for the fastest number, 1 for this process alone."""
    executor: str | None = None
    """Name of an executor; None to choose by device and work."""
    executor_address: str | None = None
    """Where the executor finds its machines, if it takes an address."""
    worker_bytes: float | None = None
    """Memory limit of a worker process in bytes; None for no limit."""


@dataclass(frozen=True)
class ExperimentOutcome:
    """The runs of an experiment after training, and the errors."""

    config: ExperimentConfig
    run_ids: tuple[str, ...]
    """One id per seed; empty if training stopped before this experiment was planned."""
    errors: tuple[str, ...] = ()
    """One line per cohort whose training failed; its runs are marked as failed."""


@dataclass(frozen=True)
class Plan:
    """The resolved data set, identities and ids of the runs of an experiment."""

    config: ExperimentConfig
    """The config with the data set that was found, which may be a fallback for the requested one."""
    resolved: ResolvedDataset
    identities: Mapping[int, Identity]
    """The identity for each seed; identities differ if the seeds load different weights."""
    origins: Mapping[int, WeightSource]
    """The weight source for each seed; empty if no weights are loaded."""
    run_ids: Mapping[int, str]
    """The run id for each seed."""


def plan(config: ExperimentConfig, workplace: RunContext) -> Plan:
    """Resolve the data set and the initial weights, and compute the run ids from them.

    A fallback data set gives the same ids as a data set requested by name, so that its runs are trained
    only once.
    """
    resolved = resolve_dataset(config.data, workplace.source)
    config = config.model_copy(update={"data": options_used(config.data, resolved)})
    origins = resolve_weight_sources(config, workplace.store, workplace.source)
    alike: dict[str | None, Identity] = {}  # one for all seeds that start from the same weights, or from none
    identities = {}
    for seed in config.seed_list:
        origin = origins.get(seed)
        weights = None if origin is None else origin.kind + origin.sha256
        if weights not in alike:
            alike[weights] = experiment_identity(config, resolved, workplace.device, origin)
        identities[seed] = alike[weights]
    ids = {seed: identity.run_id(config.name, seed) for seed, identity in identities.items()}
    return Plan(config, resolved, identities, origins, ids)
