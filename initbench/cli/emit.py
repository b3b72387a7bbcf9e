"""Write a sweep as an array job of a cluster: `initbench sweep --emit`."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from initbench.cli.emit_options import EmitOptions, option_of
from initbench.cli.options import runs_root
from initbench.cli.sweep_options import parse_duration
from initbench.errors import DataError, UsageError
from initbench.render.text import format_duration, plural
from initbench.store import strict_json

if TYPE_CHECKING:
    from initbench.cluster.array_job import ArrayJob
    from initbench.config.study import Sweep
    from initbench.runner.plan import RunContext
    from initbench.study.run_study import SweepResult

SCHEMA = "initbench.emit/1"
DEFAULT_ARRAY_SIZE = 1000
"""Maximum number of tasks of an array: SLURM's default allows the indexes 0 to 1000."""
DEFAULT_TIME_LIMIT = 3600.0
TASK_SECONDS = 1800.0
"""Time of a task without a time limit, by which the default number of tasks is chosen."""
UNSUITABLE = (
    "dry_run",
    "limit",
    "max_seeds",
    "max_time",
    "no_train",
    "print_config",
    "rerun",
    "retry",
    "shard",
    "until",
)
"""Parameters of `initbench sweep` that the job sets itself, or that a repeated task must not have."""
TRAINING_ONLY = ("executor", "fail_fast", "quiet", "worker_memory", "workers")
"""Parameters of the tasks, which the last job lacks because it trains nothing."""
RESULTS_ONLY = ("fail_if", "fail_on", "fail_unless", "junit_xml", "notes", "report", "strict")
"""Parameters of the last job, which shows and judges the results."""
REPLACED = ("device", "emit", "json_output", "runs_dir", "_plugins", *EmitOptions.__annotations__)
"""Parameters that the job states in another form."""


def check_emit_command(invocation: typer.Context, options: EmitOptions) -> None:
    """Raise UsageError unless the options of a command fit `--emit`, or its absence."""
    kind = invocation.params["emit"]
    options.check(kind)
    if kind is None:
        return
    for name in UNSUITABLE:
        if _is_set(invocation, name):
            advice = "; use --time-limit" if name == "max_time" else ""
            raise UsageError(f"{option_of(name)} cannot be combined with --emit{advice}")
    if "-" in invocation.params["arguments"]:
        raise UsageError("--emit requires a file, not standard input")


def emit_sweep(invocation: typer.Context, sweep: Sweep, context: RunContext, options: EmitOptions) -> None:
    """Write the sweep of a command as a job, and print what was written."""
    from initbench.cluster.array_job import copy_stored_runs, read_job, write_job

    assert options.output is not None
    kind = str(invocation.params["emit"])
    _check_sources(sweep)
    command, contents = _command(invocation), _sweep_contents(invocation)
    record = read_job(options.output, command, contents)
    is_new, stored, estimate = record is None, 0, None
    if record is None:
        workload = _Workload.measure(sweep, context, options)
        shards = workload.choose_shards(options)
        job = _array_job(invocation, sweep.name, contents, command, options, shards)
        texts = _slurm_files(job, options) if kind == "slurm" else _kubernetes_files(job, options)
        record = write_job(options.output, job, texts, {"kind": kind, "tasks": shards, "runs": workload.runs})
        if kind == "slurm" and workload.stored is not None and workload.stored.complete:
            stored = copy_stored_runs(sweep, shards, context, options.output)
        estimate = None if workload.seconds is None else workload.seconds / shards
    if invocation.params["json_output"]:
        facts = {"is_new": is_new, "stored": stored, "seconds_per_task": estimate}
        document = {**record, "schema": SCHEMA, "output": str(options.output), **facts}
        typer.echo(strict_json.dumps(document))
        return
    state = "wrote" if is_new else "already written by the same command:"
    duration = "" if estimate is None else f", about {format_duration(estimate)} each"
    tasks = f"{plural(record['tasks'], 'task')} for {plural(record['runs'], 'run')}{duration}"
    typer.echo(f"{state} {options.output}: {tasks}")
    if stored:
        typer.echo(f"{plural(stored, 'stored run')} copied to the tasks, which do not train them again")
    typer.echo(f"submit it with: {options.output / 'submit.sh'}")


