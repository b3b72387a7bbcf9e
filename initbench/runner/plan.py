"""An experiment before it is trained: which data set it uses, and what its runs are."""

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
    """Where runs are kept, where data comes from, and what trains."""

    store: Store
    source: DataSource
    device: torch.device
    workers: int | None = None
    """Processes that train; None for as many as pay, and 1 for this one alone."""
    executor: str | None = None
    """The name of an executor; None for the one that suits the device and the work."""
    worker_bytes: float | None = None
    """Memory that a worker process may take; None for as much as there is."""


@dataclass(frozen=True)
class ExperimentOutcome:
    """Where an experiment's runs are now."""

    config: ExperimentConfig
    run_ids: tuple[str, ...]
    """Of all seeds; none where what the experiment starts from did not come to be."""
    errors: tuple[str, ...] = ()
    """What stopped a cohort's training, when something did, in a line; its runs are marked failed."""


@dataclass(frozen=True)
class Plan:
    """What the runs of an experiment are."""

    config: ExperimentConfig
    """The experiment on the data set that was found, which may stand in for the one asked for."""
    resolved: ResolvedDataset
    identities: Mapping[int, Identity]
    """Of every seed; they differ where each takes its weights from another source."""
    origins: Mapping[int, WeightSource]
    """Of every seed, where its weights are taken from elsewhere; else empty."""
    run_ids: Mapping[int, str]
    """Of every seed."""


def plan(config: ExperimentConfig, workplace: RunContext) -> Plan:
    """Resolve the data set, and the weights to start from, which the ids depend on.

    A set that stands in for another is planned like one that was asked for by name, so that it is
    trained once under one id.
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
