"""Gates on the command line: `--fail-if`, `--against`, `--junit-xml`, and what GitHub Actions is told.

Under `--strict` a command passes only on evidence: what could not be judged fails it, whatever the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from initbench.errors import StoreError

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
        help="A requirement, such as 'final_val_accuracy > 95 %': exit 1 unless it is shown to hold.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Exit 1 also for whatever was not judged: undecided gates, missing runs, rows of one state "
        "alone, no gate at all; 3 for damaged runs.",
    ),
]
Against = Annotated[
    Path | None,
    typer.Option(
        "--against",
        metavar="RUNS_DIR|FILE",
        help="Compare with an earlier state: another store, or what compare --json printed.",
    ),
]
JunitXml = Annotated[
    Path | None,
    typer.Option("--junit-xml", metavar="FILE", help="Write a testcase for each run and each gate."),
]


MOST_DAMAGED, MAX_OBSTACLES, LONGEST_LINE = 20, 20, 4_000
"""What is said of damaged runs and of what was not judged, and characters of a line."""
NO_GATE = "no gate was given: add one, such as --fail-unless 'final_val_accuracy > 90 %', or drop --strict"


@dataclass(frozen=True)
class GateOptions:
    """What the options ask for."""

    gates: list[Gate]
    strict: bool
    against: Path | None
    junit_xml: Path | None
    confidence: float
    judges_otherwise: bool = False
    """Whether the command decides something without any gate, as a sweep with --fail-on does."""
    command: str = "compare"
    """Name of the command that judges, for the heading of its summary."""


@dataclass(frozen=True)
class GateReport:
    """What came of it."""

    options: GateOptions
    gates: list[GateResult] = field(default_factory=list)
    changes: Changes | None = None
    damage: list[str] = field(default_factory=list)
    """A sentence for each damaged run."""
    misplaced: list[str] = field(default_factory=list)
    """A sentence for each run that is in no row, since its directory is called otherwise."""
    obstacles: list[str] = field(default_factory=list)
    """What keeps a strict command from passing whatever its gates say: a sentence each."""

    @property
    def exit_code(self) -> int:
        """1 if a gate fails. Strict, also 1 for what was not judged, 3 for damaged or misplaced runs."""
        strict = self.options.strict
        failed = any(judgement.fails(strict=strict) for judgement in self.gates)
        if failed or (strict and self.obstacles):
            return 1
        return StoreError.exit_code if strict and (self.damage or self.misplaced) else 0

    def document(self) -> dict[str, Any]:
        """Keys for the document of `compare --json`; none for what was not asked for."""
        found: dict[str, Any] = {}
        if self.gates:
            from initbench.render.gate_tables import gates_document

            found["gates"] = gates_document(self.gates)
        if self.changes is not None:
            from initbench.render.regression import against_document

            found["against"] = against_document(self.changes, str(self.options.against))
        if self.damage:
            found["damaged"] = self.damage
        if self.misplaced:
            found["misplaced"] = self.misplaced
        if self.obstacles:
            found["not_judged"] = self.obstacles
        return found


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
    """Read the gates, before any run is; raises UsageError with the column of what is wrong."""
    gates: list[Gate] = []
    if fail_if or fail_unless:
        from initbench.analysis.gates.evaluate import read_gates  # brings lark

        gates = read_gates(fail_if or (), fail_unless or ())
    return GateOptions(gates, strict, against, junit_xml, confidence, command=command)


def check_gates(
    options: GateOptions,
    chosen: Selection,
    tables: Sequence[Table],
    not_judged: Sequence[GateResult] = (),
    obstacles: Sequence[str] = (),
) -> GateReport:
    """Judge the gates, compare with the earlier state, and report.

    Args:
        options: The gates, and how they are judged.
        chosen: The runs.
        tables: Their rows.
        not_judged: More gates, which cannot be judged.
        obstacles: Sentences about what else keeps a strict command from passing.
    """
    from initbench.analysis.damaged_runs import damage_messages
    from initbench.store.misplaced import describe_misplaced, find_misplaced

    runs = chosen.runs
    earlier, lost = _earlier(options.against, tables, chosen) if options.against else (None, [])
    judged, changed = _judged(options, tables, earlier), _changes(options, tables, earlier)
    judged = [_with_gaps(judgement, chosen.missing) for judgement in judged]
    damaged = [*damage_messages(runs, chosen.store.root), *lost]
    misplaced = [run for run in find_misplaced(chosen.store.root) if run.matches(chosen.patterns)]
    verdicts = GateReport(options, [*judged, *not_judged], changed, damaged, describe_misplaced(misplaced))
    if options.strict:
        verdicts.obstacles.extend([*_obstacles(verdicts, chosen), *obstacles])
    report(verdicts, runs)
    return verdicts


def fail_unjudged(options: GateOptions, reason: str) -> None:
    """Under --strict report all gates as not judged and exit with 1; otherwise do nothing.

    Args:
        options: The gates that were asked for.
        reason: Why there is nothing that they could be judged on.

    Raises:
        typer.Exit: Under --strict.
    """
    if not options.strict:
        return
    from initbench.analysis.gates.evaluate import GateResult

    gates = [GateResult(gate, [], [reason]) for gate in options.gates]
    verdicts = GateReport(options, gates, obstacles=[reason])
    report(verdicts, [])
    print_verdicts(verdicts)
    raise typer.Exit(verdicts.exit_code)


def report(verdicts: GateReport, runs: Sequence[RunSummary]) -> None:
    """Write the JUnit report, and tell GitHub Actions.

    GitHub is told on stderr: stdout is data, and GitHub reads annotations from both.
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
            github.summary(
                verdicts.gates, runs, verdicts.changes, obstacles[:MAX_OBSTACLES], command=options.command
            )
        )


