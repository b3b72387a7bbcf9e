"""Plots of `--plot`: mean accuracy or loss of each row against the steps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from initbench.analysis.metrics import METRICS
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.stats.summary import Summary, summarise
from initbench.analysis.tables import Row
from initbench.errors import UsageError
from initbench.render import text
from initbench.render.braille_plot import ASCII_MARKS, MARKS, MAX_CURVES, plot_curves
from initbench.render.compare import notes
from initbench.render.compare.analysed_table import AnalysedTable
from initbench.render.compare.display_options import View
from initbench.render.compare.table import ComparisonTable
from initbench.store.scores import SCORES

MAX_WIDTH = 100
_CURVES = {
    "final_train_loss": "train_loss",
    "final_val_loss": "val_loss",
    **{f"{moment}_val_{score.name}": f"val_{score.name}" for score in SCORES for moment in ("best", "final")},
    "steps_to_target": "",
    "area_under_curve": "",
}
"""Key, in an evaluation, of the quantity that a metric is computed from; empty for the main score."""
_OF_METRIC = {name: key for name, key in _CURVES.items() if name in METRICS}
_PERCENT = frozenset(f"val_{score.name}" for score in SCORES if score.form == "percent")
_LOG_SCALED = ("loss", "mse", "perplexity")
_TITLES = {
    "train_loss": "training loss",
    "val_loss": "validation loss",
    **{f"val_{score.name}": f"validation {score.title}" for score in SCORES},
}


@dataclass(frozen=True)
class _Curve:
    row: Row
    runs: int
    """Number of runs that are averaged."""
    points: list[tuple[float, float]]
    last: Summary
    """Mean and spread at the last point."""


def curve_plots(judged: AnalysedTable, view: View, title: str) -> list[ComparisonTable]:
    """Return plots with up to MAX_CURVES rows each; raise UsageError for a metric without a curve."""
    main = _main_score(judged)
    names = view.metrics or (f"final_{main}",)
    for name in names:
        if name not in _OF_METRIC:
            raise UsageError(f"--plot cannot draw {name!r}; it draws {', '.join(_OF_METRIC)}")
    quantities = dict.fromkeys(_OF_METRIC[name] or main for name in names)
    return [block for quantity in quantities for block in _plots(judged, view, title, quantity)]


def _main_score(judged: AnalysedTable) -> str:
    """Return the key of the score that most runs have as their main score."""
    keys = Counter(run.main_score for row in judged.rows for run in row.group.runs)
    return keys.most_common(1)[0][0] if keys else "val_accuracy"


def _plots(judged: AnalysedTable, view: View, title: str, quantity: str) -> list[ComparisonTable]:
    all_curves = [_curve(row, quantity) for row in judged.rows]
    drawn = [curve for curve in all_curves if curve.points]
    empty = [text.one_line(curve.row.label) for curve in all_curves if not curve.points]
    parts = [drawn[i : i + MAX_CURVES] for i in range(0, len(drawn), MAX_CURVES)]
    blocks = [_plot_table(part, view, title, quantity) for part in parts] or [ComparisonTable(title, [])]
    blocks[-1].notes.append(
        "Lines are means over seeds, interpolated between evaluations; ± is the standard deviation."
    )
    if empty:
        blocks[-1].warnings.append(f"No evaluations to plot: {', '.join(empty)}.")
    blocks[-1].warnings += notes.row_warnings(judged)
    return blocks


def _plot_table(part: Sequence[_Curve], view: View, title: str, quantity: str) -> ComparisonTable:
    ascii_only = view.ascii_only or view.format == "latex"
    lines = plot_curves(
        [curve.points for curve in part],
        f"{_TITLES[quantity]}{', %' * (quantity in _PERCENT)}, against steps",
        width=min(MAX_WIDTH, view.width or MAX_WIDTH),
        may_be_log=quantity.endswith(_LOG_SCALED),
        ascii_only=ascii_only,
    )
    marks = ASCII_MARKS if ascii_only else MARKS
    legend = [f"{mark} {_legend_entry(curve, quantity)}" for mark, curve in zip(marks, part, strict=False)]
    return ComparisonTable(title, [], picture=[*lines, "", *legend])


def _curve(row: Row, quantity: str) -> _Curve:
    """Return the mean curve of the finished runs, or of the diverged runs if none finished."""
    complete = [run for run in row.group.runs if run.is_complete]
    runs = [run for run in complete if run.is_finished] or complete
    values = [_values(run, quantity) for run in runs]
    steps = sorted(set.intersection(*(set(by_step) for by_step in values))) if values else []
    means = [(step, summarise([by_step[step] for by_step in values])) for step in steps]
    points = [(step, mean.mean) for step, mean in means if mean.mean is not None]
    return _Curve(row, len(runs), points, means[-1][1] if means else Summary(None, None, 0))


def _values(run: RunSummary, quantity: str) -> dict[float, float]:
    """Return the finite values of a quantity by step; accuracies in percent."""
    scale = 100.0 if quantity in _PERCENT else 1.0
    return {
        step: scale * value
        for step, value in run.curve(quantity)
        if step is not None and value is not None and math.isfinite(value)
    }


def _legend_entry(curve: _Curve, quantity: str) -> str:
    """Return a line of the legend: the row, n, the end of the curve, and the number of omitted runs."""
    row, (step, _) = curve.row, curve.points[-1]
    form = "{:.1f}".format if quantity in _PERCENT else text.format_number
    spread = "" if curve.last.std is None else f" ±{form(curve.last.std)}"
    end = f"{form(curve.last.mean or 0.0)}{spread} at {step:,.0f}"
    finished = row.n - row.diverged
    if not finished:
        suffix = ", where the first run diverged" if row.n > 1 else ", then diverged"
    else:
        suffix = f", without {text.plural(row.diverged, 'diverged run')}" if row.diverged else ""
    return f"{text.one_line(row.label)}  n = {curve.runs}  {end}{suffix}"
