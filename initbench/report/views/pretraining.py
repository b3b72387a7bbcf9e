"""Layer-wise pre-training: the reconstruction loss of each layer before and after its pre-training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from initbench.analysis.stats.summary import summarise
from initbench.render.text import format_percent
from initbench.report.figure import ReportFigure, columns_of, rounded
from initbench.report.line_chart import rows_with_records
from initbench.report.parameters import HIDDEN, HIDE_ROWS, LAYER, selected_layer_rule
from initbench.report.report_runs import ReportRow, ReportRuns
from initbench.report.theme import log_axis, row_channels
from initbench.store.strict_json import parse_number_or_none

_COLUMNS = ("row", "order", "layer", "start", "end", "remaining", "n")
_DISTANCE = 0.14
"""Distance between two rows, in layers."""


def pretraining_figures(report: ReportRuns) -> Iterator[ReportFigure]:
    """Yield the losses of all pre-trained layers, if runs were pre-trained."""
    records = [record for order, row in enumerate(report.rows) for record in _records(row, order)]
    if records:
        yield ReportFigure(
            key="pretraining-loss",
            title="Reconstruction loss before and after pre-training",
            takeaway=_takeaway(records),
            caption=f"Loss of the auto-encoder of each layer before (hollow) and after (filled) its own"
            f" pre-training ({report.provenance}). Points are means over seeds. Each layer reconstructs the"
            " output of the layer before it, so losses of different layers have different scales.",
            columns=columns_of(records, _COLUMNS),
            spec=_spec(report, records),
            log_channels=("y",),
        )


def _records(row: ReportRow, order: int) -> Iterator[dict[str, Any]]:
    """Yield the means over the pre-trained runs of a row, for each layer whose losses are finite."""
    by_run = [run.record["pretraining"]["layers"] for run in row.runs if run.record.get("pretraining")]
    for layers in zip(*by_run, strict=False):
        start, end = (
            [parse_number_or_none(layer[key]) for layer in layers] for key in ("loss_start", "loss_end")
        )
        shares = [b / a if a and b is not None else None for a, b in zip(start, end, strict=True)]
        means = [summarise(values).mean for values in (start, end, shares)]
        if all(mean is not None and math.isfinite(mean) for mean in means[:2]):
            yield {
                "row": row.name,
                "order": order,
                "layer": layers[0]["layer"],
                "start": rounded(means[0]),
                "end": rounded(means[1]),
                "remaining": rounded(means[2]),
                "n": len(layers),
            }


def _takeaway(records: Sequence[dict[str, Any]]) -> str:
    words = []
    for name in list(dict.fromkeys(record["row"] for record in records))[:4]:
        shares = [
            record["remaining"]
            for record in records
            if record["row"] == name and record["remaining"] is not None
        ]
        if shares:
            span = f"{format_percent(min(shares), 1)} to {format_percent(max(shares), 1)} %"
            words.append(f"{name}: {span}")
    return f"Share of the loss of a layer that remains: {'; '.join(words)}."


def _spec(report: ReportRuns, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rows = rows_with_records(report.rows, records)
    y = {
        "field": "end",
        "type": "quantitative",
        "title": "reconstruction loss",
        "scale": {"type": "log", "nice": False, "padding": 10},
        "axis": log_axis(record[name] for record in records for name in ("start", "end")),
    }
    x = {
        "field": "x",
        "type": "quantitative",
        "title": "layer",
        "scale": {"zero": False, "nice": False, "padding": 10},
        "axis": {"values": sorted({record["layer"] for record in records}), "format": "d"},
    }
    tooltip = [
        {"field": "row", "title": "row"},
        {"field": "layer", "title": "layer"},
        {"field": "start", "title": "loss before", "format": ".4g"},
        {"field": "end", "title": "after", "format": ".4g"},
        {"field": "remaining", "title": "remaining", "format": ".2%"},
        {"field": "n", "title": "n"},
    ]
    points = row_channels(rows, marks="point")
    return {
        "height": 240,
        "params": [HIDDEN, LAYER],
        "transform": [
            HIDE_ROWS,
            {"filter": "datum.start > 0 && datum.end > 0"},
            {"window": [{"op": "dense_rank", "as": "place"}], "sort": [{"field": "order"}]},
            {"joinaggregate": [{"op": "max", "field": "place", "as": "places"}]},
            {"calculate": f"datum.layer + (datum.place - (datum.places + 1) / 2) * {_DISTANCE}", "as": "x"},
        ],
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 1.5, "opacity": 0.7},
                "encoding": {
                    "x": x,
                    "y": {**y, "field": "start"},
                    "y2": {"field": "end"},
                    **row_channels(rows, marks="area"),
                },
            },
            {
                "mark": {"type": "point", "size": 44, "strokeWidth": 1.8, "opacity": 1},
                "encoding": {"x": x, "y": {**y, "field": "start"}, **points, "tooltip": tooltip},
            },
            {
                "mark": {"type": "point", "size": 44, "filled": True, "opacity": 1},
                "encoding": {"x": x, "y": y, **points, "tooltip": tooltip},
            },
            selected_layer_rule(),
        ],
    }
