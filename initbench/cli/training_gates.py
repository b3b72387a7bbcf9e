"""Gates of the commands that train: `run`, `sweep` and `lesson` judge the runs that they have just stored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from initbench.cli.gate_options import GateOptions, GateReport, check_gates, gate_options
from initbench.errors import UsageError

if TYPE_CHECKING:
    from initbench.analysis.gates.evaluate import GateResult
    from initbench.analysis.run_summary import RunSummary
    from initbench.analysis.tables import Table
    from initbench.store.store import Store

FailOn = Annotated[
    Literal["diverged"] | None, typer.Option("--fail-on", help="Exit 1 if a run diverged, too.")
]


@dataclass(frozen=True)
class TrainedRuns:
    """The stored runs of a command that trains, as its gates see them."""

    store: Store
    experiments: Mapping[str, Sequence[str]]
    """The ids of the runs of each experiment; none where they are not known."""
    facts: Sequence[RunSummary]
    """Of the runs that are stored."""
    tables: Sequence[Table]
    rows: Collection[str]
    """Names of the rows that gates may name."""
    is_complete: bool
    """Whether no run is left to be trained."""
    obstacles: Sequence[str] = ()
    """What else keeps a strict command from passing: a sentence each."""


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
    """Read the gates of a command that trains, before anything is trained.

    Args:
        command: Name of the command.
        fail_if: Conditions of the command line that must not hold.
        fail_unless: Conditions of the command line that have to hold.
        strict: Whether what was not judged fails the command.
        junit_xml: Where the JUnit report goes.
        fail_on: Status of a run that fails the command.
        rows: Names that gates of the command line may use; None where not all are known.
        from_file: Gates of the config, which have been checked already.
        decides_without_gates: Whether the command decides something without any gate.

    Raises:
        UsageError: For a gate of the command line that cannot be read or names no row.
    """
    texts = [*(fail_if or []), *(fail_unless or [])]
    if texts and rows is not None:
        from initbench.study.validate_sweep import gate_problems

        for text in texts:
            for problem in gate_problems(text, rows):
                raise UsageError(f"{problem}\n  {text}")
    gates = [*from_file, *(fail_if or [])]
    options = gate_options(gates, strict, None, junit_xml, fail_unless=fail_unless, command=command)
    return replace(options, decides_without_gates=decides_without_gates or fail_on is not None)


def judge_training(options: GateOptions, runs: TrainedRuns) -> GateReport | None:
    """Judge the gates once all runs are stored, and report; None where nothing was asked for."""
    if not (options.gates or options.junit_xml or options.strict):
        return None
    from initbench.analysis.completeness import missing_experiments
    from initbench.analysis.selection import ReadSelection

    unjudged = _undecidable_gates(options, runs)
    undecidable = [judgement.gate for judgement in unjudged]
    decidable = replace(options, gates=[gate for gate in options.gates if gate not in undecidable])
    run_ids = [run.run_id for run in runs.facts]
    missing = missing_experiments(runs.experiments, run_ids)
    selection = ReadSelection(runs.store, run_ids, facts=runs.facts, without_runs=missing)
    return check_gates(decidable, selection, runs.tables, unjudged, runs.obstacles)


def _undecidable_gates(options: GateOptions, runs: TrainedRuns) -> list[GateResult]:
    """Return the gates that wait for runs, or name rows that this call does not have, with the reason."""
    from initbench.analysis.gates.evaluate import GateResult

    if not runs.is_complete:
        return [GateResult(gate, [], ["runs are missing here"]) for gate in options.gates]
    return [
        GateResult(gate, [], ["it names points that are left out"])
        for gate in options.gates
        if not {q.row.name for q in gate.quantities if q.row.name is not None} <= set(runs.rows)
    ]


def divergence_failures(statuses: Iterable[str], fail_on: str | None) -> list[str]:
    """Return a line if runs diverged and --fail-on forbids it."""
    diverged = sum(status == fail_on for status in statuses)
    return [f"{diverged} of the runs diverged"] if diverged else []


def exit_with_verdicts(verdicts: GateReport | None) -> None:
    """End the command with the exit code of its gates, unless that is 0."""
    if verdicts is not None and verdicts.exit_code:
        raise typer.Exit(verdicts.exit_code)
