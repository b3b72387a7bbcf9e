"""Parameters that all figures of a page share, and the transforms that depend on them.

A page sets them through the Vega signals of the same names, so that hiding a row, pinning a baseline, or
selecting a layer or step changes every figure at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HIDDEN: dict[str, Any] = {"name": "hidden", "value": []}
"""Names of the rows that are not drawn."""
BASELINE: dict[str, Any] = {"name": "baseline", "value": ""}
"""Name of the row that the others are compared with; empty for none."""
LAYER: dict[str, Any] = {"name": "layer", "value": None}
"""Number of the selected layer, or null."""
STEP: dict[str, Any] = {"name": "step", "value": 0}
"""Step whose layers are drawn."""
POINT: dict[str, Any] = {"name": "point", "value": None}
"""Number of the selected point of a map, or null."""

HIDE_ROWS: dict[str, Any] = {"filter": "indexof(hidden, datum.row) < 0"}
"""Removes the hidden rows."""
AT_STEP: dict[str, Any] = {"filter": "datum.step <= step && step < datum.until"}
"""Keeps the probe of each row that stands for the selected step."""


def relative_to_baseline(
    field: str, groupby: Sequence[str], *, as_ratio: bool, only: str = "true"
) -> list[dict[str, Any]]:
    """Return transforms that add the column `shown`: the field, or its difference from the baseline's value.

    Args:
        field: The column to show.
        groupby: Columns that identify the records that are compared with each other.
        as_ratio: Whether to divide by the baseline's value instead of subtracting it.
        only: Expression for the records that are compared; the others keep their values.
    """
    operator = "/" if as_ratio else "-"
    return [
        {"calculate": f"datum.row == baseline ? datum.{field} : null", "as": "of_baseline"},
        {
            "joinaggregate": [{"op": "max", "field": "of_baseline", "as": "reference"}],
            "groupby": list(groupby),
        },
        {
            "calculate": f"baseline == '' || !({only}) ? datum.{field} : isValid(datum.reference) ?"
            f" datum.{field} {operator} datum.reference : null",
            "as": "shown",
        },
    ]


def selected_layer_rule(channel: str = "x") -> dict[str, Any]:
    """Return a layer of a specification that marks the selected layer with a line."""
    return {
        "transform": [{"filter": "datum.layer === layer"}],
        "mark": {"type": "rule", "strokeWidth": 1.5},
        "encoding": {channel: {"field": "layer", "type": "quantitative"}},
    }
