"""`initbench sweep`: one experiment at many points, trained, compared and judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import typer

from initbench.cli.gate_options import FailIf, FailUnless, JunitXml, Strict
from initbench.cli.options import DataDir, Json, Notes, RunsDir, runs_root
from initbench.cli.sweep_options import (
    Arguments,
    DryRun,
    FailFast,
    Limit,
    MaxTime,
    PrintConfig,
    Retry,
    ShardOption,
    SkipInvalid,
    seconds_of,
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
)
from initbench.errors import RunFailedError, UsageError

if TYPE_CHECKING:
    from initbench.cli.gate_options import GateOptions, GateReport
    from initbench.config.sweep_schema import Sweep
    from initbench.render.compare.display_options import View
    from initbench.runner.pending import RunLimits
    from initbench.runner.plan import RunContext
    from initbench.study.run_sweep import SweepResult


def sweep(
    arguments: Arguments,
    dry_run: DryRun = False,
    print_config: PrintConfig = False,
    limit: Limit = None,
    max_time: MaxTime = None,
    fail_fast: FailFast = False,
    fail_on: FailOn = None,
    fail_if: FailIf = None,
    fail_unless: FailUnless = None,
    strict: Strict = False,
    junit_xml: JunitXml = None,
    retry: Retry = None,
    rerun: Rerun = False,
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
    json_output: Json = False,
) -> None:
    """Train what a sweep lacks, each run once, and compare its points.

    A sweep file has axes (docs/config.md); with a plain experiment they come from the command line. The same
    command goes on where it was stopped. Exit 1 if a run failed or a gate of the sweep is triggered.
    """
    from initbench.runner.pending import RunLimits
    from initbench.store.store import Store

    seconds = seconds_of(max_time)
    found = _sweep(arguments, shard, skip_invalid=skip_invalid)
    if print_config:
        _print_configs(found)
        return
    gates = training_gates(
        "sweep",
        fail_if,
        fail_unless,
        strict,
        junit_xml,
        fail_on,
        rows=None if shard else [point.label for point in found.points],  # of a part, not all are known
        from_file=found.gates,
    )
    crew = WorkerOptions(device, executor, workers, worker_memory)
    workplace = build_run_context(Store(runs_root(runs_dir)), crew, data_dir, offline=offline)
    budget = RunLimits(fail_fast, seconds, limit, tuple(retry or ()), rerun, keep_failed=True)
    asked = _SweepCommand(found, workplace, budget, shard, json_output, notes)
    if dry_run:
        asked.plan()
    else:
        asked.run(gates, quiet=quiet, fail_on=fail_on)


@dataclass(frozen=True)
class _SweepCommand:
    """A sweep, or the part of it that is this machine's, and how it is to be run."""

    sweep: Sweep
    workplace: RunContext
    budget: RunLimits
    shard: str | None
    json_output: bool
    all_notes: bool

    def plan(self) -> None:
        """Say what there is to do."""
        from initbench.render.sweep_document import sweep_document
        from initbench.render.sweep_tables import plan_lines, print_plan
        from initbench.render.terminal import stdout_console
        from initbench.store import strict_json
        from initbench.study.forecast import forecast
        from initbench.study.run_sweep import load_stored_sweep

        found = load_stored_sweep(self.sweep, self.workplace)
        ahead = forecast(found, self.workplace, self.budget)
        if self.json_output:
            more = {"shard": self.shard, "dry_run": True, "outlook": asdict(ahead)}
            typer.echo(strict_json.dumps(sweep_document(found, _view(), more)))
        else:
            print_plan(stdout_console(), found, list(plan_lines(found, ahead)))

    def run(self, gates: GateOptions, *, quiet: bool, fail_on: str | None) -> None:
        """Train what is missing, then show and judge everything."""
        from initbench.render import text
        from initbench.render.sweep_progress import SweepDisplay
        from initbench.render.sweep_tables import skipped_points
        from initbench.runner.runner import Runner
        from initbench.study.run_sweep import load_stored_sweep, run_sweep

        display = SweepDisplay(self.sweep.name, quiet=quiet)
        for line in skipped_points(self.sweep):
            display.say(line)
        before = load_stored_sweep(self.sweep, self.workplace)
        ahead = before.ahead(self.budget)
        with (
            display.showing(before.total, before.total - ahead),
            Runner(self.workplace, display, self.budget) as driver,
        ):
            found = run_sweep(self.sweep, self.workplace, driver.run)
        if (kept := ahead - display.done - found.unfinished) > 0:
            display.say(f"{self.sweep.name}: {text.plural(kept, 'run')} not trained anew")
        verdicts = self._verdicts(found, gates)
        self._show(found, verdicts)
        _fail(found, verdicts, fail_on)

    def _show(self, found: SweepResult, verdicts: GateReport | None) -> None:
        from initbench.cli.gate_options import print_verdicts
        from initbench.render.sweep_document import sweep_document
        from initbench.render.sweep_tables import print_result
        from initbench.render.terminal import stdout_console
        from initbench.store import strict_json

        if self.json_output:
            judged = {} if verdicts is None else verdicts.document()
            more = {"shard": self.shard, "dry_run": False, **judged}
            typer.echo(strict_json.dumps(sweep_document(found, _view(), more)))
        else:
            print_result(stdout_console(), found, replace(_view(), all_notes=self.all_notes))
        if verdicts is not None:
            print_verdicts(verdicts)

    def _verdicts(self, found: SweepResult, options: GateOptions) -> GateReport | None:
        """The gates of the sweep and of the command line, judged once all runs are stored."""
        run_ids = [run for point in found.points for run in point.run_ids if run in found.facts]
        runs = TrainedRuns(
            store=self.workplace.store,
            experiments={point.point.config.name: point.run_ids for point in found.points},
            facts=[found.facts[run_id] for run_id in run_ids],
            tables=found.tables,
            rows=[point.label for point in found.points],
            is_complete=self.shard is None and not found.unfinished,
        )
        return judge_training(options, runs)


def _sweep(arguments: Sequence[str], shard: str | None, *, skip_invalid: bool) -> Sweep:
    from initbench.config.overrides import split_arguments
    from initbench.runner.cost_model import training_cost
    from initbench.study.load_sweep import load_sweep
    from initbench.study.sharding import Shard, select_shard

    which = None if shard is None else Shard.parse(shard)
    files, overrides = split_arguments(arguments)
    if len(files) != 1:
        raise UsageError("name one file, as in: initbench sweep configs/sweeps/ci.yaml seeds=8")
    found = load_sweep(files[0], overrides, skip_invalid=skip_invalid)
    return found if which is None else select_shard(found, which, training_cost)


def _print_configs(found: Sweep) -> None:
    from initbench.config.loading import to_yaml

    typer.echo("---\n".join(to_yaml(point.config) for point in found.points), nl=False)


def _view() -> View:
    from initbench.cli.compare import is_ascii
    from initbench.render.compare.display_options import View
    from initbench.render.terminal import stdout_width

    return View(width=stdout_width(), ascii_only=is_ascii())


def _fail(found: SweepResult, verdicts: GateReport | None, fail_on: str | None) -> None:
    """End with what went wrong, if anything did."""
    from initbench.render.sweep_tables import failure_lines

    lines = failure_lines(found.failed)
    lines += divergence_failures(found.statuses.elements(), fail_on)
    if lines:
        raise RunFailedError("\n".join(lines))
    exit_with_verdicts(verdicts)
