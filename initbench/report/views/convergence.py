"""Learning curves: every seed as a thin line, and the mean of each row with its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from initbench.analysis.run_summary import RunSummary
from initbench.analysis.stats.confidence_intervals import mean_interval
from initbench.render.compare.titles import distinguishing_terms
from initbench.render.text import format_loss, format_percent, plural
from initbench.report.figure import ReportFigure, columns_of, rounded
from initbench.report.parameters import BASELINE, HIDDEN, HIDE_ROWS, relative_to_baseline
from initbench.report.report_runs import ReportRow, ReportRuns
from initbench.report.theme import log_axis, row_channels

ACCURACY, TRAIN_LOSS = 3, 1
"""Positions of the quantities in an evaluation."""
_COLUMNS = ("row", "seed", "step", "kind", "value", "low", "high")


def convergence_figures(report: ReportRuns) -> Iterator[ReportFigure]:
    """Yield the curves of validation accuracy and of training loss, if runs have evaluations."""
    if any(run.evaluations for row in report.rows for run in row.summaries):
        if any(point[ACCURACY] is not None for row in report.rows for point in _points(row)):
            yield _figure(report, ACCURACY, "validation-accuracy", "Validation accuracy", "accuracy, %")
        yield _figure(report, TRAIN_LOSS, "training-loss", "Training loss", "loss")


def _figure(report: ReportRuns, quantity: int, key: str, title: str, axis: str) -> ReportFigure:
    records = [record for row in report.rows for record in _records(row, quantity)]
    confidence = report.tables[0].confidence
    is_loss = quantity == TRAIN_LOSS
    return ReportFigure(
        key=key,
        title=title,
        takeaway=_takeaway(report, quantity),
        caption=" ".join([f"{title} against updates ({report.provenance}).", *_marks(records, confidence)]),
        columns=columns_of(records, _COLUMNS),
        spec=_spec(report, axis, records, floor=_smallest(records) if is_loss else None),
        log_channels=("y",) if is_loss else (),
    )


def _marks(records: Sequence[dict[str, Any]], confidence: float) -> Iterator[str]:
    """Yield sentences on the marks that the figure has."""
    if len({(record["row"], record["seed"]) for record in records if record["kind"] == "seed"}) > len(
        {record["row"] for record in records}
    ):
        yield "Thin lines are seeds, thick lines with marks their means."
    else:
        yield "Each line is one seed."
    if any(record.get("low") is not None for record in records):
        yield f"Bands: {100 * confidence:g} % interval of the mean (Student's t)."
    if any(record["kind"] == "diverged" for record in records):
        yield "Crosses mark divergences."


def _points(row: ReportRow) -> Iterator[list[float | None]]:
    for run in row.summaries:
        yield from run.evaluations


def _values(run: RunSummary, quantity: int) -> dict[float, float]:
    """Return the finite values of a run by step; accuracies in percent."""
    scale = 100.0 if quantity == ACCURACY else 1.0
    return {
        float(point[0]): scale * value
        for point in run.evaluations
        if point[0] is not None and (value := point[quantity]) is not None and math.isfinite(value)
    }


def _records(row: ReportRow, quantity: int) -> Iterator[dict[str, Any]]:
    runs = [(run, _values(run, quantity)) for run in row.summaries if run.is_complete]
    for run, values in runs:
        for step, value in values.items():
            yield {"row": row.name, "seed": run.seed, "step": step, "kind": "seed", "value": rounded(value)}
        if run.diverged_step is not None and values:
            last = max(values)
            yield {
                "row": row.name,
                "seed": run.seed,
                "step": max(run.diverged_step, last),
                "kind": "diverged",
                "value": rounded(values[last]),
            }
    for step, (mean, low, high) in mean_curve(row, quantity).items():
        interval = {"low": rounded(low), "high": rounded(high)}
        yield {"row": row.name, "step": step, "kind": "mean", "value": rounded(mean), **interval}


def mean_curve(row: ReportRow, quantity: int) -> dict[float, tuple[float, float | None, float | None]]:
    """Return mean and interval by step, at the steps that all finished runs have."""
    curves = [_values(run, quantity) for run in row.summaries if run.is_finished]
    if not curves:
        return {}
    means = {}
    for step in sorted(set.intersection(*map(set, curves))):
        values = [curve[step] for curve in curves]
        interval = mean_interval(values, row.table.confidence)
        ends = (interval.low, interval.high) if interval is not None else (None, None)
        means[step] = (math.fsum(values) / len(values), *ends)
    return means


def _takeaway(report: ReportRuns, quantity: int) -> str:
    """Compare the ends of the curves, separately for each table: other data or budgets are not comparable."""
    tables = [table.table for table in report.tables]
    sentences = []
    for table in report.tables:
        sentence = _best_and_worst([row for row in report.rows if row.table is table], quantity)
        terms = distinguishing_terms(table.table, tables)
        if sentence:
            sentences.append(f"{terms}: {sentence}" if terms else sentence)
    diverged = [row.name for row in report.rows if row.row.diverged == row.row.n > 0]
    if diverged:
        more = f" and {plural(len(diverged) - 3, 'more row')}" if len(diverged) > 3 else ""
        sentences.append(f"{', '.join(diverged[:3])}{more} diverged under every seed.")
    return " ".join(sentences) or "No run was evaluated."


def _best_and_worst(rows: Sequence[ReportRow], quantity: int) -> str:
    """Name the rows whose mean curves end best and worst; return no words if no row has a mean."""
    is_accuracy = quantity == ACCURACY
    curves = {row.name: means for row in rows if (means := mean_curve(row, quantity))}
    ends = sorted(((means[max(means)][0], name) for name, means in curves.items()), reverse=is_accuracy)
    if not ends:
        return ""
    (best, name), (worst, last) = ends[0], ends[-1]
    what = "validation accuracy" if is_accuracy else "training loss"
    if len(ends) == 1:
        return f"{name} ends with the mean {what} {_format(best, quantity)}."
    words = f"{name} ends with the best mean {what}, {_format(best, quantity)}"
    return f"{words}; {last} ends with {_format(worst, quantity)}."


def _format(value: float, quantity: int) -> str:
    return f"{format_percent(value / 100, 1)} %" if quantity == ACCURACY else format_loss(value)


def _smallest(records: Sequence[dict[str, Any]]) -> float:
    """Return the smallest positive value, where a logarithmic axis cuts off intervals that reach zero."""
    return min(
        (record["value"] for record in records if record["value"] and record["value"] > 0), default=1.0
    )


def _spec(
    report: ReportRuns, axis: str, records: Sequence[dict[str, Any]], *, floor: float | None
) -> dict[str, Any]:
    """Return the specification, with a logarithmic axis if there is a `floor` for intervals."""
    is_log = floor is not None
    lines = row_channels(report.rows)
    points = row_channels(report.rows, marks="point")
    area = row_channels(report.rows, marks="area")
    x = {"field": "step", "type": "quantitative", "title": "updates"}
    # Differences from a baseline have no fixed limits.
    scale: dict[str, Any] = (
        {"type": "log", "nice": False}
        if is_log
        else {
            "domainMin": {"expr": "baseline ? null : 0"},
            "domainMax": {"expr": "baseline ? null : 100"},
        }
    )
    ticks = log_axis(record["value"] for record in records) if is_log else {}
    y = {"field": "shown", "type": "quantitative", "title": axis, "scale": scale, "axis": ticks}
    tooltip = [
        {"field": "row", "title": "row"},
        {"field": "seed", "title": "seed"},
        {"field": "step", "title": "updates", "format": ",d"},
        {"field": "value", "title": axis, "format": ".6g"},
        {"field": "low", "title": "interval from", "format": ".6g"},
        {"field": "high", "title": "to", "format": ".6g"},
    ]
    return {
        "height": 240,
        "params": [HIDDEN, BASELINE],
        "transform": [
            HIDE_ROWS,
            *([{"filter": "datum.value > 0"}] if is_log else []),
            *relative_to_baseline("value", ["step", "kind"], as_ratio=is_log, only="datum.kind == 'mean'"),
        ],
        "encoding": {"x": x},
        "layer": [
            {
                "transform": [
                    {"filter": "datum.kind == 'mean' && isValid(datum.low) && !baseline"},
                    {"calculate": "datum.low" if floor is None else f"max(datum.low, {floor})", "as": "from"},
                ],
                # Bands of many rows would hide the lines.
                "mark": {"type": "area", "opacity": min(0.15, 0.45 / len(report.rows)), "clip": True},
                "encoding": {
                    "y": {"field": "from", "type": "quantitative", "scale": scale, "title": axis},
                    "y2": {"field": "high"},
                    **area,
                },
            },
            {
                "transform": [{"filter": "datum.kind == 'seed' && !baseline"}],
                "mark": {"type": "line", "strokeWidth": 0.8, "opacity": 0.45},
                "encoding": {"y": y, "detail": {"field": "seed"}, **area},
            },
            {
                "transform": [{"filter": "datum.kind == 'mean'"}],
                "mark": {"type": "line", "strokeWidth": 2.4},
                "encoding": {"y": y, **lines},
            },
            {
                "transform": [{"filter": "datum.kind == 'mean'"}],
                "mark": {"type": "point", "size": 30, "filled": True, "opacity": 1},
                "encoding": {"y": y, **points, "tooltip": tooltip},
            },
            {
                "transform": [{"filter": "datum.kind == 'diverged' && !baseline"}],
                "mark": {"type": "point", "shape": "cross", "angle": 45, "size": 90, "filled": True},
                "encoding": {"y": y, **area, "tooltip": tooltip},
            },
        ],
    }
