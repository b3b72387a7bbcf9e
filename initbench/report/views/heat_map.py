"""Heat maps of a statistic over layers and steps: one panel for each row of the comparison."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

from initbench.render.text import format_number
from initbench.report.colour_legend import logarithmic_colour
from initbench.report.figure import ReportFigure, columns_of, rounded
from initbench.report.panels import PLACES, PanelAxis, panel_notes
from initbench.report.parameters import AT_STEP, HIDDEN, HIDE_ROWS, LAYER, STEP
from initbench.report.report_runs import ReportRow, ReportRuns
from initbench.report.views.depth_profile import STATISTICS, DepthStatistic, values_by_layer

KEYS = ("activation-std", "gradient")
"""Keys of the statistics that have a heat map."""
_COLUMNS = ("row", "order", "step", "until", "layer", "value", "column", "next_column")
_HEADING = 20.0
"""Height of the headings in pixels."""


def heat_map_figures(report: ReportRuns) -> Iterator[ReportFigure]:
    """Yield the heat map of each statistic that changes over at least two probes."""
    if len(report.steps) < 2:
        return
    for statistic in (statistic for statistic in STATISTICS if statistic.key in KEYS):
        records = [
            record
            for order, row in enumerate(report.rows)
            for record in _records(row, order, statistic, report.steps)
        ]
        if any(record["value"] for record in records):
            yield _figure(report, statistic, records)


def _records(
    row: ReportRow, order: int, statistic: DepthStatistic, steps: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Yield a record for each cell, which reaches from the column of its step to that of the next probe."""
    for moment in row.moments:
        for position, values in values_by_layer(moment, statistic).items():
            yield {
                "row": row.name,
                "order": order,
                "step": moment.step,
                "until": moment.until,
                "layer": moment.layers[0][position]["index"],
                "value": rounded(statistic.mean(values)),
                "column": steps.index(moment.step),
                "next_column": bisect_left(steps, moment.until),
            }


def _figure(report: ReportRuns, statistic: DepthStatistic, records: list[dict[str, Any]]) -> ReportFigure:
    caption = (
        f"{statistic.title} in each layer at each probe ({report.provenance}), {statistic.kind_of_mean} over"
        " seeds. Columns are probes, not to scale; all panels share one colour scale."
    )
    if any(not record["value"] for record in records):
        caption += " Grey: zero."
    if max(_coloured(report, records)) < max(record["value"] for record in records):
        caption += " Values of diverged rows beyond the legend have the colour of its end."
    return ReportFigure(
        key=f"heat-{statistic.key}",
        title=f"{statistic.title}, by layer and step",
        takeaway=_takeaway(report, statistic),
        caption=caption,
        columns=columns_of(records, _COLUMNS),
        spec=_spec(report, statistic, records),
        size="full" if len(report.rows) > 2 else "half",
        notes=panel_notes(report.names),
        hint="Outlined: the selected layer and step, which a click on a cell selects.",
    )


def _coloured(report: ReportRuns, records: Sequence[dict[str, Any]]) -> list[float]:
    """Return the positive values that colours distinguish: those of rows with a run that did not diverge.

    The values of diverged runs may be larger by any factor. All values count if every run diverged.
    """
    trained = {row.name for row in report.rows if row.row.diverged < row.row.n}
    positive = [record for record in records if record["value"]]
    of_trained = [record["value"] for record in positive if record["row"] in trained]
    return of_trained or [record["value"] for record in positive]


def _takeaway(report: ReportRuns, statistic: DepthStatistic) -> str:
    """Compare the ends of the net, in the direction of the pass, at the first and the last probe."""
    words = []
    for row in report.rows[:4]:
        if len(row.moments) < 2:
            continue
        ratios = []
        for moment in (row.moments[0], row.moments[-1]):
            means = [
                statistic.mean(values)
                for position, values in values_by_layer(moment, statistic).items()
                if moment.layers[0][position]["act"] is not None
            ]
            last, first = (0, -1) if statistic.limit_at == -1 else (-1, 0)
            ratios.append(means[last] / means[first] if means and means[first] else None)
        start, end = (format_number(ratio) for ratio in ratios)
        words.append(f"{row.name}: ×{start} at init, ×{end} at step {row.moments[-1].step:,}")
    way = "from the last hidden layer to the first" if statistic.limit_at == -1 else "over the hidden layers"
    return f"Change {way}: {'; '.join(words)}." if words else ""


