"""Put the stages of a run together: resolve, look up, build, train, store."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from safetensors.torch import save
from torch import Tensor

from initbench.config.load import to_yaml
from initbench.config.schema import ExperimentConfig
from initbench.data.batches import Batches
from initbench.data.dataset import Source
from initbench.data.prepare import Bundle, prepare
from initbench.data.resolve import Resolved, resolve
from initbench.errors import InitbenchError
from initbench.execute.identity import PRECISION, Identity, identify, training_mode
from initbench.execute.surroundings import git_state, machine, versions
from initbench.models.build import build
from initbench.models.network import Network
from initbench.probe.diagnose import diagnose
from initbench.probe.remedy import situation_of
from initbench.store.layout import COMPLETE
from initbench.store.store import Store
from initbench.store.writer import RunWriter
from initbench.train.loop import Training
from initbench.train.numerics import matmul_backend, true_fp32
from initbench.train.result import Cost, Outcome
from initbench.train.threads import one_thread, usable_threads


class Observer(Protocol):
    """Receives what a person may want to see while an experiment runs."""

    def planned(self, config: ExperimentConfig, to_train: int, stored: int, steps: int | None) -> None:
        """Of the experiment's runs, `to_train` are going to be trained and `stored` are there already."""

    def advanced(self, step: int, losses: Tensor) -> None:
        """Update number `step` was made."""

    def evaluated(self, seed: int, entry: dict[str, Any]) -> None:
        """A run was evaluated."""

    def ended(self, seed: int, status: str) -> None:
        """A run came to its end."""


@dataclass(frozen=True)
class Execution:
    """Where an experiment's runs are now."""

    config: ExperimentConfig
    resolved: Resolved
    run_ids: tuple[str, ...]
    error: Exception | None = None
    """What stopped the training, when it raised; the runs are marked failed."""