def _obstacles(verdicts: GateReport, chosen: Selection) -> Iterator[str]:
    """What keeps a strict command from passing, beyond its gates."""
    from initbench.analysis.completeness import missing_seeds, unfinished_runs
    from initbench.analysis.load_runs import read_facts

    if not chosen.runs:
        yield no_runs(chosen.store.root)
    yield from chosen.missing
    yield from unfinished_runs(chosen.runs)
    is_part = bool(chosen.patterns or chosen.where)
    yield from missing_seeds(chosen.runs, read_facts(chosen.store, []) if is_part else chosen.runs)
    if (changes := verdicts.changes) is not None:
        if not changes.rows:
            yield f"no row is both in {chosen.store.root} and in {verdicts.options.against}"
        reasons = changes.reasons.items()
        yield from (f"{label} is only in {chosen.store.root}: {why}" for label, why in reasons)
        yield from (f"{label} is only in {verdicts.options.against}" for label in changes.only_before)
    elif not (verdicts.gates or verdicts.options.judges_otherwise or verdicts.damage or verdicts.misplaced):
        yield NO_GATE


def _with_gaps(judgement: GateResult, missing: Sequence[str]) -> GateResult:
    """Return the judgement; a gate on every row was not judged on the rows that have no run."""
    is_on_every_row = any(quantity.row.name is None for quantity in judgement.gate.quantities)
    if not (missing and is_on_every_row):
        return judgement
    return replace(judgement, gaps=[*judgement.gaps, *missing])


def no_runs(root: Path) -> str:
    """Return the sentence that a directory holds no runs."""
    return f"there are no runs in {root}" + ("" if root.is_dir() else ": there is no such directory")


def _judged(options: GateOptions, tables: Sequence[Table], earlier: Reference | None) -> list[GateResult]:
    if not options.gates:
        return []
    from initbench.analysis.gates.evaluate import judge

    return judge(options.gates, tables, options.confidence, earlier, strict=options.strict)


def _changes(options: GateOptions, tables: Sequence[Table], earlier: Reference | None) -> Changes | None:
    if earlier is None:
        return None
    from initbench.analysis.regression.changes import compare_states

    return compare_states(tables, earlier, confidence=options.confidence)


def _earlier(path: Path, tables: Sequence[Table], chosen: Selection) -> tuple[Reference, list[str]]:
    """The earlier state, and a sentence for each of its runs that is damaged."""
    if not path.is_dir():
        from initbench.analysis.regression.reference_document import read_document

        return read_document(path, chosen.has_earlier), []
    from initbench.analysis.damaged_runs import damage_messages
    from initbench.analysis.regression.reference import ReferenceRuns
    from initbench.analysis.tables import tables as tables_of

    runs = chosen.earlier_runs(path)
    known = [run for run in runs if run.is_placed]
    found = ReferenceRuns(tables_of(known, by=tables[0].by if tables else ()))
    return found, [f"{path}: {sentence}" for sentence in damage_messages(runs, path)]


def print_verdicts(verdicts: GateReport) -> None:
    """Say on stderr which runs are damaged, what came of the gates, and what has changed since earlier."""
    lines = [f"damaged: {sentence}" for sentence in verdicts.damage[:MOST_DAMAGED]]
    if len(verdicts.damage) > MOST_DAMAGED:
        lines.append(f"damaged: {len(verdicts.damage) - MOST_DAMAGED:,} runs more")
    lines += [f"misplaced: {sentence}" for sentence in verdicts.misplaced]
    if verdicts.changes is not None:
        from initbench.render.regression import change_lines

        lines += [f"against {verdicts.options.against}:", *change_lines(verdicts.changes), ""]
    if verdicts.gates:
        from initbench.render.gate_tables import case_lines, verdict_line

        for judgement in verdicts.gates:
            lines += [verdict_line(judgement), *(f"    {line}" for line in case_lines(judgement))]
    lines += [f"not judged: {sentence}" for sentence in verdicts.obstacles[:MAX_OBSTACLES]]
    if (rest := len(verdicts.obstacles) - MAX_OBSTACLES) > 0:
        lines.append(f"not judged: {rest:,} more")
    from initbench.render.text import one_line

    for line in lines:
        printable = "".join(c if c.isprintable() else " " for c in line[:LONGEST_LINE])
        typer.echo(one_line(printable), err=True)
