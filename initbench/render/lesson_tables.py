"""Output of `initbench lesson`: the results and verdicts of a lesson, the list of lessons, and their JSON."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from initbench.components.norm import NORMS
from initbench.config.study import Figure
from initbench.render import norm_diagram
from initbench.render.compare.analysed_table import analyse
from initbench.render.compare.console import table_renderables
from initbench.render.compare.display_options import View
from initbench.render.compare.learning_curves import curve_plots
from initbench.render.compare.output import comparison_renderables
from initbench.render.gate_tables import comparison_sentence, gates_document
from initbench.render.run_tables import activation_table, render_heading
from initbench.render.terminal import print_uncut
from initbench.render.tuning_tables import tuning_table
from initbench.study.run_study import LessonResult, VariantResult
from initbench.study.verdicts import ClaimResult, ClaimVerdict

_STYLES = {
    ClaimVerdict.SUPPORTED: "green",
    ClaimVerdict.CONTRADICTED: "yellow",
    ClaimVerdict.UNDECIDED: "cyan",
}
_BLANK = Text("")
SCHEMA = "initbench.lesson/1"
LIST_SCHEMA = "initbench.study-list/1"
_LIST_HEADINGS = ("claims", "arms", "stored", "missing")
_WIDE_CONSOLE = 110
"""Console width from which the questions are printed to the right of the numbers, not below them."""


def print_lesson(console: Console, result: LessonResult, *, view: View) -> None:
    """Print the results and verdicts of one lesson."""
    for piece in render_lesson(result, console.width, view):
        print_uncut(console, piece)


def render_lesson(result: LessonResult, width: int, view: View) -> Iterator[RenderableType]:
    """Yield the parts of a lesson; `view` sets the table width and the characters of figures."""
    config = result.study.config
    yield Text.assemble((config.name, "bold"), "   ", config.question)
    yield from (Text(line) for line in (config.source, config.notes.strip()) if line)
    yield _BLANK
    yield from render_results(result, width, view)
    yield from (
        claims_table(result.claims, config.source),
        _BLANK,
        Text(verdict_counts(result.claims)),
        _BLANK,
    )


def render_results(result: LessonResult, width: int, view: View) -> Iterator[RenderableType]:
    """Yield the results without verdicts: the table of arms, the tuning and the figures."""
    yield from comparison_renderables([result.table], view)
    if result.study.tune is not None:
        yield from (tuning_table(result.tunings), _BLANK)
    for picture in result.study.config.show:
        yield from _picture(picture, result, width, view)


def _picture(picture: Figure, result: LessonResult, width: int, view: View) -> Iterator[RenderableType]:
    arms = {arm.label: arm for arm in result.variants}
    for name in picture.layers or []:
        if runs := result.read_runs(arms[name]):
            table = activation_table(runs, all_layers=False, width=width, ascii_only=view.ascii_only)
            yield from (render_heading(runs), _BLANK, table, _BLANK)
    if picture.curves:
        rows = [row for row in result.table.rows if row.label in picture.curves]
        drawn = analyse([replace(result.table, rows=rows)], view)[0]
        for block in curve_plots(drawn, view, ""):
            yield from table_renderables(block, view.width, all_notes=view.all_notes)
    for name in picture.axes or []:
        yield from (_norm_diagram(name, ascii_only=view.ascii_only), _BLANK)


def _norm_diagram(name: str, *, ascii_only: bool) -> RenderableType:
    entry = NORMS[name]
    if not norm_diagram.is_drawable(entry.axes):
        return Text.assemble(
            (f"{name} norm", "bold"), "   averages over ", ", ".join(entry.axes) or "nothing"
        )
    lines = [
        *norm_diagram.draw_diagram(entry.axes, ascii_only=ascii_only),
        "",
        *norm_diagram.diagram_legend(entry.axes, ascii_only=ascii_only),
    ]
    title = Text.assemble((f"{name} norm", "bold"), "   ", norm_diagram.describe_statistic(entry.axes))
    return Group(title, _BLANK, Text("\n".join(lines), no_wrap=True, overflow="ignore"))


def claims_table(results: Sequence[ClaimResult], source: str) -> RenderableType:
    """Return a table of claims with verdict, condition and numbers.

    A claim's source is shown if it differs from `source`, that of the lesson.
    """
    grid = RichTable.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for result in results:
        if grid.row_count:
            grid.add_row("", "")
        claim_source = result.claim.source if result.claim.source != source else ""
        heading = Text.assemble((result.claim.says, "bold"), f"   {claim_source}" if claim_source else "")
        lines = [
            heading,
            Text(f"if {result.claim.holds_if}", "dim"),
            *(Text(line) for line in claim_evidence(result)),
        ]
        grid.add_row(Text(result.verdict, _STYLES[result.verdict]), Group(*lines))
    return grid


def claim_evidence(result: ClaimResult) -> list[str]:
    """Return the reasons for leaving the claim undecided, then a sentence for each comparison.

    If the claim is contradicted, only the comparisons that contradict it are included.
    """
    cases = result.judgement.cases
    if result.verdict is ClaimVerdict.CONTRADICTED:
        cases = [case for case in cases if case.state == "clear"]
    has_labels = len(result.judgement.cases) > 1
    sentences = [
        (f"{case.label}: " if has_labels else "") + comparison_sentence(part)
        for case in cases
        for part in case.parts
    ]
    return [*(f"undecided: {reason}" for reason in result.reasons), *sentences]


def verdict_counts(results: Sequence[ClaimResult]) -> str:
    """Return the number of claims per verdict, e.g. `2 supported, 1 contradicted`."""
    counts = Counter(result.verdict for result in results)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in ClaimVerdict if counts[verdict])


def lessons_document(results: Sequence[LessonResult]) -> dict[str, Any]:
    """Return all lessons with the verdict on each claim."""
    return {"schema": SCHEMA, "lessons": [_lesson_document(result) for result in results]}


def _lesson_document(result: LessonResult) -> dict[str, Any]:
    config = result.study.config
    return {
        "name": config.name,
        "question": config.question,
        "source": config.source,
        "notes": config.notes,
        "digest": config.digest,
        "dataset": result.table.dataset,
        "arms": [_arm_document(result, arm) for arm in result.variants],
        "claims": [_claim_document(claim, config.source) for claim in result.claims],
    }


def _claim_document(result: ClaimResult, source: str) -> dict[str, Any]:
    (gate,) = gates_document([result.judgement])
    return {
        "claim": result.claim.says,
        "verdict": str(result.verdict),
        "evidence": "; ".join(claim_evidence(result)),
        "undecided_because": list(result.reasons),
        "n": result.n,
        "condition": result.claim.holds_if,
        "source": result.claim.source or source,
        "cases": gate["cases"],
    }


def _arm_document(result: LessonResult, arm: VariantResult) -> dict[str, Any]:
    runs = result.runs(arm)
    return {
        "name": arm.label,
        "experiment": arm.variant.config.name,
        "runs": [run.run_id for run in runs],
        "seconds": sum(run.seconds or 0.0 for run in runs),
        "tuning": None if arm.tuning is None else arm.tuning.as_data(),
    }


def print_list(console: Console, results: Sequence[LessonResult]) -> None:
    """Print each lesson with its question, wrapped to the console width."""
    longest = max(len(result.study.name) for result in results)
    indent = "  "
    is_wide = console.width >= _WIDE_CONSOLE
    lines = [Text(_list_line("lesson", _LIST_HEADINGS, longest) + ("  question" if is_wide else ""), "bold")]
    for result in results:
        lesson, stored = result.study, result.complete
        numbers = (len(lesson.config.claims), len(lesson.variants), stored, result.total - stored)
        head = _list_line(lesson.name, numbers, longest)
        if is_wide:
            indent, first = " " * (len(head) + 2), f"{head}  "
        else:
            first = f"{head}\n{indent}"
        folded = textwrap.wrap(lesson.config.question, console.width - len(indent))
        lines.append(Text(first + f"\n{indent}".join(folded)))
    print_uncut(console, Text("\n").join(lines))


def _list_line(name: str, numbers: Sequence[object], longest: int) -> str:
    """Return name and numbers, aligned with the headings."""
    cells = (f"{number!s:>{len(heading)}}" for number, heading in zip(numbers, _LIST_HEADINGS, strict=True))
    return "  ".join([f"{name:<{longest}}", *cells])


def list_document(results: Sequence[LessonResult]) -> dict[str, Any]:
    """Return the list as plain data."""
    lessons = [
        {
            "name": result.study.name,
            "question": result.study.config.question,
            "source": result.study.config.source,
            "claims": len(result.study.config.claims),
            "arms": [arm.label for arm in result.study.variants],
            "runs": {"stored": result.complete, "missing": result.total - result.complete},
        }
        for result in results
    ]
    return {"schema": LIST_SCHEMA, "lessons": lessons}
