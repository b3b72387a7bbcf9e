"""Where commands that train do so: the options they share, and what becomes of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from initbench.errors import UsageError

if TYPE_CHECKING:
    from initbench.runner.plan import RunContext
    from initbench.store.store import Store

MAX_WORKERS = 1024
DeviceName = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:n.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        max=MAX_WORKERS,
        help="Processes that train; default: as many as pay.",
    ),
]
ExecutorName = Annotated[
    str, typer.Option("--executor", metavar="NAME", help="What trains: auto, inprocess, local or cuda.")
]
WorkerMemory = Annotated[
    float | None,
    typer.Option("--worker-memory", metavar="GB", help="End a worker process that takes more memory."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never touch the network.")]
Rerun = Annotated[bool, typer.Option("--rerun", help="Train again what is finished.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


@dataclass(frozen=True)
class WorkerOptions:
    """What trains, as the command line says it."""

    device: str
    executor: str
    workers: int | None
    worker_memory: float | None
    """In GB."""


def build_run_context(
    store: Store, worker_options: WorkerOptions, data_dir: Path | None, *, offline: bool
) -> RunContext:
    """One for all configs: what its source has looked for in vain is not looked for again."""
    from initbench.data.dataset import DataSource
    from initbench.data.locate import data_root
    from initbench.runner.device import resolve_device
    from initbench.runner.plan import RunContext

    # What a fallback says is never silenced: the numbers are not those that were asked for.
    source = DataSource(root=data_root(data_dir), offline=offline, notify=lambda m: typer.echo(m, err=True))
    device = resolve_device(worker_options.device)
    executor = None if worker_options.executor == "auto" else _executor(worker_options, device.type)
    workers = 1 if device.type == "cuda" and ":" in worker_options.device else worker_options.workers
    if worker_options.worker_memory is not None and (
        not 0.0 < worker_options.worker_memory < math.inf or device.type != "cpu"
    ):
        raise UsageError("--worker-memory takes a number of GB above 0, and is for workers on the CPU")
    _check_workers(worker_options, device.type)
    return RunContext(
        store=store,
        source=source,
        device=device,
        workers=workers,
        executor=executor,
        worker_bytes=None if worker_options.worker_memory is None else 1e9 * worker_options.worker_memory,
    )


def _executor(worker_options: WorkerOptions, kind: str) -> str:
    from initbench.runner.workers.base import EXECUTORS

    executor = EXECUTORS[worker_options.executor]
    if kind not in executor.devices:
        raise UsageError(
            f"the executor {executor.name} trains on {' or '.join(executor.devices)}, not on {kind}"
        )
    if executor.name == "inprocess" and (worker_options.workers or 1) > 1:
        raise UsageError("the executor inprocess is one process; use --executor local for more")
    if executor.name == "inprocess" and worker_options.worker_memory is not None:
        raise UsageError("--worker-memory is for worker processes: use --executor local with it")
    return executor.name


def _check_workers(worker_options: WorkerOptions, kind: str) -> None:
    if kind != "cuda" or worker_options.workers is None:
        return
    import torch

    gpu_count = 1 if ":" in worker_options.device else torch.cuda.device_count()
    if worker_options.workers > gpu_count:
        raise UsageError(
            f"--workers {worker_options.workers} is more than there are GPUs, {gpu_count}: each trains in one"
        )
