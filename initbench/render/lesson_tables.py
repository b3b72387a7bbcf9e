"""What `initbench lesson` prints: the question, the arms, pictures, and what came of each claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from initbench.components.norm import NORMS
from initbench.config.lesson_schema import Figure
from initbench.render import norm_diagram
from initbench.render.compare.analysed_table import analyse
from initbench.render.compare.console import renderables
from initbench.render.compare.display_options import View
from initbench.render.compare.learning_curves import curves
from initbench.render.compare_tables import comparison
from initbench.render.gate_tables import sentence
from initbench.render.run_tables import activation_table, render_heading
from initbench.render.terminal import print_uncut
from initbench.render.tuning_tables import tuning_table
from initbench.study.run_lesson import LessonResult
from initbench.study.verdicts import ClaimResult, ClaimVerdict

_STYLES = {
    ClaimVerdict.SUPPORTED: "green",
    ClaimVerdict.CONTRADICTED: "yellow",
    ClaimVerdict.UNDECIDED: "cyan",
}
_BLANK = Text("")


def print_lesson(console: Console, found: LessonResult, *, view: View) -> None:
    """Print everything that one lesson shows."""
    for piece in lesson(found, console.width, view):
        print_uncut(console, piece)


def lesson(found: LessonResult, width: int, view: View) -> Iterator[RenderableType]:
    """The parts of a lesson, `view` saying how wide tables may be and how pictures are drawn."""
    config = found.lesson.config
    yield Text.assemble((config.name, "bold"), "   ", config.question)
    yield from (Text(line) for line in (config.source, config.notes.strip()) if line)
    yield _BLANK
    yield from shown(found, width, view)
    yield from (claims(found.claims, config.source), _BLANK, Text(tally(found.claims)), _BLANK)


def shown(found: LessonResult, width: int, view: View) -> Iterator[RenderableType]:
    """What the runs show, before it is judged: a line for each arm, the tuning, the pictures."""
    yield from comparison([found.table], view)
    if found.lesson.tune is not None:
        tuned = [(arm.name, arm.tuning) for arm in found.arms if arm.tuning is not None]
        yield from (tuning_table(tuned), _BLANK)
    for picture in found.lesson.config.show:
        yield from _picture(picture, found, width, view)


def _picture(picture: Figure, found: LessonResult, width: int, view: View) -> Iterator[RenderableType]:
    runs = {arm.name: arm.trained.runs for arm in found.arms}
    for name in picture.layers or []:
        if runs[name]:
            table = activation_table(runs[name], all_layers=False, width=width, ascii_only=view.ascii_only)
            yield from (render_heading(runs[name]), _BLANK, table, _BLANK)
    if picture.curves:
        rows = [row for row in found.table.rows if row.label in picture.curves]
        drawn = analyse([replace(found.table, rows=rows)], view)[0]
        for block in curves(drawn, view, ""):
            yield from renderables(block, view.width, all_notes=view.all_notes)
    for name in picture.axes or []:
        yield from (_axes(name, ascii_only=view.ascii_only), _BLANK)


def _axes(name: str, *, ascii_only: bool) -> RenderableType:
    entry = NORMS[name]
    if not norm_diagram.drawable(entry.axes):
        return Text.assemble(
            (f"{name} norm", "bold"), "   averages over ", ", ".join(entry.axes) or "nothing"
        )
    lines = [
        *norm_diagram.picture(entry.axes, ascii_only=ascii_only),
        "",
        *norm_diagram.legend(entry.axes, ascii_only=ascii_only),
    ]
    title = Text.assemble((f"{name} norm", "bold"), "   ", norm_diagram.sentence(entry.axes))
    return Group(title, _BLANK, Text("\n".join(lines), no_wrap=True, overflow="ignore"))


def claims(found: Sequence[ClaimResult], source: str) -> RenderableType:
    """Each claim with its verdict, its condition and the numbers; who makes it, if not `source`."""
    grid = RichTable.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for one in found:
        if grid.row_count:
            grid.add_row("", "")
        own = one.claim.source if one.claim.source != source else ""
        said = Text.assemble((one.claim.says, "bold"), f"   {own}" if own else "")
        lines = [said, Text(f"if {one.claim.holds_if}", "dim"), *(Text(line) for line in evidence(one))]
        grid.add_row(Text(one.verdict, _STYLES[one.verdict]), Group(*lines))
    return grid


def evidence(found: ClaimResult) -> list[str]:
    """A sentence for each comparison; where the claim is about every arm, of the arms that decide it.

    Reasons for leaving it undecided come first.
    """
    cases = found.judgement.cases
    if found.verdict is ClaimVerdict.CONTRADICTED:
        cases = [case for case in cases if case.state == "clear"]
    named = len(found.judgement.cases) > 1
    sentences = [
        (f"{case.label}: " if named else "") + sentence(part) for case in cases for part in case.parts
    ]
    return [*(f"not decided: {reason}" for reason in found.reasons), *sentences]


def tally(found: Sequence[ClaimResult]) -> str:
    """`2 supported, 1 contradicted`."""
    counts = Counter(one.verdict for one in found)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in ClaimVerdict if counts[verdict])
