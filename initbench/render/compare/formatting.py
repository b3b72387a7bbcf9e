"""Numbers of a comparison as short text; percentages and percentage points have no unit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from initbench.analysis.metrics import HEADINGS, METRICS, Metric
from initbench.analysis.stats.confidence_intervals import Interval
from initbench.analysis.stats.mean_difference import MeanDifference
from initbench.analysis.stats.power import SeedsNeeded
from initbench.analysis.stats.summary import Summary
from initbench.analysis.tables import Row
from initbench.render import text
from initbench.render.compare.analysed_table import AnalysedTable
from initbench.render.compare.table import TableCell


def metric_heading(metric: Metric, target: float | None) -> str:
    """Return the column heading of a metric; metrics with a target name it."""
    if metric.censored:
        goal = "target" if target is None else f"{100 * target:.1f} %"
        return f"{metric.name.removesuffix('_to_target').replace('_', ' ')} to {goal}"
    unit = " %" if metric.form == "percent" else ""
    return HEADINGS.get(metric.name, metric.name + unit)


def format_value(metric: Metric, number: float | None) -> str:
    """Format one value of a metric."""
    return _form(metric)(number)


def _form(metric: Metric) -> Callable[[float | None], str]:
    if metric.form == "percent":
        decimals = 1 if metric.view == "convergence" else 0
        return lambda number: text.format_percent(number, decimals)
    forms: dict[str, Callable[[float | None], str]] = {"loss": _loss, "count": text.format_count}
    return forms.get(metric.form, text.format_number)


def _loss(number: float | None) -> str:
    """Format a loss; below 0.01 with significant digits, since training losses may be far below 0.001."""
    return (
        text.format_number(number) if number is not None and abs(number) < 0.01 else text.format_loss(number)
    )


def format_std(metric: Metric, summary: Summary) -> str:
    """Format the standard deviation; for a geometric mean, as the factor exp(std of the logarithms)."""
    if metric.log and summary.std is not None:
        return "×" + text.format_number(_exp(summary.std))
    return format_value(metric, summary.std)


def _exp(logarithm: float) -> float:
    return math.exp(logarithm) if logarithm < 700.0 else math.inf


def format_mean(metric: Metric, row: Row) -> str:
    """Format the mean of a metric in a row, or the reason why there is none."""
    summary = row.metrics[metric.name]
    if summary.mean is not None:
        return format_value(metric, summary.mean) if math.isfinite(summary.mean) else "diverged"
    if metric.name == "steps_to_target" and row.n:
        return "not reached" if not row.reached else f"reached by {row.reached} of {row.n}"
    return text.DASH


def format_mean_std(metric: Metric, row: Row) -> str:
    """Format `mean ±std`, followed by `(2 of 3)` if some runs of the row have no value."""
    summary = row.metrics[metric.name]
    words = format_mean(metric, row)
    if summary.mean is None or not math.isfinite(summary.mean):
        return words
    if summary.std is not None:
        words += f" {format_std(metric, summary)}" if metric.log else f" ±{format_std(metric, summary)}"
    return words if summary.n == row.n else f"{words} ({summary.n} of {row.n})"


def lettered_cell(judged: AnalysedTable, metric: Metric, row: Row) -> TableCell:
    """Return the cell of `mean ±std` with the letters of the mean."""
    return TableCell(format_mean_std(metric, row), judged.shown_letters(metric.name).get(row.label, ""))


def format_interval(metric: Metric, interval: Interval | None, n: int) -> str:
    """Format an interval as `[low, high]`, or the reason why there is none."""
    if interval is None:
        return f"none (n = {n})" if n == 1 else text.DASH
    if interval.is_degenerate:
        return "no spread"
    form = _form(metric)
    return f"[{form(interval.low)}, {form(interval.high)}]"


def format_difference(metric: Metric, difference: MeanDifference) -> str:
    """Format a difference as `+2.3` (percentage points for percentages), or `×2.3` for geometric means."""
    return _signed(metric, difference.difference)


def format_difference_interval(metric: Metric, difference: MeanDifference) -> str:
    """Format the interval of a difference as `[+1.1, +3.4]`, or the reason why there is none."""
    if difference.interval is None:
        return text.DASH
    if difference.interval.is_degenerate:
        return "no spread"
    return f"[{_signed(metric, difference.interval.low)}, {_signed(metric, difference.interval.high)}]"


def _signed(metric: Metric, number: float | None) -> str:
    if number is None:
        return text.DASH
    if metric.log:
        return "×" + text.format_number(number)
    sign = "−" if number < 0 else "+"
    return sign + format_value(metric, abs(number))


def format_p_value(p_value: float | None) -> str:
    """Format p with three decimals, or as `<0.001`."""
    if p_value is None:
        return text.DASH
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def format_effect_size(effect_size: float | None) -> str:
    """Format Hedges' g."""
    return text.DASH if effect_size is None else f"{effect_size:+.1f}".replace("-", "−")


def format_seeds_needed(seeds_needed: SeedsNeeded | None) -> str:
    """Format the number of seeds needed per row."""
    return text.DASH if seeds_needed is None else str(seeds_needed)


def format_config_value(value: Any) -> str:
    """Format the value of a config key."""
    return text.DASH if value is None else str(value)


def first_middle_last(row: Row, statistic: str) -> str:
    """Format the means of a statistic in the first, middle and last hidden layer as `a / b / c`."""
    metrics = [METRICS[f"{statistic}_{where}"] for where in ("first", "middle", "last")]
    return " / ".join(format_value(metric, row.metrics[metric.name].mean) for metric in metrics)
