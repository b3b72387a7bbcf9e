"""Put the stages of an experiment together: resolve, look up, claim, train, store."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from initbench.config.schema import ExperimentConfig
from initbench.data.batches import check_batch_size
from initbench.data.dataset import Source
from initbench.data.prepare import Bundle, prepare
from initbench.data.resolve import Resolved, resolve
from initbench.errors import InitbenchError, StoreError
from initbench.execute.identity import Identity, identify, training_mode
from initbench.execute.job import Job, train
from initbench.execute.pace import workers_that_pay
from initbench.execute.recorder import Observer, Recorder, claimed
from initbench.execute.surroundings import git_state, machine, versions
from initbench.execute.workers import Opened, train_in_workers
from initbench.models.build import check
from initbench.pretrain.cost import equivalent_updates
from initbench.pretrain.start import check_inputs
from initbench.pretrain.transfer import transfers_of
from initbench.pretrain.transfer_source import Origin, origins_of
from initbench.store.checkpoint import Resumption
from initbench.store.layout import COMPLETE
from initbench.store.store import Store
from initbench.store.writer import RunWriter
from initbench.train.loop import total_steps
from initbench.train.numerics import matmul_backend
from initbench.train.threads import usable_threads

MOST_STACKED = {"cpu": 16, "cuda": 256}
"""Runs in one cohort at most. On a CPU more of them only fall out of the caches (docs/how-it-works.md);
on a GPU each keeps a lock file open."""
CHECKPOINT_SECONDS = 15.0
"""An interrupted run loses at most about so much work."""


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where runs are kept, where data comes from, and what trains."""

    store: Store
    source: Source
    device: torch.device
    workers: int | None = None
    """Processes that train; None for as many as pay, and 1 for this one alone."""


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
    identities: Mapping[int, Identity]
    """Of every seed; they differ where each takes its weights from another source."""
    origins: Mapping[int, Origin]
    """Of every seed, where its weights are taken from elsewhere; else empty."""
    device: torch.device
    run_ids: Mapping[int, str]
    """Of every seed."""
    missing: Mapping[int, int]
    """Seeds that are to be trained, with the updates they have made before they were interrupted: below 0 in
    pre-training, of which so many are left."""

    def jobs(self, workers: int) -> list[Job]:
        """The missing seeds in cohorts, enough of them to keep the workers busy."""
        mode = training_mode(self.config, self.device)
        most = min(MOST_STACKED[self.device.type], math.ceil(len(self.missing) / workers))
        size = most if mode == "vmap" else 1
        groups = []
        for step in sorted(set(self.missing.values())):  # a cohort makes its updates together
            seeds = tuple(seed for seed, made in self.missing.items() if made == step)
            groups += [seeds[i : i + size] for i in range(0, len(seeds), size)]
        job = Job(
            config=self.config,
            seeds=(),
            device=self.device,
            mode=mode,
            threads=usable_threads() if mode == "vmap" and workers == 1 else 1,
            checkpoint_seconds=CHECKPOINT_SECONDS,
        )
        origins = self.origins
        return [
            replace(job, seeds=seeds, origins=tuple(origins[seed] for seed in seeds if origins))
            for seeds in groups
        ]