@dataclass(frozen=True)
class _Workload:
    """The runs of a sweep, and the time that they need."""

    runs: int
    most_shards: int
    """Number of parts that are never divided."""
    stored: SweepResult | None
    """The runs that are stored; None if the data are not available on this machine."""
    seconds: float | None
    """Time with the workers of one task; None if it cannot be estimated on this machine."""
    obstacle: str = ""
    """Reason why the time cannot be estimated."""

    @classmethod
    def measure(cls, sweep: Sweep, context: RunContext, options: EmitOptions) -> _Workload:
        """Count the runs, and estimate their time."""
        import torch

        from initbench.runner.pending import RunLimits
        from initbench.study.forecast import forecast_study
        from initbench.study.run_study import load_stored_study
        from initbench.study.sharding import max_shards

        runs = sum(len(config.seed_list) for point in sweep.variants for config in point.configs())
        stored, seconds, obstacle = None, None, ""
        workers = context.workers or options.cpus or 1
        try:
            stored = load_stored_study(sweep, context)
            if context.device.type == "cuda" and not torch.cuda.is_available():
                obstacle = "no CUDA device is visible"
            else:
                timed = replace(context, workers=options.gpus or workers)
                seconds = forecast_study(stored, timed, RunLimits(keep_failed=True)).seconds
        except DataError as error:
            obstacle = str(error)
        return cls(runs, max_shards(sweep), stored, seconds, obstacle)

    def choose_shards(self, options: EmitOptions) -> int:
        """Return the number of tasks: that of the command line, or the one that fits the time of a task."""
        tasks = options.tasks
        if tasks is None:
            if self.seconds is None:
                raise UsageError(
                    f"--emit requires --tasks, because the time cannot be estimated here: {self.obstacle}"
                )
            limit = TASK_SECONDS if options.time_limit is None else _time_limit(options) / 2.0
            tasks = min(math.ceil(self.seconds / limit), options.array_size or DEFAULT_ARRAY_SIZE)
        elif tasks > self.most_shards:
            each = "each trains one run or tuned point"
            typer.echo(f"{plural(self.most_shards, 'task')} instead of {tasks:,}: {each}", err=True)
        if self.seconds is None:
            typer.echo(f"the time is not estimated: {self.obstacle}", err=True)
        return max(1, min(tasks, self.most_shards))


def _command(invocation: typer.Context) -> list[str]:
    """Return the arguments of the command, with the options in the order of the help."""
    return ["sweep", *invocation.params["arguments"], *_passed_options(invocation, {"json_output"})]


def _sweep_contents(invocation: typer.Context) -> str:
    """Return the contents of the job's copy of the sweep."""
    from initbench.config.loading import dump_yaml
    from initbench.config.overrides import split_arguments
    from initbench.study.load import read_standalone_sweep

    files, _ = split_arguments(invocation.params["arguments"])
    contents = read_standalone_sweep(files[0])
    if invocation.params["emit"] == "k8s":
        _check_no_local_files(contents)
    return dump_yaml(contents)


def _array_job(
    invocation: typer.Context,
    name: str,
    contents: str,
    command: Sequence[str],
    options: EmitOptions,
    shards: int,
) -> ArrayJob:
    from initbench.cluster.array_job import ArrayJob
    from initbench.config.overrides import split_arguments
    from initbench.plugins import requested_plugins

    _, overrides = split_arguments(invocation.params["arguments"])
    # Paths of plug-ins are absolute in the environment, which pods do not share.
    is_remote = invocation.params["emit"] == "k8s"
    plugins = (invocation.params["_plugins"] or []) if is_remote else requested_plugins()
    device = options.device(invocation.params["device"])
    shared = [*overrides, *(word for path in plugins for word in ("--plugin", path)), "--device", device]
    cpus = options.cpus or 1
    workers = [] if device == "cuda" or invocation.params["workers"] else ["--workers", str(cpus)]
    skipped = {*UNSUITABLE, *REPLACED}
    return ArrayJob(
        name=name,
        sweep=contents,
        shards=shards,
        train=[*shared, *workers, *_passed_options(invocation, skipped.union(RESULTS_ONLY))],
        judge=[*shared, "--no-train", *_passed_options(invocation, skipped.union(TRAINING_ONLY))],
        runs_dir=str(runs_root(invocation.params["runs_dir"] if _is_set(invocation, "runs_dir") else None)),
        setup=options.setup or [],
        cpus=cpus,
        gpus=options.gpus or 0,
        memory=options.memory,
        max_parallel=options.max_parallel,
        command=command,
    )


