"""Put the stages of an experiment together: resolve, look up, claim, train, store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from initbench.config.schema import ExperimentConfig
from initbench.data.batches import check_batch_size
from initbench.data.dataset import Source
from initbench.data.prepare import Bundle, prepare
from initbench.data.resolve import Resolved, resolve
from initbench.errors import InitbenchError
from initbench.execute.identity import PRECISION, Identity, identify, training_mode
from initbench.execute.job import Job, train
from initbench.execute.recorder import Observer, Recorder, claimed
from initbench.execute.surroundings import git_state, machine, versions
from initbench.models.build import check
from initbench.store.layout import COMPLETE
from initbench.store.store import Store
from initbench.train.loop import total_steps
from initbench.train.numerics import matmul_backend
from initbench.train.threads import usable_threads

MOST_STACKED = {"cpu": 16, "cuda": 256}
"""Runs in one cohort at most. On a CPU more of them only fall out of the caches (docs/how-it-works.md);
on a GPU each keeps a lock file open."""


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where runs are kept, where data comes from, and what trains."""

    store: Store
    source: Source
    device: torch.device


@dataclass(frozen=True)
class Execution:
    """Where an experiment's runs are now."""

    config: ExperimentConfig
    run_ids: tuple[str, ...]
    errors: tuple[Exception, ...] = ()
    """What stopped a cohort's training, when it raised; its runs are marked failed."""


@dataclass(frozen=True)
class Plan:
    """What there is to be done for an experiment."""

    config: ExperimentConfig
    resolved: Resolved
    identity: Identity
    device: torch.device
    run_ids: Mapping[int, str]
    """Of every seed."""
    missing: tuple[int, ...] = field(default=())
    """Seeds that are to be trained."""

    def jobs(self) -> list[Job]:
        """The missing seeds in cohorts."""
        mode = training_mode(self.config, self.device)
        size = MOST_STACKED[self.device.type] if mode == "vmap" else 1
        groups = [self.missing[i : i + size] for i in range(0, len(self.missing), size)]
        threads = usable_threads() if mode == "vmap" else 1
        return [
            Job(config=self.config, seeds=seeds, device=self.device, mode=mode, threads=threads)
            for seeds in groups
        ]


def plan(config: ExperimentConfig, workplace: Workplace, *, rerun: bool) -> Plan:
    """Resolve the data set, which the ids depend on, and look up what is stored already."""
    resolved = resolve(config.data, workplace.source)
    identity = identify(config, resolved, workplace.device)
    ids = {seed: identity.run_id(config.name, seed) for seed in config.seed_list}
    status = workplace.store.status
    missing = tuple(seed for seed, run_id in ids.items() if rerun or status(run_id) not in COMPLETE)
    return Plan(config, resolved, identity, workplace.device, ids, missing)


def run_experiment(
    config: ExperimentConfig, workplace: Workplace, observer: Observer, *, rerun: bool
) -> Execution:
    """Train what is not stored yet, cohort by cohort, and say where everything is.

    Raises InitbenchError for what the user can mend (data, config, store); any other exception of a
    training is stored with the runs it ended and handed back in `Execution.errors`.
    """
    todo = plan(config, workplace, rerun=rerun)
    run_ids = tuple(todo.run_ids.values())
    stored = len(run_ids) - len(todo.missing)
    if not todo.missing:
        observer.planned(config, 0, stored, None)
        return Execution(config, run_ids)
    data = prepare(todo.resolved, config.data, workplace.device)
    check_batch_size(len(data.train), config.train.batch_size)
    check(config.model, data.input_shape)  # before any run is claimed
    steps = total_steps(config.train, len(data.train) // config.train.batch_size)
    observer.planned(config, len(todo.missing), stored, steps)
    errors: list[Exception] = []
    for job in todo.jobs():
        try:
            _train(job, todo, data, workplace.store, observer, rerun=rerun)
        except InitbenchError:
            raise
        except Exception as error:
            errors.append(error)
    return Execution(config, run_ids, tuple(errors))


def _train(job: Job, todo: Plan, data: Bundle, store: Store, observer: Observer, *, rerun: bool) -> None:
    ids = {seed: todo.run_ids[seed] for seed in job.seeds}
    with claimed(store, job.config, ids, _record(job, todo.identity, data), rerun=rerun) as writers:
        train(job, data, Recorder(writers, observer))


def _record(job: Job, identity: Identity, data: Bundle) -> dict[str, Any]:
    """What is known of a run before it starts."""
    return {
        "experiment": job.config.name,
        "arm": identity.arm,
        "identity": {key: value for key, value in identity.parts.items() if key != "config"},
        "config": job.config.resolved(),
        "dataset": data.name,
        "dataset_requested": data.requested,
        "device": str(job.device),
        "precision": PRECISION,
        "matmul": matmul_backend(job.device),
        "threads": job.threads,
        "versions": versions(),
        "machine": machine(job.device),
        "git": git_state(),
        "samples": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
        "classes": data.classes,
        **dict.fromkeys(("parameters", "steps", "final", "diverged", "diagnosis", "error")),
    }
