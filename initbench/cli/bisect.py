"""`initbench bisect`: find the keys that make one config train and another one not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from initbench.cli.completion import complete_config
from initbench.cli.custom_data import DataFrom, use_data
from initbench.cli.custom_model import TrainedModelOption, use_model
from initbench.cli.load_configs import load_experiments, with_own_loss
from initbench.cli.options import DataDir, Json, LossFrom, Plugins, RunsDir, runs_root
from initbench.cli.report_option import ReportFile, check_report_file, write_run_report
from initbench.cli.sweep_options import DryRun, FailFast, MaxTime, Retry, parse_duration
from initbench.cli.training_options import (
    DeviceName,
    ExecutorName,
    Offline,
    Quiet,
    Rerun,
    WorkerMemory,
    WorkerOptions,
    Workers,
    build_run_context,
    start_workers_early,
)
from initbench.errors import RunFailedError, UsageError
from initbench.render.terminal import stdout_console
from initbench.store import strict_json
from initbench.store.store import Store

if TYPE_CHECKING:
    from initbench.config.study import Study, SweepConfig
    from initbench.runner.pending import RunLimits
    from initbench.runner.plan import RunContext
    from initbench.study.bisection import Bisection, SearchLimits
    from initbench.study.config_lattice import ConfigLattice

Configs = Annotated[
    list[str],
    typer.Argument(
        metavar="HEALTHY SICK|KEY=VALUE",
        help="A config that trains and one that does not, then overrides for both.",
        autocompletion=complete_config,
        show_default=False,
    ),
]
MetricName = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="Score or loss that tells healthy from sick; test accuracy or R² by default.",
    ),
]
SeedCount = Annotated[
    int | None,
    typer.Option(
        "--seeds", metavar="N", min=2, max=10_000, help="Seeds of every config; those of HEALTHY by default."
    ),
]
MaxRuns = Annotated[
    int | None,
    typer.Option(
        "--max-runs", metavar="N", min=1, help="Stop at N runs of all configs, stored ones included (400)."
    ),
]


def bisect(
    arguments: Configs,
    model: TrainedModelOption = None,
    data_from: DataFrom = None,
    metric: MetricName = None,
    seeds: SeedCount = None,
    max_runs: MaxRuns = None,
    dry_run: DryRun = False,
    max_time: MaxTime = None,
    fail_fast: FailFast = False,
    report: ReportFile = None,
    retry: Retry = None,
    rerun: Rerun = False,
    executor: ExecutorName = "auto",
    workers: Workers = None,
    worker_memory: WorkerMemory = None,
    device: DeviceName = "auto",
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    offline: Offline = False,
    quiet: Quiet = False,
    loss_from: LossFrom = None,
    _plugins: Plugins = None,
    json_output: Json = False,
) -> None:
    """Find the key, or the keys, that make the difference between a config that trains and one that does not.

    Trains configs in between: each key in which the two differ has the value of one or of the other. The same
    command resumes a stopped search. The result does not change the exit code; it is 1 if a run failed.
    """
    worker_options = WorkerOptions(device, executor, workers, worker_memory)
    if not dry_run:
        start_workers_early(worker_options)
    from initbench.runner.pending import RunLimits
    from initbench.study.bisection import DEFAULT_MAX_RUNS, SearchLimits, bisection_metric

    check_report_file(report, {"--dry-run": dry_run})
    seconds = parse_duration(max_time)
    chosen_metric = None if metric is None else bisection_metric(metric)
    arguments = use_data(data_from, use_model(model, with_own_loss(arguments, loss_from)))
    lattice = _load_lattice(arguments, seeds)
    context = build_run_context(
        Store(runs_root(runs_dir)), worker_options, data_dir, offline=offline, data_from=data_from
    )
    limits = RunLimits(fail_fast, seconds, None, tuple(retry or ()), rerun, keep_failed=True)
    if dry_run:
        _print_plan(lattice, context, limits, json_output=json_output)
        return
    search_limits = SearchLimits(chosen_metric, max_runs or DEFAULT_MAX_RUNS)
    bisection = _search(lattice, context, limits, search_limits, quiet=quiet)
    _print_result(bisection, json_output=json_output)
    from initbench.render.bisection import verdict_lines
    from initbench.render.sweep_tables import failure_lines

    failures = failure_lines(bisection.result.failed)
    write_run_report(
        report,
        context.store,
        [bisection.result.table],
        title=f"{lattice.name}: {next(verdict_lines(bisection))}",
        failures=failures,
    )
    if failures:
        raise RunFailedError("\n".join(failures))


def _load_lattice(arguments: Sequence[str], seeds: int | None) -> ConfigLattice:
    from initbench.analysis.stats.paired_samples import MIN_VALUES
    from initbench.study.config_lattice import ConfigLattice

    configs = load_experiments(arguments)
    if len(configs) != 2:
        raise UsageError(
            "name two configs, the healthy one first, as in: initbench bisect configs/relu_kaiming.yaml"
            " configs/relu_misprint.yaml"
        )
    healthy, sick = configs
    seed_list = healthy.seed_list if seeds is None else range(seeds)
    if len(seed_list) < MIN_VALUES:
        raise UsageError(f"{healthy.name} has one seed, which shows no spread: pass --seeds N, such as 5")
    return ConfigLattice(healthy, sick, seed_list)


def _search(
    lattice: ConfigLattice,
    context: RunContext,
    limits: RunLimits,
    search_limits: SearchLimits,
    *,
    quiet: bool,
) -> Bisection:
    from initbench.render.sweep_progress import SweepDisplay
    from initbench.runner.runner import Runner
    from initbench.study.bisection import bisect as search
    from initbench.study.run_study import load_stored_study

    display = SweepDisplay(lattice.name, quiet=quiet)

    def report(added: Study[SweepConfig]) -> None:
        stored = load_stored_study(added, context)
        display.expect(stored.total, stored.total - stored.count_to_train(limits))

    with display.showing(0, 0), Runner(context, display, limits) as driver:
        return search(lattice, context, driver.run, search_limits, report)


def _print_plan(lattice: ConfigLattice, context: RunContext, limits: RunLimits, *, json_output: bool) -> None:
    """Print the configs that are trained in any case, and what is stored of them."""
    from initbench.render.bisection import plan_document, print_bisection_plan
    from initbench.study.bisection import first_points, make_study
    from initbench.study.forecast import forecast_study
    from initbench.study.run_study import load_stored_study

    result = load_stored_study(make_study(lattice, first_points(lattice)), context)
    outlook = forecast_study(result, context, limits)
    if json_output:
        typer.echo(strict_json.dumps({**plan_document(lattice, result), "outlook": asdict(outlook)}))
    else:
        print_bisection_plan(stdout_console(), lattice, result, outlook)


def _print_result(bisection: Bisection, *, json_output: bool) -> None:
    from initbench.render.bisection import bisection_document, print_bisection

    if json_output:
        typer.echo(strict_json.dumps(bisection_document(bisection)))
    else:
        print_bisection(stdout_console(), bisection)