def _slurm_files(job: ArrayJob, options: EmitOptions) -> dict[str, str]:
    from initbench.cluster.slurm import SlurmOptions, slurm_files

    assert options.output is not None
    slurm = SlurmOptions(
        directory=options.output.absolute(),
        working_directory=Path.cwd(),
        program=["initbench"] if options.setup else [sys.executable, "-m", "initbench"],
        time_limit=_time_limit(options),
        array_size=options.array_size or DEFAULT_ARRAY_SIZE,
        sbatch=options.sbatch or [],
    )
    return slurm_files(job, slurm)


def _kubernetes_files(job: ArrayJob, options: EmitOptions) -> dict[str, str]:
    from initbench.cluster.kubernetes import KubernetesOptions, kubernetes_files

    assert options.output is not None and options.image is not None and options.volume is not None
    directory = f"{options.output.absolute().name}/runs"
    return kubernetes_files(job, KubernetesOptions(directory, options.image, options.volume))


def _passed_options(invocation: typer.Context, skipped: Collection[str]) -> Iterator[str]:
    """Yield the options of a command that were set, except those of the parameters in `skipped`."""
    from initbench.plugins import requested_loss

    for parameter in invocation.command.params:
        name = str(parameter.name)
        if name == "arguments" or name in skipped or not _is_set(invocation, name):
            continue
        value = requested_loss() if name == "loss_from" else invocation.params[name]  # a name, not the path
        if isinstance(value, bool):
            yield parameter.opts[0] if value else parameter.secondary_opts[0]
            continue
        for each in value if isinstance(value, list | tuple) else [value]:
            yield from (max(parameter.opts, key=len), str(each))


def _is_set(invocation: typer.Context, name: str) -> bool:
    """Return whether the command line sets a parameter, or the environment, which pods do not share."""
    source = invocation.get_parameter_source(name)
    from_environment = source is not None and source.name == "ENVIRONMENT"
    from_command_line = source is not None and source.name == "COMMANDLINE"
    return from_command_line or (from_environment and invocation.params["emit"] == "slurm")


def _time_limit(options: EmitOptions) -> float:
    from initbench.cluster.slurm import MAX_TIME_LIMIT, MIN_TIME_LIMIT

    seconds = parse_duration(options.time_limit, "--time-limit") or DEFAULT_TIME_LIMIT
    if not MIN_TIME_LIMIT <= seconds <= MAX_TIME_LIMIT:
        raise UsageError("--time-limit must be between one minute and 366 days")
    return seconds


def _check_sources(sweep: Sweep) -> None:
    """Raise UsageError if a point starts from the weights of a stored run, which tasks do not have."""
    from initbench.components.inits.pretrained_scheme import TORCHVISION, TransferOptions

    for point in sweep.variants:
        scheme = point.config.init.scheme
        if not isinstance(scheme, TransferOptions) or scheme.is_file:
            continue
        if not scheme.source.startswith(TORCHVISION):
            raise UsageError(
                f"{point.label} starts from the run {scheme.source}, which the tasks of a job do not have;"
                " name its file instead: init.scheme.from=runs/RUN/weights.safetensors"
            )


def _check_no_local_files(value: Any) -> None:
    """Raise UsageError if a config names a file of this machine, which pods do not have."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_no_local_files(inner)
    elif isinstance(value, str) and value.startswith("/") and Path(value).exists():
        raise UsageError(
            f"{value} is a file of this machine, which pods do not have; copy it to the image or the volume,"
            " and write its path there"
        )
