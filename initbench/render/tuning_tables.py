"""Table of the results of tuning one key for each arm."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from initbench.render import text
from initbench.render.text_table import TextTable
from initbench.study.tuning import TOLERANCE, Tuning


def tuning_table(tuned: Sequence[tuple[str, Tuning]]) -> RenderableType:
    """Return the best value of each arm, the range of values that are about as good, and the cost."""
    if not tuned:
        return Text("Nothing was tuned.", style="dim")
    return Group(tuning_grid(tuned).table(), Text(tuning_legend(tuned), style="dim"))


def tuning_grid(tuned: Sequence[tuple[str, Tuning]]) -> TextTable:
    """Return the table of at least one tuned arm."""
    columns = ["arm", f"best {tuned[0][1].key}", "score", "good values", "decades", "runs", "seconds", "edge"]
    grid = TextTable(columns, left_aligned=("arm", "edge"))
    for name, tuning in tuned:
        grid.add([name, *_tuning_cells(tuning)])
    return grid


def tuning_legend(tuned: Sequence[tuple[str, Tuning]]) -> str:
    """Return the sentences that explain the table of at least one tuned arm."""
    first = tuned[0][1]
    values = [trial.value for trial in first.tried]
    return (
        f"{first.key} was tuned for each arm over {len(values)} values from {values[0]:g} to"
        f" {values[-1]:g}, {text.plural(first.tried[0].runs, 'seed')} each, by {first.metric.name}; the runs"
        " above use other seeds. Good values: contiguous range around the best value with scores within"
        f" {TOLERANCE:.0%} of the best; decades: its width in factors of 10. Edge: the best value is at this"
        " end of the tested range, so a better one may lie beyond."
    )


def _tuning_cells(tuning: Tuning) -> list[str]:
    low, high = tuning.good_values
    score, decades = tuning.chosen.score, tuning.decades
    words = (
        text.format_percent(score, 1) + " %" if tuning.metric.form == "percent" else text.format_number(score)
    )
    return [
        f"{tuning.chosen.value:g}",
        f"{text.plural(tuning.chosen.lost, 'run')} lost" if score is None else words,
        "none" if score is None else f"{low:g}" if low == high else f"{low:g} to {high:g}",
        text.DASH if decades is None or score is None else f"{decades:.1f}",
        str(tuning.runs),
        f"{tuning.seconds:.1f}",
        "" if tuning.range_edge is None else f"{tuning.range_edge} end",
    ]
