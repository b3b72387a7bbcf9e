"""Batch norm: its running statistics against depth, and the accuracy with three kinds of statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from initbench.analysis.metrics import METRICS
from initbench.render.text import format_percent, format_share
from initbench.report.figure import ReportFigure, columns_of, rounded
from initbench.report.line_chart import LAYER_FIELD, STEP_FIELD, LineAxes, line_chart, rows_with_records
from initbench.report.parameters import AT_STEP, HIDDEN, HIDE_ROWS
from initbench.report.report_runs import Layer, ReportRow, ReportRuns
from initbench.report.theme import row_channels
from initbench.report.views.depth_profile import DepthStatistic, values_by_layer


def _of_batch_norm(name: str) -> Callable[[Layer], float | None]:
    return lambda layer: layer.get("batch_norm", {}).get(name)


_MEAN_GAP = DepthStatistic(
    "running-mean-gap",
    "Gap of the running means",
    "gap, standard deviations",
    _of_batch_norm("running_mean_gap"),
    True,
)
_VARIANCE_RATIO = DepthStatistic(
    "running-variance-ratio",
    "Ratio of the running variances",
    "running / batch variance",
    _of_batch_norm("running_var_ratio"),
    True,
    is_geometric=True,
)
_MEANINGS = {
    _MEAN_GAP.key: "Distance of the running means of batch norm from the means of the probe batch, in its"
    " standard deviations",
    _VARIANCE_RATIO.key: "Running variances of batch norm divided by the variances of the probe batch",
}
_DEPTH_COLUMNS = ("row", "step", "until", "layer", "value", "least", "most")
_KINDS = {"running statistics": "", "batch statistics": "_batch", "population statistics": "_population"}
"""Statistics that batch norm normalises with in an evaluation, with the suffixes of their metrics."""
_MOMENTS = {"init": "at init", "final": "after the last step"}
_ACCURACY_COLUMNS = ("row", "statistics", "value", "low", "high", "n")


def batch_norm_figures(report: ReportRuns) -> Iterator[ReportFigure]:
    """Yield the figures about the running statistics and the accuracies of nets with batch norm."""
    for statistic in (_MEAN_GAP, _VARIANCE_RATIO):
        records = [record for row in report.rows for record in _depth_records(row, statistic)]
        if records:
            yield _depth_figure(report, statistic, records)
    for moment in _MOMENTS:
        records = [record for row in report.rows for record in _accuracy_records(row, moment)]
        if records:
            yield _accuracy_figure(report, moment, records)


def _depth_records(row: ReportRow, statistic: DepthStatistic) -> Iterator[dict[str, Any]]:
    for moment in row.moments:
        for position, values in values_by_layer(moment, statistic).items():
            yield {
                "row": row.name,
                "step": moment.step,
                "until": moment.until,
                "layer": moment.layers[0][position]["index"],
                "value": rounded(statistic.mean(values)),
                "least": rounded(min(values)) if len(values) > 1 else None,
                "most": rounded(max(values)) if len(values) > 1 else None,
            }


def _depth_figure(
    report: ReportRuns, statistic: DepthStatistic, records: Sequence[dict[str, Any]]
) -> ReportFigure:
    ideal = 1.0 if statistic is _VARIANCE_RATIO else None
    return ReportFigure(
        key=f"norm-{statistic.key}",
        title=f"{statistic.title} of batch norm",
        takeaway=_depth_takeaway(statistic, records),
        caption=f"{_MEANINGS[statistic.key]} ({report.provenance}). Points are {statistic.kind_of_mean} over"
        " seeds, bars the smallest and largest seed."
        + (" Dashed: equal variances." if ideal is not None else ""),
        columns=columns_of(records, _DEPTH_COLUMNS),
        spec=line_chart(
            report.rows,
            records,
            LineAxes("layer", statistic.axis, statistic.is_log, ideal),
            transforms=[AT_STEP],
            tooltip=[LAYER_FIELD, STEP_FIELD],
        ),
        log_channels=("y",),
    )


def _names(records: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(record["row"] for record in records))


def _depth_takeaway(statistic: DepthStatistic, records: Sequence[dict[str, Any]]) -> str:
    words = []
    for name in _names(records)[:4]:
        of_row = [record for record in records if record["row"] == name]
        last = max(record["step"] for record in of_row)
        values = [record["value"] for record in of_row if record["step"] == last]
        span = f"{format_share(min(values))} to {format_share(max(values))}"
        words.append(f"{name}: {span} at step {last:,}")
    return f"{statistic.title}: {'; '.join(words)}."


def _accuracy_records(row: ReportRow, moment: str) -> Iterator[dict[str, Any]]:
    """Yield the mean accuracy with each kind of statistics; none for a net without batch norm."""
    if not row.row.metrics[f"{moment}_val_accuracy_batch"].n:
        return
    for kind, suffix in _KINDS.items():
        metric = METRICS[f"{moment}_val_accuracy{suffix}"]
        summary, interval = row.row.metrics[metric.name], row.table.interval(row.row, metric.name)
        if summary.mean is not None:
            yield {
                "row": row.name,
                "statistics": kind,
                "value": rounded(100 * summary.mean),
                "low": None if interval is None else rounded(100 * interval.low),
                "high": None if interval is None else rounded(100 * interval.high),
                "n": summary.n,
            }


def _accuracy_figure(report: ReportRuns, moment: str, records: Sequence[dict[str, Any]]) -> ReportFigure:
    when = _MOMENTS[moment]
    return ReportFigure(
        key=f"norm-accuracy-{'init' if moment == 'init' else 'end'}",
        title=f"Accuracy with batch, running and population statistics {when}",
        takeaway=_accuracy_takeaway(records, when),
        caption=f"Validation accuracy {when}, when batch norm normalises with its running statistics, with"
        " those of each evaluated batch, or with those recomputed over training samples"
        f" ({report.provenance}). Points are means over seeds, bars their"
        f" {100 * report.tables[0].confidence:g} % intervals (Student's t).",
        columns=columns_of(records, _ACCURACY_COLUMNS),
        spec=_accuracy_spec(report, records),
    )


def _accuracy_takeaway(records: Sequence[dict[str, Any]], when: str) -> str:
    words = []
    for name in _names(records)[:4]:
        accuracies = [
            f"{format_percent(record['value'] / 100, 1)} % with {record['statistics']}"
            for record in records
            if record["row"] == name
        ]
        words.append(f"{name}: {', '.join(accuracies)}")
    return f"Accuracy {when}: {'; '.join(words)}."


def _accuracy_spec(report: ReportRuns, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rows = rows_with_records(report.rows, records)
    names = [row.name for row in rows]
    x = {
        "field": "value",
        "type": "quantitative",
        "title": "validation accuracy, %",
        "scale": {"zero": False, "nice": True},
        "axis": {"tickCount": 5},
    }
    y = {
        "field": "statistics",
        "type": "nominal",
        "title": None,
        "scale": {"domain": list(_KINDS), "paddingInner": 0.3},
        "axis": {"domain": False, "ticks": False},
    }
    offset = {"field": "row", "scale": {"domain": names}} if len(names) > 1 else None
    position = {"y": y, **({"yOffset": offset} if offset else {})}
    tooltip = [
        {"field": "row", "title": "row"},
        {"field": "statistics", "title": "statistics"},
        {"field": "value", "title": "validation accuracy, %", "format": ".4g"},
        {"field": "low", "title": "interval from", "format": ".4g"},
        {"field": "high", "title": "to", "format": ".4g"},
        {"field": "n", "title": "n"},
    ]
    colour = row_channels(rows, marks="area")
    return {
        "height": max(120, 3 * (14 * len(names) + 10)),
        "autosize": {"type": "fit-x", "contains": "padding"},
        "params": [HIDDEN],
        "transform": [HIDE_ROWS],
        "layer": [
            {
                "transform": [{"filter": "isValid(datum.low)"}],
                "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.6},
                "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, **position, **colour},
            },
            {
                "mark": {"type": "point", "size": 60, "filled": True, "opacity": 1},
                "encoding": {
                    "x": x,
                    **position,
                    **row_channels(rows, marks="point"),
                    "tooltip": tooltip,
                },
            },
        ],
    }
