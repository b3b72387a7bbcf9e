"""What trains: workers that take tasks and give events, wherever they are.

A task and an event are plain data that can be pickled, so that they pass between processes and machines.
Nothing here, and nothing that trains, knows of the store: the driver alone writes it. An executor is one
entry in `executors/`: how its crew is started.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from initbench.config.schema import ExperimentConfig
from initbench.data.locate import ResolvedDataset
from initbench.models.network import Mode
from initbench.pretrain.weight_sources import WeightSource
from initbench.registry import Registry, RegistryEntry
from initbench.runner.dataset_cache import DatasetCache
from initbench.runner.workers.job import Job
from initbench.store.checkpoint_files import Resumption


@dataclass(frozen=True, kw_only=True)
class WorkerTask:
    """A cohort as it travels: the classes of a config are made at run time and cannot be pickled."""

    number: int
    """Tells the events of one task from those of another."""
    runs: tuple[tuple[dict[str, Any], int], ...]
    """The config and the seed of each; runs of one experiment share the config."""
    resolved: ResolvedDataset
    device: str
    mode: Mode
    threads: int
    checkpoint_seconds: float
    resume: tuple[Resumption, ...] = ()
    origins: tuple[WeightSource, ...] = ()

    def job(self) -> Job:
        """The cohort on the side that trains."""
        configs: dict[int, ExperimentConfig] = {}
        for config, _ in self.runs:
            if id(config) not in configs:
                configs[id(config)] = ExperimentConfig.model_validate(config)
        return Job(
            configs=tuple(configs[id(config)] for config, _ in self.runs),
            seeds=tuple(seed for _, seed in self.runs),
            device=torch.device(self.device),
            mode=self.mode,
            threads=self.threads,
            checkpoint_seconds=self.checkpoint_seconds,
            resume=self.resume,
            origins=self.origins,
        )


@dataclass(frozen=True)
class Reported:
    """Something was seen in a task: the name of a method of `job.Sink`, and what it is called with."""

    task: int
    report: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Finished:
    """A task came to its end; the results were reported before."""

    task: int


@dataclass(frozen=True)
class Failed:
    """A task raised an exception; whoever trained it takes others."""

    task: int
    error: str
    """The exception's type and message, in a line."""
    traceback: str
    out_of_memory: bool = False
    """Whether fewer runs at a time may fit."""


@dataclass(frozen=True)
class Died:
    """Whoever trained a task is gone, and the task with it."""

    task: int
    reason: str
    out_of_memory: bool = False


Event = Reported | Finished | Failed | Died
Deliver = Callable[[Event], None]


class WorkerPool(Protocol):
    """Workers that stay for as many tasks as there are."""

    threads: int
    """How many a task may use where its cohort's arithmetic allows it."""

    def free_device(self) -> str | None:
        """The device of a worker that is free, or None while all are busy."""

    def submit(self, task: WorkerTask) -> None:
        """Begin a task on a free worker of the task's device."""

    def poll(self, deliver: Deliver, seconds: float) -> None:
        """Hand on what happened, once something has or that time is over; may take longer where it trains.

        What `deliver` raises comes out of here, and the crew is then good for nothing but `close`.
        """

    def close(self) -> None:
        """End all workers, whatever they do; no event comes after it."""


@dataclass(frozen=True, kw_only=True)
class WorkerPoolOptions:
    """What a crew is started under."""

    device: torch.device
    workers: int
    """At the most."""
    datasets: DatasetCache
    """Those of this process."""
    memory: float | None = None
    """Bytes that a worker may take; None for as many as there are."""


@dataclass(frozen=True, kw_only=True)
class Executor(RegistryEntry):
    """One way to have tasks trained."""

    devices: tuple[str, ...]
    """Kinds of device it trains on."""
    start: Callable[[WorkerPoolOptions], WorkerPool]


EXECUTORS: Registry[Executor] = Registry("executor", "initbench.runner.workers.executors")
