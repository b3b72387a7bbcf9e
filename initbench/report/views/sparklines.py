"""Small curves of the rows: the signal over the layers at init, and the accuracy over the updates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from initbench.render.text import format_number, format_percent, plural
from initbench.report.page import Sparkline
from initbench.report.report_runs import ReportRow, ReportRuns
from initbench.report.views.convergence import mean_curve
from initbench.report.views.depth_profile import STATISTICS, values_by_layer

_STD = next(statistic for statistic in STATISTICS if statistic.key == "activation-std")
_MIN_DECADES = 2.0
"""Smallest height of the logarithmic axis of the signal, so that level signals look level."""
COLUMNS = ("signal over layers", "accuracy over updates")
"""Headings of the columns."""
NOTE = (
    "Signal: std of the activations at init, on one logarithmic axis for all rows. Accuracy: mean validation"
    " accuracy of the seeds, from 0 to 100 %."
)
"""What the curves show."""


def sparklines(report: ReportRuns) -> dict[str, list[Sparkline | str]]:
    """Return the curves of each row by its name, one for each of COLUMNS; a missing curve is empty text."""
    signals = {row.name: _signal(row) for row in report.rows}
    accuracies = {row.name: _accuracies(row) for row in report.rows}
    depth, updates = _largest_key(signals.values()), _largest_key(accuracies.values())
    logs = [value for signal in signals.values() for value in signal.values()]
    top = max(logs, default=0.0)
    height = max(top - min(logs, default=0.0), _MIN_DECADES)
    curves: dict[str, list[Sparkline | str]] = {}
    for row in report.rows:
        signal, accuracy = signals[row.name], accuracies[row.name]
        curves[row.name] = ["", ""]
        if len(signal) > 1:
            points = [
                ((layer - 1) / max(1.0, depth - 1), 1 + (value - top) / height)
                for layer, value in signal.items()
            ]
            ends = list(signal.values())
            change = format_number(10 ** (ends[-1] - ends[0]))
            words = f"std of the activations at init: ×{change} from the first layer to the last"
            curves[row.name][0] = Sparkline(points, row.style, words)
        if len(accuracy) > 1:
            points = [(step / updates, value / 100) for step, value in accuracy.items()]
            end = format_percent(list(accuracy.values())[-1] / 100, 1)
            words = f"mean validation accuracy: {end} % after {plural(round(max(accuracy)), 'update')}"
            curves[row.name][1] = Sparkline(points, row.style, words)
    return curves


def _signal(row: ReportRow) -> dict[float, float]:
    """Return the decimal logarithm of the std of the activations by layer, of the first probe."""
    if not row.moments:
        return {}
    first = row.moments[0]
    means = {
        first.layers[0][position]["index"]: _STD.mean(values)
        for position, values in values_by_layer(first, _STD).items()
    }
    return {layer: math.log10(mean) for layer, mean in means.items() if mean > 0}


def _accuracies(row: ReportRow) -> dict[float, float]:
    """Return the mean validation accuracy in percent by update."""
    return {step: mean for step, (mean, _, _) in mean_curve(row, "val_accuracy").items()}


def _largest_key(curves: Iterable[Mapping[float, float]]) -> float:
    return max((max(curve) for curve in curves if curve), default=1.0) or 1.0
