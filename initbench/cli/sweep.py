"""`initbench sweep`: one experiment at many points, trained, compared and judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import typer

from initbench.cli.gates import FailIf, FailUnless, JunitXml
from initbench.cli.options import DataDir, Json, RunsDir, runs_root
from initbench.cli.sweep_options import (
    Arguments,
    DryRun,
    FailFast,
    FailOn,
    Limit,
    MaxTime,
    PrintConfig,
    Retry,
    ShardOption,
    SkipInvalid,
    Strict,
    seconds_of,
)
from initbench.cli.workplace import (
    CrewOptions,
    DeviceName,
    ExecutorName,
    Offline,
    Quiet,
    Rerun,
    WorkerMemory,
    Workers,
    workplace_of,
)
from initbench.errors import RunFailedError, UsageError

if TYPE_CHECKING:
    from initbench.cli.gates import GateOptions, Verdicts
    from initbench.compare.gates.judge import Judgement
    from initbench.config.sweep import Sweep
    from initbench.execute.experiment import Workplace
    from initbench.execute.undertaking import Budget
    from initbench.report.comparison.view import View
    from initbench.sweep.conduct import Conducted


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
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Train what a sweep lacks, each run once, and compare its points.

    A sweep file has axes (docs/config.md); with a plain experiment they come from the command line. The same
    command goes on where it was stopped. Exit 1 if a run failed or a gate of the sweep is triggered.
    """
    from initbench.execute.undertaking import Budget
    from initbench.store.store import Store

    seconds = seconds_of(max_time)
    found = _sweep(arguments, shard, skip_invalid=skip_invalid)
    if print_config:
        _print_configs(found)
        return
    from initbench.cli.gates import gate_options

    if shard is None:  # of a part, the other points are not known
        _check_gates([*(fail_if or []), *(fail_unless or [])], found)
    gates = gate_options([*found.gates, *(fail_if or [])], strict, None, junit_xml, fail_unless=fail_unless)
    crew = CrewOptions(device, executor, workers, worker_memory)
    workplace = workplace_of(Store(runs_root(runs_dir)), crew, data_dir, offline=offline)
    budget = Budget(fail_fast, seconds, limit, tuple(retry or ()), rerun, leave_failed=True)
    asked = _Asked(found, workplace, budget, shard, json_output)
    if dry_run:
        asked.plan()
    else:
        asked.run(replace(gates, judges_otherwise=fail_on is not None), quiet=quiet, fail_on=fail_on)


