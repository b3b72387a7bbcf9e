"""`initbench lesson`: test claims about inits and norms on runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from initbench.cli.batch import exit_with_failures, process_or_skip
from initbench.cli.compare import is_ascii
from initbench.cli.completion import complete_lessons
from initbench.cli.custom_data import DataFrom, use_data
from initbench.cli.custom_model import TrainedModelOption, use_model
from initbench.cli.gate_options import FailIf, FailUnless, JunitXml, Strict, print_verdicts
from initbench.cli.options import DataDir, Json, Notes, Plugins, RunsDir, runs_root
from initbench.cli.report_option import ReportFile, check_report_file, write_run_report
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
from initbench.errors import InitbenchError, StoreError, UsageError
from initbench.render.terminal import stdout_console, stdout_width
from initbench.store import strict_json
from initbench.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from initbench.analysis.run_summary import RunSummary
    from initbench.cli.gate_options import GateReport
    from initbench.config.schema import ExperimentConfig
    from initbench.config.study import Lesson
    from initbench.runner.plan import ExperimentOutcome, RunContext
    from initbench.study.run_study import LessonResult

LIST_COMMAND = "ls"
Arguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ls|NAME|FILE|KEY=VALUE",
        help="ls to list lessons; otherwise names or files of lessons, then overrides for all arms.",
        autocompletion=complete_lessons,
    ),
]
Every = Annotated[bool, typer.Option("--all", help="Run all lessons.")]
DataName = Annotated[
    str | None, typer.Option("--data", metavar="NAME", help="Run all arms on this data set.")
]
FirstSeed = Annotated[
    int | None,
    typer.Option(
        "--first-seed",
        metavar="N",
        min=0,
        max=2**62,
        help="First seed to use (same number of seeds): do the verdicts hold on new seeds?",
    ),
]


def lesson(
    arguments: Arguments = None,
    model: TrainedModelOption = None,
    data_from: DataFrom = None,
    every: Every = False,
    data: DataName = None,
    first_seed: FirstSeed = None,
    fail_on: FailOn = None,
    fail_if: FailIf = None,
    fail_unless: FailUnless = None,
    strict: Strict = False,
    junit_xml: JunitXml = None,
    report: ReportFile = None,
    executor: ExecutorName = "auto",
    workers: Workers = None,
    worker_memory: WorkerMemory = None,
    device: DeviceName = "auto",
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    offline: Offline = False,
    rerun: Rerun = False,
    notes: Notes = False,
    quiet: Quiet = False,
    _plugins: Plugins = None,
    json_output: Json = False,
) -> None:
    """Run the missing experiments of a lesson and report each claim as supported, contradicted or undecided.

    A contradicted claim is a result: the exit code is 0. With --strict an undecided claim exits with 1.
    docs/lessons.md describes all lessons, docs/ci.md the gates.
    """
    worker_options = WorkerOptions(device, executor, workers, worker_memory)
    if arguments or every:
        start_workers_early(worker_options)
    lessons, is_list = _load_lessons(
        use_data(data_from, use_model(model, arguments or [])), data, first_seed, every=every
    )
    check_report_file(report, {LIST_COMMAND: is_list})
    context = build_run_context(
        Store(runs_root(runs_dir)), worker_options, data_dir, offline=offline, data_from=data_from
    )
    if is_list:
        _print_list(lessons, context, json_output=json_output)
        return
    arms = [arm.label for lesson in lessons for arm in lesson.variants]
    gates = training_gates(
        "lesson", fail_if, fail_unless, strict, junit_xml, fail_on, rows=arms, decides_without_gates=True
    )
    results: list[LessonResult] = []
    verdicts: GateReport | None = None
    errors: list[InitbenchError] = []
    try:
        for result in _run_lessons(lessons, context, errors, quiet=quiet, rerun=rerun):
            results.append(result)
            if not json_output:
                _print_result(result, all_notes=notes)
        verdicts = judge_training(gates, _trained_runs(lessons, results, context.store))
        failures = [line for result in results for line in result.failures]
        failures += divergence_failures(
            (run.status for result in results for run in _run_summaries(result)), fail_on
        )
        _write_report(report, results, context.store, verdicts, failures)
    finally:  # print completed lessons even if a later one fails
        if json_output:
            _print_document(results, verdicts)
        elif len(results) > 1:
            _print_totals(results)
    if verdicts is not None:
        print_verdicts(verdicts)
    exit_with_failures(failures, errors)
    exit_with_verdicts(verdicts)


def _load_lessons(
    arguments: Sequence[str], data: str | None, first_seed: int | None, *, every: bool
) -> tuple[list[Lesson], bool]:
    """Load the requested lessons; return them and whether only to list them."""
    from initbench.config.overrides import split_arguments
    from initbench.study.load import bundled_lessons, load_lessons

    names, overrides = split_arguments(arguments)
    overrides += [] if data is None else [f"data.name={data}"]
    is_list = names[:1] == [LIST_COMMAND]
    names = names[1:] if is_list else names
    if every and names:
        raise UsageError("--all cannot be combined with names of lessons")
    if not names and not every and not is_list:
        raise UsageError("name a lesson or pass --all; initbench lesson ls lists them")
    names = names or list(bundled_lessons())
    if not names:
        raise UsageError("no lessons are shipped with this installation; pass lesson files")
    lessons = load_lessons(names, overrides)
    return [lesson if first_seed is None else lesson.from_seed(first_seed) for lesson in lessons], is_list


def _run_lessons(
    lessons: Sequence[Lesson],
    context: RunContext,
    errors: list[InitbenchError],
    *,
    quiet: bool,
    rerun: bool,
) -> Iterator[LessonResult]:
    """Run the lessons one after another with one pool of workers."""
    from initbench.render.progress import LiveProgress
    from initbench.runner.pending import RunLimits
    from initbench.runner.runner import Runner
    from initbench.study.run_study import run_study

    display = LiveProgress(quiet=quiet)

    def train(configs: Sequence[ExperimentConfig]) -> list[ExperimentOutcome]:
        with display.showing():
            return runner.run(configs)

    def run_lesson(lesson: Lesson) -> LessonResult:
        result = run_study(lesson, context, train)
        for run in result.failed:
            if run.status == "damaged":  # claims must not be judged without it
                raise StoreError(str(run.error))
        return result

    with Runner(context, display, RunLimits(rerun=rerun)) as runner:
        yield from process_or_skip(lessons, run_lesson, errors)


def _trained_runs(lessons: Sequence[Lesson], results: Sequence[LessonResult], store: Store) -> TrainedRuns:
    """Return the runs that the gates judge: the arms of all lessons, including skipped ones, as rows."""
    from initbench.study.verdicts import ClaimVerdict

    experiments: dict[str, list[str]] = {arm.config.name: [] for lesson in lessons for arm in lesson.variants}
    for result in results:
        for arm in result.variants:
            experiments[arm.variant.config.name] += [run.run_id for run in result.runs(arm)]
    return TrainedRuns(
        store=store,
        experiments=experiments,
        facts=[run for result in results for run in _run_summaries(result)],
        tables=[result.table for result in results],
        rows=[arm.label for lesson in lessons for arm in lesson.variants],
        is_complete=len(results) == len(lessons),
        obstacles=[
            f"the claim of {result.study.name} is undecided: {claim.claim.says}"
            for result in results
            for claim in result.claims
            if claim.verdict is ClaimVerdict.UNDECIDED
        ],
    )


def _run_summaries(result: LessonResult) -> list[RunSummary]:
    return [run for arm in result.variants for run in result.runs(arm)]


def _write_report(
    path: Path | None,
    results: Sequence[LessonResult],
    store: Store,
    verdicts: GateReport | None,
    failures: Sequence[str],
) -> None:
    """Write the page with the claims first; the arms of several lessons are named after their lessons."""
    if path is None or not results:
        return
    from initbench.analysis.tables import build_single_table
    from initbench.report.views.claims import claim_sections
    from initbench.report.views.tuning import tuning_sections

    tables = [result.table for result in results]
    if len(results) > 1:
        tables = [
            build_single_table(
                {f"{result.study.name}: {arm.label}": result.runs(arm) for arm in result.variants}
            )
            for result in results
        ]
    title = results[0].study.config.question if len(results) == 1 else f"{len(results)} lessons"
    write_run_report(
        path,
        store,
        tables,
        title=title,
        verdicts=verdicts,
        failures=failures,
        leading=claim_sections(results),
        trailing=tuning_sections(results),
    )


def _print_result(result: LessonResult, *, all_notes: bool) -> None:
    from initbench.render.compare.display_options import View
    from initbench.render.lesson_tables import print_lesson

    view = View(width=stdout_width(), ascii_only=is_ascii(), all_notes=all_notes)
    print_lesson(stdout_console(), result, view=view)


def _print_document(results: Sequence[LessonResult], verdicts: GateReport | None) -> None:
    from initbench.render.lesson_tables import lessons_document

    gate_entries = {} if verdicts is None else verdicts.document()
    typer.echo(strict_json.dumps({**lessons_document(results), **gate_entries}))


def _print_totals(results: Sequence[LessonResult]) -> None:
    from initbench.render.lesson_tables import verdict_counts

    claims = [claim for result in results for claim in result.claims]
    typer.echo(f"{len(results)} lessons, {len(claims)} claims: {verdict_counts(claims)}")


def _print_list(lessons: Sequence[Lesson], context: RunContext, *, json_output: bool) -> None:
    from initbench.render.lesson_tables import list_document, print_list
    from initbench.study.run_study import load_stored_study

    results = [load_stored_study(lesson, context, skip_unavailable=True) for lesson in lessons]
    if json_output:
        typer.echo(strict_json.dumps(list_document(results)))
    else:
        print_list(stdout_console(), results)
