"""Line charts: a line with points for each row, and the range of its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from initbench.report.parameters import HIDDEN, HIDE_ROWS, LAYER, STEP, selected_layer_rule
from initbench.report.report_runs import LayerRow
from initbench.report.theme import log_axis, row_channels

HEIGHT = 240
LAYER_FIELD: dict[str, Any] = {"field": "layer", "title": "layer"}
STEP_FIELD: dict[str, Any] = {"field": "step", "title": "updates", "format": ",d"}


@dataclass(frozen=True)
class LineAxes:
    """The axes of a line chart, whose data have the columns row, value, least and most."""

    x: str
    """Column of the x axis: `layer` or `step`."""
    y_title: str
    is_log: bool
    """Whether the y axis is logarithmic; records that are not positive are then not drawn."""
    reference: float | None = None
    """Value at which a dashed line is drawn."""

    @property
    def x_title(self) -> str:
        """Title of the x axis."""
        return "updates" if self.x == "step" else "layer"


def line_chart(
    all_rows: Sequence[LayerRow],
    records: Sequence[dict[str, Any]],
    axes: LineAxes,
    *,
    transforms: Sequence[dict[str, Any]] = (),
    tooltip: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Return the specification of a line chart.

    Args:
        all_rows: The rows of the report, for the styles of those that have records.
        records: The data.
        axes: The axes.
        transforms: Transforms that select the records to draw, after hidden rows are removed.
        tooltip: Fields of a tooltip between the row and the value.
    """
    rows = rows_with_records(all_rows, records)
    scale: dict[str, Any] = {"type": "log", "nice": False, "padding": 10} if axes.is_log else {"zero": True}
    y = {
        "field": "value",
        "type": "quantitative",
        "title": axes.y_title,
        "scale": scale,
        "axis": log_axis(record["value"] for record in records)
        if axes.is_log
        else {"tickCount": 5, "format": "~g", "grid": True},
    }
    x = {
        "field": axes.x,
        "type": "quantitative",
        "title": axes.x_title,
        "scale": {"zero": False, "nice": False, "padding": 10},
        "axis": {"tickMinStep": 1, "format": ",d"},
    }
    fields = [
        {"field": "row", "title": "row"},
        *tooltip,
        {"field": "value", "title": axes.y_title, "format": ".6g"},
        {"field": "least", "title": "least seed", "format": ".6g"},
        {"field": "most", "title": "most seed", "format": ".6g"},
    ]
    area = row_channels(rows, marks="area")
    positive = [{"filter": "datum.value > 0"}] if axes.is_log else []
    has_range = "isValid(datum.least)" + " && datum.least > 0" * axes.is_log
    seeds: dict[str, Any] = {
        "transform": [{"filter": has_range}],
        "mark": {"type": "rule", "opacity": 0.5},
        "encoding": {"x": x, "y": {**y, "field": "least"}, "y2": {"field": "most"}, **area},
    }
    reference = {
        "mark": {"type": "rule", "strokeDash": [4, 3], "opacity": 0.7},
        "encoding": {
            "y": {**{key: value for key, value in y.items() if key != "field"}, "datum": axes.reference}
        },
    }
    return {
        "height": HEIGHT,
        "params": [HIDDEN, STEP, LAYER],
        "transform": [HIDE_ROWS, *transforms, *positive],
        "layer": [
            *([reference] if axes.reference is not None else []),
            seeds,
            {
                "mark": {"type": "line", "strokeWidth": 2},
                "encoding": {"x": x, "y": y, **row_channels(rows)},
            },
            {
                "mark": {"type": "point", "size": 36, "filled": True, "opacity": 1},
                "encoding": {
                    "x": x,
                    "y": y,
                    **row_channels(rows, marks="point"),
                    "tooltip": fields,
                },
            },
            *([selected_layer_rule()] if axes.x == "layer" else []),
        ],
    }


def rows_with_records(rows: Sequence[LayerRow], records: Sequence[dict[str, Any]]) -> list[LayerRow]:
    """Return the rows that have records, which name their row in the column `row`."""
    names = {record["row"] for record in records}
    return [row for row in rows if row.name in names]
