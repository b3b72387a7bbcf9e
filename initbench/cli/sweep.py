"""`initbench sweep`: train one experiment at many points, and compare and judge the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import typer

from initbench.cli.compare import is_ascii
from initbench.cli.custom_data import DataFrom, use_data
from initbench.cli.custom_model import TrainedModelOption, use_model
from initbench.cli.emit import check_emit_command, emit_sweep
from initbench.cli.emit_options import (
    CpusPerTask,
    Emit,
    EmitOptions,
    GpusPerTask,
    Image,
    JobDirectory,
    MaxArraySize,
    MaxParallel,
    MemoryPerTask,
    SbatchOption,
    Setup,
    Tasks,
    TimeLimit,
    VolumeClaim,
)
from initbench.cli.gate_options import FailIf, FailUnless, JunitXml, Strict, print_verdicts
from initbench.cli.load_configs import with_own_loss
from initbench.cli.options import DataDir, Json, LossFrom, Notes, Plugins, RunsDir, runs_root
from initbench.cli.report_option import ReportFile, check_report_file, write_run_report
from initbench.cli.sweep_options import (
    Arguments,
    DryRun,
    FailFast,
    Limit,
    MaxSeeds,
    MaxTime,
    NoTrain,
    PrintConfig,
    Retry,
    ShardOption,
    SkipInvalid,
    Until,
    parse_duration,
)
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
from initbench.errors import RunFailedError, UsageError
from initbench.render.terminal import stdout_console, stdout_width
from initbench.store import strict_json
from initbench.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from initbench.analysis.gates.evaluate import GateResult
    from initbench.cli.gate_options import GateOptions, GateReport
    from initbench.config.study import Sweep
    from initbench.render.compare.display_options import View
    from initbench.render.sweep_progress import SweepDisplay
    from initbench.report.page import ReportSection
    from initbench.runner.pending import RunLimits
    from initbench.runner.plan import RunContext
    from initbench.runner.runner import Runner
    from initbench.study.run_study import SweepResult
    from initbench.study.stopping_rule import StoppingRule


def sweep(
    invocation: typer.Context,
    arguments: Arguments,
    model: TrainedModelOption = None,
    data_from: DataFrom = None,
    dry_run: DryRun = False,
    print_config: PrintConfig = False,
    until: Until = None,
    max_seeds: MaxSeeds = None,
    limit: Limit = None,
    max_time: MaxTime = None,
    fail_fast: FailFast = False,
    fail_on: FailOn = None,
    fail_if: FailIf = None,
    fail_unless: FailUnless = None,
    strict: Strict = False,
    junit_xml: JunitXml = None,
    report: ReportFile = None,
    retry: Retry = None,
    rerun: Rerun = False,
    no_train: NoTrain = False,
    skip_invalid: SkipInvalid = False,
    shard: ShardOption = None,
    executor: ExecutorName = "auto",
    workers: Workers = None,
    worker_memory: WorkerMemory = None,
    device: DeviceName = "auto",
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    offline: Offline = False,
    notes: Notes = False,
    quiet: Quiet = False,
    loss_from: LossFrom = None,
    _plugins: Plugins = None,
    emit: Emit = None,
    output: JobDirectory = None,
    tasks: Tasks = None,
    max_parallel: MaxParallel = None,
    cpus: CpusPerTask = None,
    gpus: GpusPerTask = None,
    memory: MemoryPerTask = None,
    time_limit: TimeLimit = None,
    array_size: MaxArraySize = None,
    sbatch: SbatchOption = None,
    image: Image = None,
    volume: VolumeClaim = None,
    setup: Setup = None,
    json_output: Json = False,
) -> None:
    """Train the missing runs of a sweep and compare its points.

    A sweep file has axes (docs/config.md); with a plain experiment they come from the command line. The same
    command resumes a stopped sweep. Exit 1 if a run failed or a gate of the sweep is triggered. What --until
    decides is a result and does not change the exit code; with --strict an undecided one exits with 1.
    """
    job = EmitOptions(
        output, tasks, max_parallel, cpus, gpus, memory, time_limit, array_size, sbatch, image, volume, setup
    )
    _check_options(invocation, job)
    worker_options = WorkerOptions(job.device(device), executor, workers, worker_memory)
    trains = not (emit or no_train)
    if trains and not (print_config or dry_run):
        start_workers_early(worker_options)
    arguments = use_data(data_from, use_model(model, with_own_loss(arguments, loss_from)))
    sweep_config = _load_sweep(arguments, shard, skip_invalid=skip_invalid)
    if print_config:
        _print_configs(sweep_config)
        return
    rule = _stopping_rule(sweep_config, until, max_seeds, shard)
    gates = _parse_gates(sweep_config, rule, shard, fail_if, fail_unless, strict, junit_xml, fail_on)
    context = _run_context(runs_dir, worker_options, data_dir, offline, data_from, trains)
    limits = _run_limits(fail_fast, max_time, limit, retry, rerun)
    command = _SweepCommand(sweep_config, context, limits, shard, rule, json_output, notes)
    if emit:
        emit_sweep(invocation, sweep_config, context, job)
    elif dry_run:
        command.plan()
    else:
        command.run(gates, quiet=quiet, fail_on=fail_on, report=report, trains=trains)


@dataclass(frozen=True)
class _SweepCommand:
    """A sweep, or one shard of it, with the options of the command."""

    sweep: Sweep
    context: RunContext
    limits: RunLimits
    shard: str | None
    rule: StoppingRule | None
    json_output: bool
    all_notes: bool

    def plan(self) -> None:
        """Print what is stored and what remains to be trained."""
        from initbench.render.stopping_rule import first_round_line
        from initbench.render.sweep_tables import plan_lines, print_plan, sweep_document
        from initbench.study.forecast import forecast_study
        from initbench.study.run_study import load_stored_study

        result = load_stored_study(self.sweep, self.context)
        outlook = forecast_study(result, self.context, self.limits)
        if self.json_output:
            extra_keys = {"shard": self.shard, "dry_run": True, "outlook": asdict(outlook)}
            typer.echo(strict_json.dumps(sweep_document(result, _view(), extra_keys)))
        else:
            lines = [*plan_lines(result, outlook), *([first_round_line(self.rule)] if self.rule else [])]
            print_plan(stdout_console(), result, lines)

    def run(
        self, gates: GateOptions, *, quiet: bool, fail_on: str | None, report: Path | None, trains: bool
    ) -> None:
        """Train the missing runs if the command trains, then print, judge and report all results."""
        from initbench.render import text
        from initbench.study.run_study import load_stored_study

        if trains:
            result, decision = self._train_and_report(quiet=quiet)
        else:
            result, decision = load_stored_study(self.sweep, self.context), None
        verdicts = self._judge(result, gates, decision)
        self._print_result(result, verdicts, decision)
        failures = _failures(result, fail_on, trains=trains)
        write_run_report(
            report,
            self.context.store,
            result.tables,
            title=f"{self.sweep.name}: {text.plural(len(result.variants), 'point')}",
            verdicts=verdicts,
            failures=failures,
            leading=[] if report is None else self._decision_sections(result, decision),
            trailing=[] if report is None else _tuning_sections(result),
        )
        if failures:
            raise RunFailedError("\n".join(failures))
        exit_with_verdicts(verdicts)

    def _decision_sections(self, result: SweepResult, decision: GateResult | None) -> list[ReportSection]:
        if self.rule is None or decision is None:
            return []
        from initbench.report.views.stopping_rule import decision_section

        return [decision_section(result, self.rule, decision)]

    def _train_and_report(self, *, quiet: bool) -> tuple[SweepResult, GateResult | None]:
        """Train the missing runs, and show the progress on stderr."""
        from initbench.render import text
        from initbench.render.sweep_progress import SweepDisplay
        from initbench.render.sweep_tables import skipped_points
        from initbench.runner.runner import Runner
        from initbench.study.run_study import load_stored_study

        display = SweepDisplay(self.sweep.name, quiet=quiet)
        for line in skipped_points(self.sweep):
            display.say(line)
        stored_result = load_stored_study(self.sweep, self.context)
        runs_to_train = stored_result.count_to_train(self.limits)
        with (
            display.showing(stored_result.total, stored_result.total - runs_to_train),
            Runner(self.context, display, self.limits) as driver,
        ):
            result, decision = self._train(driver, display)
        if (kept_runs := runs_to_train - display.done - result.unfinished) > 0:
            display.say(f"{self.sweep.name}: {text.plural(kept_runs, 'run')} kept")
        return result, decision

    def _train(self, driver: Runner, display: SweepDisplay) -> tuple[SweepResult, GateResult | None]:
        """Train the missing runs, and with a stopping rule more seeds until it is decided."""
        from initbench.render.stopping_rule import round_line
        from initbench.study.run_study import load_stored_study, run_study
        from initbench.study.stopping_rule import run_until_decided

        if self.rule is None:
            return run_study(self.sweep, self.context, driver.run), None

        def report(judgement: GateResult, seeds: int, added: Sweep) -> None:
            display.say(round_line(judgement, seeds, [point.row for point in added.variants]))
            stored = load_stored_study(added, self.context)
            to_train = stored.count_to_train(self.limits)
            display.expect(stored.total, stored.total - to_train)

        return run_until_decided(self.sweep, self.context, driver.run, self.rule, report)

    def _print_result(
        self, result: SweepResult, verdicts: GateReport | None, decision: GateResult | None
    ) -> None:
        from initbench.render.stopping_rule import decision_document, print_decision
        from initbench.render.sweep_tables import print_result, sweep_document

        if self.json_output:
            gate_entries = {} if verdicts is None else verdicts.document()
            extra_keys = {"shard": self.shard, "dry_run": False, **gate_entries}
            if self.rule is not None and decision is not None:
                extra_keys["until"] = decision_document(result, self.rule, decision)
            typer.echo(strict_json.dumps(sweep_document(result, _view(), extra_keys)))
        else:
            print_result(stdout_console(), result, replace(_view(), all_notes=self.all_notes))
            if self.rule is not None and decision is not None:
                print_decision(stdout_console(), result, self.rule, decision)
        if verdicts is not None:
            print_verdicts(verdicts)

    def _judge(
        self, result: SweepResult, options: GateOptions, decision: GateResult | None
    ) -> GateReport | None:
        """Judge the gates of the sweep and of the command line after all runs are stored."""
        from initbench.study.stopping_rule import holds

        obstacles = []
        if decision is not None and holds(decision) is None:
            obstacles.append(f"--until is undecided: {decision.gate.text}")
        runs = TrainedRuns(
            store=self.context.store,
            experiments={point.variant.config.name: point.run_ids for point in result.variants},
            facts=[run for point in result.variants for run in result.runs(point)],
            tables=result.tables,
            rows=[point.label for point in result.variants],
            is_complete=self.shard is None and not result.unfinished,
            obstacles=obstacles,
        )
        return judge_training(options, runs)


def _load_sweep(arguments: Sequence[str], shard: str | None, *, skip_invalid: bool) -> Sweep:
    from initbench.config.overrides import split_arguments
    from initbench.runner.cost_model import training_cost
    from initbench.study.load import load_sweep
    from initbench.study.sharding import Shard, select_shard

    selected_shard = None if shard is None else Shard.parse(shard)
    files, overrides = split_arguments(arguments)
    if len(files) != 1:
        raise UsageError("name one file, as in: initbench sweep configs/sweeps/ci.yaml seeds=8")
    sweep_config = load_sweep(files[0], overrides, skip_invalid=skip_invalid)
    return (
        sweep_config if selected_shard is None else select_shard(sweep_config, selected_shard, training_cost)
    )


def _stopping_rule(
    sweep_config: Sweep, until: str | None, max_seeds: int | None, shard: str | None
) -> StoppingRule | None:
    from initbench.study.stopping_rule import MAX_SEEDS, UNTIL, read_stopping_rule

    if until is None:
        if max_seeds is not None:
            raise UsageError(f"{MAX_SEEDS} needs {UNTIL}; without it, set the number of seeds by seeds=N")
        return None
    if shard is not None:
        raise UsageError(f"{UNTIL} cannot be combined with --shard, which trains only some of the runs")
    return read_stopping_rule(until, sweep_config, max_seeds)


def _parse_gates(
    sweep_config: Sweep,
    rule: StoppingRule | None,
    shard: str | None,
    fail_if: Sequence[str] | None,
    fail_unless: Sequence[str] | None,
    strict: bool,
    junit_xml: Path | None,
    fail_on: str | None,
) -> GateOptions:
    gates = training_gates(
        "sweep",
        fail_if,
        fail_unless,
        strict,
        junit_xml,
        fail_on,
        rows=None if shard else [point.row for point in sweep_config.variants],  # a shard lacks some rows
        from_file=sweep_config.config.gates,
        decides_without_gates=rule is not None,
    )
    return replace(gates, always_valid=rule is not None)


def _run_context(
    runs_dir: Path | None,
    worker_options: WorkerOptions,
    data_dir: Path | None,
    offline: bool,
    data_from: str | None,
    trains: bool,
) -> RunContext:
    store = Store(runs_root(runs_dir))
    return build_run_context(
        store, worker_options, data_dir, offline=offline, data_from=data_from, trains=trains
    )


def _run_limits(
    fail_fast: bool, max_time: str | None, limit: int | None, retry: Sequence[str] | None, rerun: bool
) -> RunLimits:
    from initbench.runner.pending import RunLimits

    return RunLimits(fail_fast, parse_duration(max_time), limit, tuple(retry or ()), rerun, keep_failed=True)


def _check_options(invocation: typer.Context, job: EmitOptions) -> None:
    """Raise UsageError for options that cannot be combined, or for a report that cannot be written."""
    check_emit_command(invocation, job)
    values = invocation.params
    if values["emit"] != "k8s":  # its report is written to the volume
        without_results = {"--print-config": values["print_config"], "--dry-run": values["dry_run"]}
        check_report_file(values["report"], without_results)
    for name in ("print_config", "dry_run", "until", "rerun", "retry"):
        if values["no_train"] and values[name]:
            raise UsageError(f"--no-train cannot be combined with --{name.replace('_', '-')}")


def _print_configs(sweep_config: Sweep) -> None:
    from initbench.config.loading import to_yaml

    typer.echo("---\n".join(to_yaml(point.config) for point in sweep_config.variants), nl=False)


def _view() -> View:
    from initbench.render.compare.display_options import View

    return View(width=stdout_width(), ascii_only=is_ascii())


def _tuning_sections(result: SweepResult) -> list[ReportSection]:
    from initbench.report.views.tuning import tuning_sections

    return tuning_sections([result])


def _failures(result: SweepResult, fail_on: str | None, *, trains: bool) -> list[str]:
    """Return lines on the runs that failed, and on those that diverged if `fail_on` says so.

    For a command that does not train, missing runs are failures too.
    """
    from initbench.render.sweep_tables import failure_lines, missing_runs_lines

    missing = [] if trains else missing_runs_lines(result)
    return [
        *missing,
        *failure_lines(result.failed),
        *divergence_failures(result.statuses.elements(), fail_on),
    ]
