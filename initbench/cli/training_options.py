"""Options shared by the training commands, and the run context built from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from initbench.cli.completion import complete_executors
from initbench.cli.custom_data import import_data_function
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
        help="Number of worker processes; default: chosen automatically.",
    ),
]
ExecutorName = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="NAME[:ADDRESS]",
        help="Execution backend: auto, inprocess, local, cuda or ray (docs/cluster.md).",
        autocompletion=complete_executors,
    ),
]
WorkerMemory = Annotated[
    float | None,
    typer.Option(
        "--worker-memory", metavar="GB", help="Kill a worker process that exceeds this much memory."
    ),
]
Offline = Annotated[bool, typer.Option("--offline", help="No network access.")]
Rerun = Annotated[bool, typer.Option("--rerun", help="Retrain finished runs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Do not print progress on stderr.")]


@dataclass(frozen=True)
class WorkerOptions:
    """Options of the command line that choose device and workers."""

    device: str
    executor: str
    workers: int | None
    worker_memory: float | None
    """Limit in GB."""


def build_run_context(
    store: Store,
    worker_options: WorkerOptions,
    data_dir: Path | None,
    *,
    offline: bool,
    data_from: str | None = None,
    trains: bool = True,
) -> RunContext:
    """Build the context shared by all configs; its data source remembers data sets that are missing.

    If the command does not train (`trains`), the device need not be available.
    """
    from initbench.data.dataset import DataSource
    from initbench.data.locate import data_root
    from initbench.runner.device import resolve_device
    from initbench.runner.plan import RunContext

    # Never silence the message of a fallback: the results are for other data than requested.
    source = DataSource(
        root=data_root(data_dir),
        offline=offline,
        notify=lambda m: typer.echo(m, err=True),
        function=import_data_function(data_from),
    )
    device = resolve_device(worker_options.device, must_exist=trains)
    executor, address = _executor(worker_options, device.type)
    workers = 1 if device.type == "cuda" and ":" in worker_options.device else worker_options.workers
    if worker_options.worker_memory is not None and (
        not 0.0 < worker_options.worker_memory < math.inf or device.type != "cpu"
    ):
        raise UsageError("--worker-memory must be a positive number of GB and requires workers on the CPU")
    if trains:
        _check_workers(worker_options, device.type)
    return RunContext(
        store=store,
        source=source,
        device=device,
        workers=workers,
        executor=executor,
        executor_address=address,
        worker_bytes=None if worker_options.worker_memory is None else 1e9 * worker_options.worker_memory,
    )


def start_workers_early(worker_options: WorkerOptions) -> None:
    """Start the server that forks worker processes, if the command may need them, before torch is imported.

    The server imports torch at the same time as this process, on another core.
    """
    may_use_workers = worker_options.executor in ("auto", "local") and worker_options.workers != 1
    may_use_gpu = worker_options.device == "auto" and Path("/dev/nvidiactl").exists()
    if may_use_workers and worker_options.device in ("auto", "cpu") and not may_use_gpu:
        from initbench.runner.workers.fork_server import start_fork_server

        start_fork_server()


def _executor(worker_options: WorkerOptions, kind: str) -> tuple[str | None, str | None]:
    """Return the name of the executor, or None for `auto`, and its address, if there is one."""
    from initbench.runner.workers.base import EXECUTORS

    name, colon, address = worker_options.executor.partition(":")
    if name == "auto" and not colon:
        return None, None
    if name == "auto":
        raise UsageError("--executor auto takes no address")
    executor = EXECUTORS[name]
    if colon and not executor.address_forms:
        raise UsageError(f"the executor {executor.name} takes no address; write --executor {executor.name}")
    executor.check(address if colon else None)
    if kind not in executor.devices:
        raise UsageError(
            f"the executor {executor.name} trains on {' or '.join(executor.devices)}, not on {kind}"
        )
    if executor.name == "inprocess" and (worker_options.workers or 1) > 1:
        raise UsageError("the executor inprocess has one process; use --executor local for more")
    if executor.name == "inprocess" and worker_options.worker_memory is not None:
        raise UsageError("--worker-memory requires worker processes; use --executor local")
    return executor.name, address if colon else None


def _check_workers(worker_options: WorkerOptions, kind: str) -> None:
    if kind != "cuda" or worker_options.workers is None:
        return
    import torch

    gpu_count = 1 if ":" in worker_options.device else torch.cuda.device_count()
    if worker_options.workers > gpu_count:
        raise UsageError(f"--workers {worker_options.workers} exceeds the number of GPUs, {gpu_count}")