@dataclass(frozen=True)
class _Asked:
    """A sweep, or the part of it that is this machine's, and how it is to be run."""

    sweep: Sweep
    workplace: Workplace
    budget: Budget
    shard: str | None
    json_output: bool

    def plan(self) -> None:
        """Say what there is to do."""
        from initbench.report.sweep_document import sweep_document
        from initbench.report.sweep_tables import plan_lines, print_plan
        from initbench.report.terminal import stdout_console
        from initbench.store import strictjson
        from initbench.sweep.conduct import stored
        from initbench.sweep.estimate import outlook

        found = stored(self.sweep, self.workplace)
        ahead = outlook(found, self.workplace, self.budget)
        if self.json_output:
            more = {"shard": self.shard, "dry_run": True, "outlook": asdict(ahead)}
            typer.echo(strictjson.dumps(sweep_document(found, _view(), more)))
        else:
            print_plan(stdout_console(), found, list(plan_lines(found, ahead)))

    def run(self, gates: GateOptions, *, quiet: bool, fail_on: str | None) -> None:
        """Train what is missing, then show and judge everything."""
        from initbench.execute.drive import Driver
        from initbench.report import text
        from initbench.report.sweep_progress import SweepDisplay
        from initbench.report.sweep_tables import left_out
        from initbench.sweep.conduct import conduct, stored

        display = SweepDisplay(self.sweep.name, quiet=quiet)
        for line in left_out(self.sweep):
            display.say(line)
        before = stored(self.sweep, self.workplace)
        ahead = before.ahead(self.budget)
        with (
            display.showing(before.total, before.total - ahead),
            Driver(self.workplace, display, self.budget) as driver,
        ):
            found = conduct(self.sweep, self.workplace, driver.drive)
        if (kept := ahead - display.done - found.unfinished) > 0:
            display.say(f"{self.sweep.name}: {text.plural(kept, 'run')} not trained anew")
        verdicts = self._verdicts(found, gates)
        self._show(found, verdicts)
        _fail(found, verdicts, fail_on)

    def _show(self, found: Conducted, verdicts: Verdicts | None) -> None:
        from initbench.cli.gates import print_verdicts
        from initbench.report.sweep_document import sweep_document
        from initbench.report.sweep_tables import print_result
        from initbench.report.terminal import stdout_console
        from initbench.store import strictjson

        if self.json_output:
            judged = {} if verdicts is None else verdicts.document()
            more = {"shard": self.shard, "dry_run": False, **judged}
            typer.echo(strictjson.dumps(sweep_document(found, _view(), more)))
        else:
            print_result(stdout_console(), found, _view())
        if verdicts is not None:
            print_verdicts(verdicts)

    def _verdicts(self, found: Conducted, options: GateOptions) -> Verdicts | None:
        """The gates of the sweep and of the command line, judged once all runs are stored."""
        from initbench.cli.gates import check_gates
        from initbench.compare.select import ReadSelection

        if not (options.gates or options.junit_xml or options.strict):
            return None
        not_judged = self._not_judged(found, options)
        waiting = [judgement.gate for judgement in not_judged]
        ready = replace(options, gates=[gate for gate in options.gates if gate not in waiting])
        run_ids = [run for point in found.points for run in point.run_ids if run in found.facts]
        facts = [found.facts[run_id] for run_id in run_ids]
        chosen = ReadSelection(self.workplace.store, run_ids, facts=facts)
        return check_gates(ready, chosen, found.tables, not_judged)

    def _not_judged(self, found: Conducted, options: GateOptions) -> list[Judgement]:
        """The gates that have to wait for runs, or name points that are left out, with that reason."""
        from initbench.compare.gates.judge import Judgement

        labels = {point.label for point in found.points}
        if self.shard is not None or found.unfinished:
            return [Judgement(gate, [], ["runs are missing here"]) for gate in options.gates]
        return [
            Judgement(gate, [], ["it names points that are left out"])
            for gate in options.gates
            if not {q.row.name for q in gate.quantities if q.row.name is not None} <= labels
        ]


def _sweep(arguments: Sequence[str], shard: str | None, *, skip_invalid: bool) -> Sweep:
    from initbench.config.overrides import split_arguments
    from initbench.execute.cost import cost
    from initbench.sweep.read import load_sweep
    from initbench.sweep.shard import Shard, part

    which = None if shard is None else Shard.parse(shard)
    files, overrides = split_arguments(arguments)
    if len(files) != 1:
        raise UsageError("name one file, as in: initbench sweep configs/sweeps/ci.yaml seeds=8")
    found = load_sweep(files[0], overrides, skip_invalid=skip_invalid)
    return found if which is None else part(found, which, cost)


def _check_gates(texts: Sequence[str], sweep: Sweep) -> None:
    """Raise UsageError, before anything is trained, for a gate of the command line that cannot be judged."""
    from initbench.sweep.check import gate_problems

    labels = [point.label for point in sweep.points]
    for text in texts:
        for problem in gate_problems(text, labels):
            raise UsageError(f"{problem}\n  {text}")


def _print_configs(found: Sweep) -> None:
    from initbench.config.load import to_yaml

    typer.echo("---\n".join(to_yaml(point.config) for point in found.points), nl=False)


def _view() -> View:
    from initbench.cli.compare import is_ascii
    from initbench.report.comparison.view import View
    from initbench.report.terminal import stdout_width

    return View(width=stdout_width(), ascii_only=is_ascii())


def _fail(found: Conducted, verdicts: Verdicts | None, fail_on: str | None) -> None:
    """End with what went wrong, if anything did."""
    from initbench.report.sweep_tables import failure_lines

    lines = failure_lines(found.failed)
    if fail_on == "diverged" and (diverged := found.statuses["diverged"]):
        lines.append(f"{diverged} of the runs diverged")
    if lines:
        raise RunFailedError("\n".join(lines))
    if verdicts is not None and verdicts.exit_code:
        raise typer.Exit(verdicts.exit_code)