class Recorder:
    """Listens to a training and writes each run to the store as it goes, a result at once."""

    def __init__(
        self,
        config: ExperimentConfig,
        writers: Sequence[RunWriter],
        networks: Sequence[Network],
        observer: Observer,
    ) -> None:
        self._config = config
        self._writers = writers
        self._networks = networks
        self._observer = observer
        self._seeds = [int(writer.record["seed"]) for writer in writers]
        self._snapshots: list[list[dict[str, Any]]] = [[] for _ in writers]

    def evaluated(self, run: int, entry: dict[str, Any]) -> None:
        """Store an evaluation."""
        self._writers[run].append_convergence(entry)
        self._observer.evaluated(self._seeds[run], entry)

    def probed(self, run: int, snapshot: dict[str, Any]) -> None:
        """Store a probe."""
        self._writers[run].append_snapshot(snapshot)
        self._snapshots[run].append(snapshot)

    def ended(self, run: int, outcome: Outcome) -> None:
        """Store the result."""
        found = _result(outcome, self._snapshots[run], self._config, self._networks[run])
        result = {**found, **_cost(outcome.cost), "cohort": len(self._writers)}
        self._writers[run].finish(result, save({**outcome.parameters, **outcome.buffers}))
        self._observer.ended(self._seeds[run], str(result["status"]))

    def advanced(self, step: int, losses: Tensor) -> None:
        """Hand on the progress."""
        self._observer.advanced(step, losses)


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where runs are kept, where data comes from, and what trains."""

    store: Store
    source: Source
    device: torch.device


def run_experiment(
    config: ExperimentConfig, workplace: Workplace, observer: Observer, *, rerun: bool
) -> Execution:
    """Train what is not stored yet, as one cohort, and say where everything is.

    Raises InitbenchError for what the user can mend (data, config, store); any other exception of the
    training is stored with the runs it ended and handed back in `Execution.error`.
    """
    resolved = resolve(config.data, workplace.source)
    identity = identify(config, resolved, workplace.device)
    ids = {seed: identity.run_id(config.name, seed) for seed in config.seed_list}
    status = workplace.store.status
    missing = [seed for seed, run_id in ids.items() if rerun or status(run_id) not in COMPLETE]
    execution = Execution(config, resolved, tuple(ids.values()))
    if not missing:
        observer.planned(config, 0, len(ids), None)
        return execution
    data = prepare(resolved, config.data, workplace.device)
    Batches(len(data.train), config.train.batch_size, missing)  # refuses before anything is claimed
    stacked = training_mode(config) == "vmap"
    for seeds in [missing] if stacked else [[seed] for seed in missing]:
        job = Job(config, identity, data, workplace, tuple(seeds), usable_threads() if stacked else 1)
        try:
            _train(job, observer, stored=len(ids) - len(missing), rerun=rerun)
        except InitbenchError:
            raise
        except Exception as error:
            return replace(execution, error=error)
    return execution


@dataclass(frozen=True)
class Job:
    """One cohort to be trained."""

    config: ExperimentConfig
    identity: Identity
    data: Bundle
    workplace: Workplace
    seeds: tuple[int, ...]
    threads: int


def _train(job: Job, observer: Observer, *, stored: int, rerun: bool) -> None:
    config, device = job.config, job.workplace.device
    with (
        one_thread(),
        true_fp32(torch.device("cpu")),
    ):  # a decomposition is rounded as its threads share it out
        networks = [_network(config, job.data, seed) for seed in job.seeds]
    record = _record(job)
    with ExitStack() as stack:
        writers = []
        for seed in job.seeds:
            run_id, yaml = job.identity.run_id(config.name, seed), to_yaml(config.with_seeds(seed))
            writer = job.workplace.store.claim(run_id, {**record, "seed": seed}, yaml, rerun=rerun)
            writers.append(stack.enter_context(writer))
        recorder = Recorder(config, writers, networks, observer)
        training = Training(
            networks, job.seeds, config, data=job.data, device=device, listener=recorder, threads=job.threads
        )
        observer.planned(config, len(job.seeds), stored, training.steps)
        training.run()


def _network(config: ExperimentConfig, data: Bundle, seed: int) -> Network:
    first = Batches(len(data.train), config.train.batch_size, [seed], data.train.x.device).indices(0)[0]
    return build(
        config.model,
        config.init,
        input_shape=data.input_shape,
        classes=data.classes,
        seed=seed,
        batch=data.train.x[first].cpu(),
    )


def _record(job: Job) -> dict[str, Any]:
    """What is known of a run before it starts."""
    config, identity, data, device = job.config, job.identity, job.data, job.workplace.device
    return {
        "experiment": config.name,
        "arm": identity.arm,
        "identity": {key: value for key, value in identity.parts.items() if key != "config"},
        "config": config.resolved(),
        "dataset": data.name,
        "dataset_requested": data.requested,
        "device": str(device),
        "precision": PRECISION,
        "matmul": matmul_backend(device),
        "threads": job.threads,
        "versions": versions(),
        "machine": machine(device),
        "git": git_state(),
        "samples": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
        "classes": data.classes,
        "parameters": None,
        "steps": None,
        "final": None,
        "diverged": None,
        "diagnosis": None,
        "error": None,
    }


def _cost(cost: Cost) -> dict[str, Any]:
    timings = cost.timings
    return {
        "steps": cost.steps,
        "timings": {**vars(timings), "total": timings.train + timings.evaluate + timings.probe},
        "steps_with_threads": cost.steps_with_threads,
    }


def _result(
    outcome: Outcome, snapshots: Sequence[dict[str, Any]], config: ExperimentConfig, network: Network
) -> dict[str, Any]:
    """What is known of a run once it has ended."""
    lost = None if outcome.diverged is None else (outcome.diverged.step, outcome.diverged.layer)
    first_q = snapshots[0]["layers"][0]["pre"]["q"] if snapshots else 1.0
    found = diagnose(snapshots, situation_of(network, config.model, config.init, first_q), lost)
    return {
        "status": "finished" if outcome.diverged is None else "diverged",
        "final": outcome.final,
        "diverged": None if outcome.diverged is None else vars(outcome.diverged),
        "diagnosis": [finding.as_data() for finding in found],
        "parameters": sum(p.numel() for p in outcome.parameters.values()),
    }