def plan(config: ExperimentConfig, workplace: Workplace, *, rerun: bool) -> Plan:
    """Resolve the data set, which the ids depend on, and look up what is stored already."""
    resolved = resolve(config.data, workplace.source)
    store = workplace.store
    origins = origins_of(config, store, workplace.source)
    identities = {
        seed: identify(config, resolved, workplace.device, origins.get(seed)) for seed in config.seed_list
    }
    ids = {seed: identity.run_id(config.name, seed) for seed, identity in identities.items()}
    missing = {
        seed: 0 if rerun else store.checkpoint_step(run_id)
        for seed, run_id in ids.items()
        if rerun or store.status(run_id) not in COMPLETE
    }
    return Plan(config, resolved, identities, origins, workplace.device, ids, missing)


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
    check(config.model, config.init, input_shape=data.input_shape, classes=data.classes)
    check_inputs(config, data)
    transfers = transfers_of(
        config, data, {seed: todo.origins[seed] for seed in todo.missing if todo.origins}
    )
    steps = total_steps(config.train, len(data.train) // config.train.batch_size)
    observer.planned(config, len(todo.missing), stored, steps)
    workers = workplace.workers or _workers_that_pay(todo, data, steps)

    record = _record(todo.config, data, todo.device)

    @contextmanager
    def opened(job: Job) -> Iterator[tuple[Job, Recorder]]:
        ids = {seed: todo.run_ids[seed] for seed in job.seeds}
        records = {
            seed: {
                **record,
                **_identified(todo.identities[seed]),
                "threads": job.threads,
                "transfer": transfers.get(seed),
            }
            for seed in job.seeds
        }
        with claimed(workplace.store, config, ids, records, rerun=rerun) as writers:
            yield replace(job, resume=_resumptions(writers)), Recorder(writers, observer)

    jobs = todo.jobs(workers)
    if workers > 1:
        errors = train_in_workers(jobs, todo.resolved, opened, workers=workers)
    else:
        errors = _train_here(jobs, data, opened)
    return Execution(config, run_ids, tuple(errors))


def _workers_that_pay(todo: Plan, data: Bundle, steps: int) -> int:
    if todo.device.type != "cpu":
        return 1
    mode, made = training_mode(todo.config, todo.device), min(todo.missing.values())
    left = steps - max(0, made) + (0 if made > 0 else equivalent_updates(todo.config))
    try:
        return workers_that_pay(todo.config, data, mode, len(todo.missing), left)
    except InitbenchError:
        raise
    except Exception:  # what fails here fails in training too, where it is stored with the runs
        return 1


def _train_here(jobs: Sequence[Job], data: Bundle, opened: Opened) -> list[Exception]:
    errors: list[Exception] = []
    for job in jobs:
        try:
            with opened(job) as (ready, sink):
                train(ready, data, sink)
        except InitbenchError:
            raise
        except Exception as error:
            errors.append(error)
    return errors


def _resumptions(writers: Mapping[int, RunWriter]) -> tuple[Resumption, ...]:
    found = [writer.resumption for writer in writers.values()]
    there = tuple(resumption for resumption in found if resumption is not None)
    if len({None if resumption is None else resumption.step for resumption in found}) > 1:
        raise StoreError("another process went on with some of these runs meanwhile; start again")
    return there


def _identified(identity: Identity) -> dict[str, Any]:
    parts = {key: value for key, value in identity.parts.items() if key != "config"}
    weights = {} if identity.weights is None else {"weights": identity.weights}
    return {"arm": identity.arm, "identity": {**parts, **weights}}


def _record(config: ExperimentConfig, data: Bundle, device: torch.device) -> dict[str, Any]:
    """What is known of all the runs before they start."""
    return {
        "experiment": config.name,
        "config": config.resolved(),
        "dataset": data.name,
        "dataset_requested": data.requested,
        "device": str(device),
        "precision": config.train.precision,
        "matmul": matmul_backend(device),
        "versions": versions(),
        "machine": machine(device),
        "git": git_state(),
        "samples": _samples(data),
        "classes": data.classes,
        **dict.fromkeys(("parameters", "steps", "final", "diverged", "diagnosis", "error")),
    }


def _samples(data: Bundle) -> dict[str, int]:
    """How many samples each split has; `unlabelled` come beside `train`, `mislabelled` are some of it."""
    unlabelled = 0 if data.unlabelled is None else len(data.unlabelled)
    return {
        "train": len(data.train),
        "val": len(data.val),
        "test": len(data.test),
        "unlabelled": unlabelled,
        "mislabelled": data.mislabelled,
    }
