"""`initbench run`: train experiments and explain the results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from initbench.analysis.load_runs import load_run_summaries
from initbench.cli.batch import exit_with_failures, process_or_skip
from initbench.cli.custom_data import DataFrom, use_data
from initbench.cli.custom_model import TrainedModelOption, use_model
from initbench.cli.gate_options import FailIf, FailUnless, JunitXml, Strict, print_verdicts
from initbench.cli.load_configs import load_experiments
from initbench.cli.options import AllLayers, ConfigArguments, DataDir, Json, Plugins, RunsDir, runs_root
from initbench.cli.report_option import ReportFile, check_report_file, write_run_report
from initbench.cli.sweep_options import MaxTime, parse_duration
from initbench.cli.training_gates import (
    FailOn,
    TrainedRuns,
    divergence_failures,
    exit_with_verdicts,
    judge_training,
    training_gates,
)
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
from initbench.errors import InitbenchError
from initbench.render.terminal import stdout_console
from initbench.render.text import plural
from initbench.store.store import Store

if TYPE_CHECKING:
    from initbench.cli.gate_options import GateReport
    from initbench.config.schema import ExperimentConfig
    from initbench.runner.pending import RunLimits
    from initbench.runner.plan import ExperimentOutcome, RunContext
    from initbench.store.store import StoredRun


def run(
    arguments: ConfigArguments,
    model: TrainedModelOption = None,
    data_from: DataFrom = None,
    device: DeviceName = "auto",
    executor: ExecutorName = "auto",
    workers: Workers = None,
    worker_memory: WorkerMemory = None,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    offline: Offline = False,
    max_time: MaxTime = None,
    fail_on: FailOn = None,
    fail_if: FailIf = None,
    fail_unless: FailUnless = None,
    strict: Strict = False,
    junit_xml: JunitXml = None,
    report: ReportFile = None,
    rerun: Rerun = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved config and stop.")
    ] = False,
    all_layers: AllLayers = False,
    quiet: Quiet = False,
    _plugins: Plugins = None,
    json_output: Json = False,
) -> None:
    """Train experiments with all their seeds, store every run, and explain the results.

    Finished runs are shown, not trained again. If several experiments are given, those that cannot run are
    reported and skipped. Exit 1 if a run failed or a gate is triggered (docs/ci.md).
    """
    worker_options = WorkerOptions(device, executor, workers, worker_memory)
    if not print_config:
        start_workers_early(worker_options)
    from initbench.runner.pending import RunLimits

    check_report_file(report, {"--print-config": print_config})
    limits = RunLimits(max_seconds=parse_duration(max_time), rerun=rerun)
    configs = load_experiments(use_data(data_from, use_model(model, arguments)))
    if print_config:
        _print_configs(configs)
        return

    names = [config.name for config in configs]
    gates = training_gates("run", fail_if, fail_unless, strict, junit_xml, fail_on, rows=names)
    context = build_run_context(
        Store(runs_root(runs_dir)), worker_options, data_dir, offline=offline, data_from=data_from
    )
    outcomes: list[ExperimentOutcome] = []
    errors: list[InitbenchError] = []
    stored_runs: list[StoredRun] = []
    verdicts: GateReport | None = None
    try:
        for outcome in _run_experiments(configs, context, errors, limits, quiet=quiet):
            outcomes.append(outcome)
            runs = _stored_runs(context.store, outcome)
            stored_runs += runs
            if not json_output:
                _print_runs(runs, all_layers=all_layers)
        trained = _trained_runs(configs, outcomes, context.store)
        verdicts = judge_training(gates, trained)
        failures = [
            f"{outcome.config.name} failed: {error}" for outcome in outcomes for error in outcome.errors
        ]
        failures += divergence_failures([run.record["status"] for run in stored_runs], fail_on)
        write_run_report(report, context.store, trained.tables, verdicts=verdicts, failures=failures)
    finally:  # print finished runs even after a signal
        if json_output and (outcomes or len(configs) > 1):
            _print_document(stored_runs, verdicts)
    if verdicts is not None:
        print_verdicts(verdicts)
    if limits.max_seconds is not None and (waiting := _count_waiting(outcomes, context.store)):
        _report_waiting(waiting)
    exit_with_failures(failures, errors)
    exit_with_verdicts(verdicts)


def _run_experiments(
    configs: list[ExperimentConfig],
    context: RunContext,
    errors: list[InitbenchError],
    limits: RunLimits,
    *,
    quiet: bool,
) -> Iterator[ExperimentOutcome]:
    """Run the experiments one after another with one pool of workers."""
    from initbench.render.progress import LiveProgress
    from initbench.runner.runner import Runner

    display = LiveProgress(quiet=quiet)

    def execute(config: ExperimentConfig) -> ExperimentOutcome:
        with display.showing():
            (outcome,) = driver.run([config])
        return outcome

    with Runner(context, display, limits) as driver:
        yield from process_or_skip(configs, execute, errors)


def _trained_runs(
    configs: Sequence[ExperimentConfig], outcomes: Sequence[ExperimentOutcome], store: Store
) -> TrainedRuns:
    """Return the runs that the gates judge: those of all experiments, including skipped ones."""
    from initbench.analysis.tables import build_tables

    experiments: dict[str, list[str]] = {config.name: [] for config in configs}
    for outcome in outcomes:
        experiments[outcome.config.name] += outcome.run_ids
    stored = [run_id for run_ids in experiments.values() for run_id in run_ids if store.status(run_id)]
    facts = load_run_summaries(store, stored) if stored else []
    return TrainedRuns(
        store=store,
        experiments=experiments,
        facts=facts,
        tables=build_tables([run for run in facts if run.is_placed]),
        rows=list(experiments),
        is_complete=len(outcomes) == len(configs) and not _count_waiting(outcomes, store),
    )


def _count_waiting(outcomes: Sequence[ExperimentOutcome], store: Store) -> int:
    """Return the number of runs that remain for the next call after --max-time."""
    from initbench.runner.pending import RunLimits

    return sum(
        len(outcome.config.seed_list)
        - sum(not RunLimits(keep_failed=True).will_run(store.status(run_id)) for run_id in outcome.run_ids)
        for outcome in outcomes
    )


def _report_waiting(waiting: int) -> None:
    """Report the remaining runs, also with --quiet, since the tables lack them."""
    typer.echo(
        f"initbench: time is up: {plural(waiting, 'run')} left; run the same command to resume", err=True
    )


def _stored_runs(store: Store, outcome: ExperimentOutcome) -> list[StoredRun]:
    return [store.read(run_id) for run_id in outcome.run_ids if store.status(run_id)]


def _print_configs(configs: list[ExperimentConfig]) -> None:
    from initbench.config.loading import to_yaml

    typer.echo("---\n".join(to_yaml(config) for config in configs), nl=False)


def _print_runs(runs: list[StoredRun], *, all_layers: bool) -> None:
    from initbench.render.run_tables import print_experiment

    if runs:
        print_experiment(stdout_console(), runs, all_layers=all_layers)


def _print_document(runs: Sequence[StoredRun], verdicts: GateReport | None) -> None:
    from initbench.render.run_documents import runs_json

    typer.echo(runs_json(runs, {} if verdicts is None else verdicts.document()))
