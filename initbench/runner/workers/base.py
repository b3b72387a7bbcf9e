"""Define workers, which receive tasks and return events, in this process or in others.

Tasks and events are plain data that can be pickled, so that they can pass between processes and machines.
Workers do not access the store; only the process of the runner writes to it. An executor is one entry in
`executors/`, which defines how its worker pool is started.
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
    """A cohort in picklable form: config classes are created at run time and cannot be pickled."""

    number: int
    """Identifies the task in its events."""
    runs: tuple[tuple[dict[str, Any], int], ...]
    """Config and seed of each run; runs of one experiment share the config."""
    resolved: ResolvedDataset
    device: str
    mode: Mode
    threads: int
    checkpoint_seconds: float
    resume: tuple[Resumption, ...] = ()
    origins: tuple[WeightSource, ...] = ()

    def job(self) -> Job:
        """Return the job that trains this cohort."""
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
    """A report from a task: the name of a method of `job.EventSink` and its arguments."""

    task: int
    report: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Finished:
    """A task finished; its results were reported before."""

    task: int


@dataclass(frozen=True)
class Failed:
    """A task raised an exception; its worker can take other tasks."""

    task: int
    error: str
    """Type and message of the exception, in one line."""
    traceback: str
    out_of_memory: bool = False
    """Whether fewer runs at a time may fit into memory."""


@dataclass(frozen=True)
class Died:
    """The worker of a task died, and the task is lost."""

    task: int
    reason: str
    out_of_memory: bool = False


Event = Reported | Finished | Failed | Died
Deliver = Callable[[Event], None]


class WorkerPool(Protocol):
    """Workers that stay alive for any number of tasks."""

    threads: int
    """Number of threads that a task may use if the training mode of its cohort allows it."""

    def free_device(self) -> str | None:
        """Return the device of a free worker, or None while all are busy."""

    def submit(self, task: WorkerTask) -> None:
        """Start a task on a free worker of its device."""

    def poll(self, deliver: Deliver, seconds: float) -> None:
        """Wait up to `seconds` for events and deliver them; takes longer if this process trains.

        Exceptions of `deliver` propagate; after one, only `close` may be called.
        """

    def close(self) -> None:
        """Stop all workers, even busy ones; no events are delivered afterwards."""


@dataclass(frozen=True, kw_only=True)
class WorkerPoolOptions:
    """The options of a worker pool."""

    device: torch.device
    workers: int
    """Maximum number of workers."""
    datasets: DatasetCache
    """Cached data sets of this process."""
    memory: float | None = None
    """Memory limit of a worker in bytes; None for no limit."""


@dataclass(frozen=True, kw_only=True)
class Executor(RegistryEntry):
    """A way to train tasks."""

    devices: tuple[str, ...]
    """Supported kinds of device."""
    start: Callable[[WorkerPoolOptions], WorkerPool]


EXECUTORS: Registry[Executor] = Registry("executor", "initbench.runner.workers.executors")
