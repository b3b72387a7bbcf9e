"""Gates on the command line: `--fail-if`, `--against`, `--junit-xml`, and what GitHub Actions is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from initbench.errors import StoreError

if TYPE_CHECKING:
    from initbench.compare.against.changes import Changes
    from initbench.compare.against.earlier import Earlier
    from initbench.compare.gates.judge import Gate, Judgement
    from initbench.compare.rows import Table
    from initbench.compare.select import Selection

FailIf = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-if",
        metavar="CONDITION",
        help="A gate, such as 'final_val_accuracy < 0.95': exit 1 if it is triggered. See docs/ci.md.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Exit 1 also for undecided gates and where --against matches no row, 3 for damaged runs.",
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


MOST_DAMAGED, LONGEST_LINE = 20, 4_000
"""What is said of damaged runs, and characters of a line."""


@dataclass(frozen=True)
class GateOptions:
    """What the options ask for."""

    gates: list[Gate]
    strict: bool
    against: Path | None
    junit_xml: Path | None
    confidence: float


@dataclass(frozen=True)
class Verdicts:
    """What came of it."""

    options: GateOptions
    gates: list[Judgement] = field(default_factory=list)
    changes: Changes | None = None
    damage: list[str] = field(default_factory=list)
    """A sentence for each damaged run."""

    @property
    def exit_code(self) -> int:
        """1 if a gate fails. With --strict also 1 if no row has an earlier state, and 3 for damaged runs."""
        strict = self.options.strict
        failed = any(judgement.fails(strict=strict) for judgement in self.gates)
        unmatched = strict and self.changes is not None and not self.changes.rows
        if failed or unmatched:
            return 1
        return StoreError.exit_code if strict and self.damage else 0

    def document(self) -> dict[str, Any]:
        """Keys for the document of `compare --json`; none for what was not asked for."""
        found: dict[str, Any] = {}
        if self.gates:
            from initbench.report.gates import gates_document

            found["gates"] = gates_document(self.gates)
        if self.changes is not None:
            from initbench.report.against import against_document

            found["against"] = against_document(self.changes, str(self.options.against))
        if self.damage:
            found["damaged"] = self.damage
        return found


def gate_options(
    fail_if: Sequence[str] | None,
    strict: bool,
    against: Path | None,
    junit_xml: Path | None,
    confidence: float = 0.95,
) -> GateOptions:
    """Read the gates, before any run is; raises UsageError with the column of what is wrong."""
    gates: list[Gate] = []
    if fail_if:
        from initbench.compare.gates.judge import read_gates  # brings lark

        gates = read_gates(fail_if)
    return GateOptions(gates, strict, against, junit_xml, confidence)


def check_gates(options: GateOptions, chosen: Selection, tables: Sequence[Table]) -> Verdicts:
    """Judge the gates, compare with the earlier state, write the JUnit report, and tell GitHub Actions.

    GitHub is told on stderr: stdout is data, and GitHub reads annotations from both.
    """
    from initbench.compare.damaged import damage

    runs = chosen.runs
    earlier, lost = _earlier(options.against, tables, chosen) if options.against else (None, [])
    judged, changed = _judged(options, tables, earlier), _changes(options, tables, earlier)
    verdicts = Verdicts(options, judged, changed, [*damage(runs, chosen.store.root), *lost])
    if options.junit_xml is not None:
        from initbench.report.junit import write_junit

        write_junit(options.junit_xml, runs, verdicts.gates, strict=options.strict)
    if options.gates or options.against or options.junit_xml:
        from initbench.report import github

        if github.wants_annotations():
            for line in github.workflow_commands(verdicts.gates, runs, strict=options.strict):
                typer.echo(line, err=True)
        github.append_summary(github.summary(verdicts.gates, runs, verdicts.changes))
    return verdicts


def _judged(options: GateOptions, tables: Sequence[Table], earlier: Earlier | None) -> list[Judgement]:
    if not options.gates:
        return []
    from initbench.compare.gates.judge import judge

    return judge(options.gates, tables, options.confidence, earlier)


def _changes(options: GateOptions, tables: Sequence[Table], earlier: Earlier | None) -> Changes | None:
    if earlier is None:
        return None
    from initbench.compare.against.changes import changes

    return changes(tables, earlier, confidence=options.confidence)


def _earlier(path: Path, tables: Sequence[Table], chosen: Selection) -> tuple[Earlier, list[str]]:
    """The earlier state, and a sentence for each of its runs that is damaged."""
    if not path.is_dir():
        from initbench.compare.against.kept import read_document

        return read_document(path, chosen.has_earlier), []
    from initbench.compare.against.earlier import EarlierRuns
    from initbench.compare.damaged import damage
    from initbench.compare.rows import tables as tables_of

    runs = chosen.earlier_runs(path)
    known = [run for run in runs if run.is_placed]
    found = EarlierRuns(tables_of(known, by=tables[0].by if tables else ()))
    return found, [f"{path}: {sentence}" for sentence in damage(runs, path)]


def print_verdicts(verdicts: Verdicts) -> None:
    """Say on stderr which runs are damaged, what came of the gates, and what has changed since earlier."""
    lines = [f"damaged: {sentence}" for sentence in verdicts.damage[:MOST_DAMAGED]]
    if len(verdicts.damage) > MOST_DAMAGED:
        lines.append(f"damaged: {len(verdicts.damage) - MOST_DAMAGED:,} runs more")
    if verdicts.changes is not None:
        from initbench.report.against import change_lines

        lines += [f"against {verdicts.options.against}:", *change_lines(verdicts.changes), ""]
    if verdicts.gates:
        from initbench.report.gates import case_lines, verdict_line

        for judgement in verdicts.gates:
            lines += [verdict_line(judgement), *(f"    {line}" for line in case_lines(judgement))]
    for line in lines:
        typer.echo("".join(c if c.isprintable() else " " for c in line[:LONGEST_LINE]), err=True)
