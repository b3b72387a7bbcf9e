"""Gate options of the command line: `--fail-if`, `--against`, `--junit-xml`, and output for GitHub Actions.

With `--strict`, everything that could not be evaluated fails the command.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from initbench.analysis.completeness import missing_seeds, unfinished_runs
from initbench.analysis.damaged_runs import damage_messages
from initbench.analysis.load_runs import load_run_summaries
from initbench.errors import StoreError
from initbench.render.text import one_line
from initbench.store.misplaced import describe_misplaced, find_misplaced

if TYPE_CHECKING:
    from initbench.analysis.gates.evaluate import Gate, GateResult
    from initbench.analysis.regression.changes import Changes
    from initbench.analysis.regression.reference import Reference
    from initbench.analysis.run_summary import RunSummary
    from initbench.analysis.selection import Selection
    from initbench.analysis.tables import Table

FailIf = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-if",
        metavar="CONDITION",
        help="A gate, such as 'final_val_accuracy < 0.95': exit 1 if it is triggered. See docs/ci.md.",
    ),
]
FailUnless = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-unless",
        metavar="CONDITION",
        help="A requirement, such as 'final_val_accuracy > 95 %': exit 1 unless the runs confirm it.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Also exit 1 if anything could not be evaluated: undecided gates, missing runs, rows in one"
        " state only, no gate at all; exit 3 for damaged runs.",
    ),
]
Against = Annotated[
    Path | None,
    typer.Option(
        "--against",
        metavar="RUNS_DIR|FILE",
        help="Compare with an earlier state: another store, or the output of compare --json.",
    ),
]
JunitXml = Annotated[
    Path | None,
    typer.Option(
        "--junit-xml", metavar="FILE", help="Write a JUnit report with a test case per run and per gate."
    ),
]


MAX_DAMAGED, MAX_OBSTACLES, MAX_LINE_LENGTH = 20, 20, 4_000
"""Limits of the output: damaged runs, obstacles, and characters per line."""
NO_GATE = "no gate given: add one, such as --fail-unless 'final_val_accuracy > 90 %', or drop --strict"


@dataclass(frozen=True)
class GateOptions:
    """Parsed gate options."""

    gates: list[Gate]
    strict: bool
    against: Path | None
    junit_xml: Path | None
    confidence: float
    decides_without_gates: bool = False
    """Whether the command has a verdict without gates, as a sweep with --fail-on does."""
    command: str = "compare"
    """Name of the command, for the heading of its summary."""
    always_valid: bool = False
    """Whether the number of runs depends on their results, so that intervals must be confidence sequences."""


@dataclass(frozen=True)
class GateReport:
    """Results of the gates and of the comparison with an earlier state."""

    options: GateOptions
    gates: list[GateResult] = field(default_factory=list)
    changes: Changes | None = None
    damage: list[str] = field(default_factory=list)
    """One sentence per damaged run."""
    misplaced: list[str] = field(default_factory=list)
    """One sentence per run that the tables omit because its directory has a wrong name."""
    obstacles: list[str] = field(default_factory=list)
    """Reasons why a strict command fails regardless of its gates, one sentence each."""

    @property
    def exit_code(self) -> int:
        """Exit code: 1 if a gate fails; with --strict also 1 if unjudged, 3 for damaged or misplaced runs."""
        strict = self.options.strict
        failed = any(judgement.fails(strict=strict) for judgement in self.gates)
        if failed or (strict and self.obstacles):
            return 1
        return StoreError.exit_code if strict and (self.damage or self.misplaced) else 0

    def document(self) -> dict[str, Any]:
        """Return the keys to add to the document of `compare --json`, without empty ones."""
        entries: dict[str, Any] = {}
        if self.gates:
            from initbench.render.gate_tables import gates_document

            entries["gates"] = gates_document(self.gates)
        if self.changes is not None:
            from initbench.render.regression import against_document

            entries["against"] = against_document(self.changes, str(self.options.against))
        if self.damage:
            entries["damaged"] = self.damage
        if self.misplaced:
            entries["misplaced"] = self.misplaced
        if self.obstacles:
            entries["not_judged"] = self.obstacles
        return entries


def gate_options(
    fail_if: Sequence[str] | None,
    strict: bool,
    against: Path | None,
    junit_xml: Path | None,
    confidence: float = 0.95,
    fail_unless: Sequence[str] | None = None,
    *,
    command: str = "compare",
) -> GateOptions:
    """Parse the gates; raise UsageError with the column of a syntax error."""
    gates: list[Gate] = []
    if fail_if or fail_unless:
        from initbench.analysis.gates.evaluate import read_gates  # brings lark

        gates = read_gates(fail_if or (), fail_unless or ())
    return GateOptions(gates, strict, against, junit_xml, confidence, command=command)


def check_gates(
    options: GateOptions,
    selection: Selection,
    tables: Sequence[Table],
    not_judged: Sequence[GateResult] = (),
    obstacles: Sequence[str] = (),
) -> GateReport:
    """Judge the gates, compare with the earlier state, and publish the report.

    Args:
        options: The gates and how to judge them.
        selection: The runs to judge.
        tables: The tables of these runs.
        not_judged: Results of further gates that cannot be judged.
        obstacles: Further reasons why a strict command fails, one sentence each.
    """
    runs = selection.runs
    reference, reference_damage = (
        _load_reference(options.against, tables, selection) if options.against else (None, [])
    )
    results, changes = _evaluate(options, tables, reference), _changes(options, tables, reference)
    results = [_with_gaps(judgement, selection.missing) for judgement in results]
    damaged = [*damage_messages(runs, selection.store.root), *reference_damage]
    misplaced = [run for run in find_misplaced(selection.store.root) if run.matches(selection.patterns)]
    verdicts = GateReport(options, [*results, *not_judged], changes, damaged, describe_misplaced(misplaced))
    if options.strict:
        verdicts.obstacles.extend([*_list_obstacles(verdicts, selection), *obstacles])
    publish_report(verdicts, runs)
    return verdicts


def fail_unjudged(options: GateOptions, reason: str) -> None:
    """With --strict, report all gates as not evaluated and exit with 1; otherwise do nothing.

    Args:
        options: The gates.
        reason: Why they cannot be judged.

    Raises:
        typer.Exit: With --strict.
    """
    if not options.strict:
        return
    from initbench.analysis.gates.evaluate import GateResult

    gates = [GateResult(gate, [], [reason]) for gate in options.gates]
    verdicts = GateReport(options, gates, obstacles=[reason])
    publish_report(verdicts, [])
    print_verdicts(verdicts)
    raise typer.Exit(verdicts.exit_code)


def publish_report(verdicts: GateReport, runs: Sequence[RunSummary]) -> None:
    """Write the JUnit report and the annotations for GitHub Actions.

    Annotations go to stderr, since stdout is reserved for data and GitHub reads both.
    """
    options = verdicts.options
    obstacles = [*verdicts.obstacles, *(verdicts.misplaced if options.strict else [])]
    if options.junit_xml is not None:
        from initbench.render.junit import write_junit

        write_junit(options.junit_xml, runs, verdicts.gates, strict=options.strict, obstacles=obstacles)
    if verdicts.gates or options.against or options.junit_xml or obstacles:
        from initbench.render import github

        if github.wants_annotations():
            commands = github.workflow_commands(
                verdicts.gates, runs, strict=options.strict, obstacles=obstacles[:MAX_OBSTACLES]
            )
            for line in commands:
                typer.echo(line, err=True)
        github.append_summary(
            github.job_summary(
                verdicts.gates, runs, verdicts.changes, obstacles[:MAX_OBSTACLES], command=options.command
            )
        )


def _list_obstacles(verdicts: GateReport, selection: Selection) -> Iterator[str]:
    """Yield the reasons, apart from its gates, why a strict command fails."""
    if not selection.runs:
        yield no_runs_message(selection.store.root)
    yield from selection.missing
    yield from unfinished_runs(selection.runs)
    is_part = bool(selection.patterns or selection.where)
    yield from missing_seeds(
        selection.runs, load_run_summaries(selection.store, []) if is_part else selection.runs
    )
    if (changes := verdicts.changes) is not None:
        if not changes.rows:
            yield f"no row is both in {selection.store.root} and in {verdicts.options.against}"
        reasons = changes.reasons.items()
        yield from (f"{label} is only in {selection.store.root}: {why}" for label, why in reasons)
        yield from (f"{label} is only in {verdicts.options.against}" for label in changes.only_before)
    elif not (
        verdicts.gates or verdicts.options.decides_without_gates or verdicts.damage or verdicts.misplaced
    ):
        yield NO_GATE


def _with_gaps(judgement: GateResult, missing: Sequence[str]) -> GateResult:
    """Add the rows without runs as gaps to the result of a gate on every row."""
    is_on_every_row = any(quantity.row.name is None for quantity in judgement.gate.quantities)
    if not (missing and is_on_every_row):
        return judgement
    return replace(judgement, gaps=[*judgement.gaps, *missing])


def no_runs_message(root: Path) -> str:
    """Return the message for a directory without runs."""
    return f"no runs in {root}" + ("" if root.is_dir() else ": there is no such directory")


def _evaluate(options: GateOptions, tables: Sequence[Table], reference: Reference | None) -> list[GateResult]:
    if not options.gates:
        return []
    from initbench.analysis.gates.evaluate import evaluate_gates

    return evaluate_gates(
        options.gates,
        tables,
        options.confidence,
        reference,
        strict=options.strict,
        always_valid=options.always_valid,
    )


def _changes(options: GateOptions, tables: Sequence[Table], reference: Reference | None) -> Changes | None:
    if reference is None:
        return None
    from initbench.analysis.regression.changes import compare_states

    return compare_states(tables, reference, confidence=options.confidence)


def _load_reference(path: Path, tables: Sequence[Table], selection: Selection) -> tuple[Reference, list[str]]:
    """Load the earlier state, and describe each of its damaged runs in a sentence."""
    if not path.is_dir():
        from initbench.analysis.regression.reference_document import read_document

        return read_document(path, selection.selects_document_row), []
    from initbench.analysis.regression.reference import ReferenceRuns
    from initbench.analysis.tables import build_tables as tables_of

    runs = selection.reference_runs(path)
    placed_runs = [run for run in runs if run.is_placed]
    reference = ReferenceRuns(tables_of(placed_runs, by=tables[0].by if tables else ()))
    return reference, [f"{path}: {sentence}" for sentence in damage_messages(runs, path)]


def print_verdicts(verdicts: GateReport) -> None:
    """Print damaged runs, gate results and changes since the earlier state on stderr."""
    lines = [f"damaged: {sentence}" for sentence in verdicts.damage[:MAX_DAMAGED]]
    if len(verdicts.damage) > MAX_DAMAGED:
        lines.append(f"damaged: {len(verdicts.damage) - MAX_DAMAGED:,} more runs")
    lines += [f"misplaced: {sentence}" for sentence in verdicts.misplaced]
    if verdicts.changes is not None:
        from initbench.render.regression import change_lines

        lines += [f"against {verdicts.options.against}:", *change_lines(verdicts.changes), ""]
    if verdicts.gates:
        from initbench.render.gate_tables import case_lines, verdict_line

        for judgement in verdicts.gates:
            lines += [verdict_line(judgement), *(f"    {line}" for line in case_lines(judgement))]
    lines += [f"not evaluated: {sentence}" for sentence in verdicts.obstacles[:MAX_OBSTACLES]]
    if (rest := len(verdicts.obstacles) - MAX_OBSTACLES) > 0:
        lines.append(f"not evaluated: {rest:,} more")

    for line in lines:
        printable = "".join(c if c.isprintable() else " " for c in line[:MAX_LINE_LENGTH])
        typer.echo(one_line(printable), err=True)