def _spec(report: ReportRuns, statistic: DepthStatistic, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    layers = sorted({record["layer"] for record in records})
    panels = PanelAxis(0.0, float(len(report.steps)), len(report.rows))
    height = min(420.0, len(layers) * max(15.0, min(26.0, 150 / len(layers))))
    top = layers[0] - 0.5 - _HEADING * len(layers) / height
    columns = range(len(report.steps))
    x = {
        "field": "x",
        "type": "quantitative",
        "title": "updates",
        "scale": panels.scale,
        "axis": {
            **panels.axis,
            "ticks": False,
            "values": panels.ticks([column + 0.5 for column in columns]),
            "labelExpr": f"format({report.steps}[floor({panels.value})], ',d')",
        },
    }
    y = {
        "field": "y",
        "type": "quantitative",
        "title": "layer",
        "scale": {"domain": [layers[-1] + 0.5, top], "nice": False, "zero": False},
        "axis": {**panels.axis, "values": layers, "tickCount": len(layers), "ticks": False},
    }
    without_field = {key: value for key, value in y.items() if key != "field"}
    cell = {"x": x, "x2": {"field": "x2"}, "y": y, "y2": {"field": "y2"}}
    tooltip = [
        {"field": "row", "title": "row"},
        {"field": "layer", "title": "layer"},
        {"field": "step", "title": "updates", "format": ",d"},
        {"field": "value", "title": statistic.axis, "format": ".4g"},
    ]
    return {
        "height": height + _HEADING,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "params": [HIDDEN, STEP, LAYER],
        "transform": [
            HIDE_ROWS,
            *PLACES,
            {"calculate": f"datum.column + {panels.offset}", "as": "x"},
            {"calculate": f"datum.next_column + {panels.offset}", "as": "x2"},
            {"calculate": "datum.layer - 0.5", "as": "y"},
            {"calculate": "datum.layer + 0.5", "as": "y2"},
        ],
        "layer": [
            {
                "transform": [{"filter": "!(datum.value > 0)"}],
                "mark": {"type": "rect", "color": "currentColor", "opacity": 0.15},
                "encoding": {**cell, "tooltip": tooltip},
            },
            {
                "transform": [{"filter": "datum.value > 0"}],
                "mark": {"type": "rect"},
                "encoding": {
                    **cell,
                    "color": {
                        "field": "value",
                        **logarithmic_colour(_coloured(report, records), f"{statistic.axis}, logarithmic"),
                    },
                    "tooltip": tooltip,
                },
            },
            *_outlines(AT_STEP, cell),
            *_outlines({"filter": "datum.layer === layer"}, cell),
            {
                "transform": [
                    {"aggregate": [{"op": "min", "field": "place", "as": "place"}], "groupby": ["row"]},
                    {"calculate": f"{len(report.steps) / 2} + {panels.offset}", "as": "x"},
                ],
                "mark": panels.heading,
                "encoding": {
                    "x": x,
                    "y": {**without_field, "datum": top},
                    "text": {"field": "row"},
                    "tooltip": {"field": "row"},
                },
            },
        ],
    }


def _outlines(selected: dict[str, Any], cell: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the outline of the selected cells of each panel, black on white to be visible on all colours."""
    ends = [
        {"op": op, "field": field, "as": field}
        for field, op in (("x", "min"), ("x2", "max"), ("y", "min"), ("y2", "max"))
    ]
    for colour, width in (("white", 3.0), ("black", 1.4)):
        yield {
            "transform": [selected, {"aggregate": ends, "groupby": ["row"]}],
            "mark": {"type": "rect", "fill": None, "stroke": colour, "strokeWidth": width},
            "encoding": cell,
        }
