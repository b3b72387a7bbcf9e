"""Gates of the training commands `run`, `sweep` and `lesson`, which judge the runs they have stored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from initbench.analysis.completeness import missing_experiments
from initbench.cli.gate_options import GateOptions, GateReport, check_gates, gate_options
from initbench.errors import UsageError

if TYPE_CHECKING:
    from initbench.analysis.gates.evaluate import GateResult
    from initbench.analysis.run_summary import RunSummary
    from initbench.analysis.tables import Table
    from initbench.store.store import Store

FailOn = Annotated[
    Literal["diverged"] | None, typer.Option("--fail-on", help="Also exit 1 if any run diverged.")
]


@dataclass(frozen=True)
class TrainedRuns:
    """Stored runs of a training command, as input of its gates."""

    store: Store
    experiments: Mapping[str, Sequence[str]]
    """Run ids by experiment; empty if unknown."""
    facts: Sequence[RunSummary]
    """Summaries of the stored runs."""
    tables: Sequence[Table]
    rows: Collection[str]
    """Names of the rows that gates may name."""
    is_complete: bool
    """Whether all runs have been trained."""
    obstacles: Sequence[str] = ()
    """Further reasons why a strict command fails, one sentence each."""


def training_gates(
    command: str,
    fail_if: Sequence[str] | None,
    fail_unless: Sequence[str] | None,
    strict: bool,
    junit_xml: Path | None,
    fail_on: str | None,
    *,
    rows: Sequence[str] | None,
    from_file: Sequence[str] = (),
    decides_without_gates: bool = False,
) -> GateOptions:
    """Parse the gates of a training command before the training.

    Args:
        command: Name of the command.
        fail_if: Conditions of the command line that must not hold.
        fail_unless: Conditions of the command line that have to hold.
        strict: Whether anything unjudged fails the command.
        junit_xml: File for the JUnit report.
        fail_on: Status of a run that fails the command.
        rows: Names that gates of the command line may use; None where not all are known.
        from_file: Gates of the config, already validated.
        decides_without_gates: Whether the command has a verdict without gates.

    Raises:
        UsageError: If a gate of the command line is invalid or names an unknown row.
    """
    texts = [*(fail_if or []), *(fail_unless or [])]
    if texts and rows is not None:
        from initbench.study.validate import gate_issues

        for text in texts:
            for problem in gate_issues(text, rows):
                raise UsageError(f"{problem}\n  {text}")
    gates = [*from_file, *(fail_if or [])]
    options = gate_options(gates, strict, None, junit_xml, fail_unless=fail_unless, command=command)
    return replace(options, decides_without_gates=decides_without_gates or fail_on is not None)


def judge_training(options: GateOptions, runs: TrainedRuns) -> GateReport | None:
    """Judge the gates on the stored runs and report; return None if no gate option was given."""
    if not (options.gates or options.junit_xml or options.strict):
        return None
    from initbench.analysis.selection import PreloadedSelection

    unjudged = _undecidable_gates(options, runs)
    undecidable = [judgement.gate for judgement in unjudged]
    decidable = replace(options, gates=[gate for gate in options.gates if gate not in undecidable])
    run_ids = [run.run_id for run in runs.facts]
    missing = missing_experiments(runs.experiments, run_ids)
    selection = PreloadedSelection(
        runs.store, run_ids, summaries=runs.facts, missing_experiment_messages=missing
    )
    return check_gates(decidable, selection, runs.tables, unjudged, runs.obstacles)


def _undecidable_gates(options: GateOptions, runs: TrainedRuns) -> list[GateResult]:
    """Return results, with the reason, for gates that lack runs or name rows missing from this call."""
    from initbench.analysis.gates.evaluate import GateResult

    if not runs.is_complete:
        return [GateResult(gate, [], ["not all runs have been trained"]) for gate in options.gates]
    return [
        GateResult(gate, [], ["the gate names points that were skipped"])
        for gate in options.gates
        if not {q.row.name for q in gate.quantities if q.row.name is not None} <= set(runs.rows)
    ]


def divergence_failures(statuses: Iterable[str], fail_on: str | None) -> list[str]:
    """Return a line if runs diverged and --fail-on is set."""
    diverged = sum(status == fail_on for status in statuses)
    return [f"{diverged} run{'' if diverged == 1 else 's'} diverged"] if diverged else []


def exit_with_verdicts(verdicts: GateReport | None) -> None:
    """Exit with the exit code of the gates unless it is 0."""
    if verdicts is not None and verdicts.exit_code:
        raise typer.Exit(verdicts.exit_code)
