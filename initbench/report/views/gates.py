"""The gates of a command in words: which ones passed, which ones failed, and which ones are undecided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from initbench.render.text import one_line, plural
from initbench.report.page import HtmlTable

if TYPE_CHECKING:
    from initbench.analysis.gates.evaluate import GateResult
    from initbench.analysis.regression.changes import Changes

PASSED, FAILED, UNDECIDED = "passed", "failed", "undecided"


@dataclass(frozen=True)
class GateOutcome:
    """Everything that the gates of a command decided."""

    results: Sequence[GateResult]
    is_strict: bool
    """Whether anything that could not be evaluated fails the command."""
    exit_code: int
    """Exit code of the command due to its gates; 0 if they let it pass."""
    changes: Changes | None = None
    """Changes since an earlier state."""
    earlier: str = ""
    """Name of the earlier state."""
    obstacles: Sequence[str] = ()
    """Sentences on everything else that was not evaluated, such as damaged or missing runs."""


def gate_paragraphs(outcome: GateOutcome) -> list[str]:
    """Return sentences: the numbers of gates, the changes since the earlier state, and the obstacles."""
    sentences = []
    if outcome.results:
        counts = Counter(_word(result, outcome) for result in outcome.results)
        listed = ", ".join(f"{counts[word]} {word}" for word in (PASSED, FAILED, UNDECIDED) if counts[word])
        sentences.append(f"{plural(len(outcome.results), 'gate')}: {listed}.")
    if outcome.changes is not None:
        from initbench.render.regression import change_lines

        headline, *lines = change_lines(outcome.changes)
        sentences.append(f"Against {outcome.earlier}: {headline}.")
        sentences += [line.strip() for line in lines]
    sentences += [f"Not evaluated: {sentence}" for sentence in outcome.obstacles]
    if outcome.exit_code:
        sentences.append(f"The command ended with exit code {outcome.exit_code}.")
    return list(map(one_line, sentences))


def gate_tables(outcome: GateOutcome) -> list[HtmlTable]:
    """Return a table with a row for each gate; none without gates."""
    if not outcome.results:
        return []
    from initbench.render.gate_tables import case_lines

    rows = [
        [
            one_line(_name(result)),
            _word(result, outcome),
            one_line("; ".join(case_lines(result)) or f"clear in {plural(len(result.cases), 'row')}"),
        ]
        for result in outcome.results
    ]
    return [HtmlTable(["gate", "result", "numbers"], rows)]


def _name(result: GateResult) -> str:
    return f"fail {'unless' if result.gate.is_requirement else 'if'} {result.gate.text}"


def _word(result: GateResult, outcome: GateOutcome) -> str:
    if str(result.state) == UNDECIDED:
        return UNDECIDED
    return FAILED if result.fails(strict=outcome.is_strict) else PASSED
