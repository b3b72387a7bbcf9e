"""Panels: the rows of a comparison next to each other in one view, each with its part of the x axis.

Facets would be the natural form, but Vega-Lite mixes up the data of facets whose layers have transforms.
The data need the columns `row` and `order`, the position of the row; the transforms add `place`, the
position of the panel from 1 on, so that hiding a row moves the next ones up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from initbench.report.theme import text_width

MAX_PANELS = 6
"""Largest number of rows that are drawn next to each other."""
_MIN_WIDTH = 100
"""Smallest width of a panel in pixels."""
_HEADING_SIZE = 12.0
"""Estimated size of the bold names above the panels, in pixels."""
_HEADING_SHARE = 0.9
"""Largest width of a name, as a share of that of its panel."""
_ALWAYS_FITTING = 3
"""Number of panels that fit into all but the smallest windows."""
_FITTING = f"max(1, min({MAX_PANELS}, floor(width / {_MIN_WIDTH})))"
"""Expression for the number of panels that fit into the figure."""

PLACES: Sequence[dict[str, Any]] = (
    {"window": [{"op": "dense_rank", "as": "place"}], "sort": [{"field": "order"}]},
    {"filter": f"datum.place <= {_FITTING}"},
)
"""Transforms that number the panels of the rows that are not hidden, and keep the first ones."""


@dataclass(frozen=True)
class PanelAxis:
    """The x axis of panels that all show the values from `low` to `high`."""

    low: float
    high: float
    rows: int
    """Number of rows, hidden ones included."""

    @property
    def stride(self) -> float:
        """Distance between the left ends of two panels."""
        return 1.06 * (self.high - self.low)

    @property
    def offset(self) -> str:
        """Expression for the distance of a value from its position on the axis."""
        return f"(datum.place - 1) * {self.stride} - {self.low}"

    @property
    def value(self) -> str:
        """Expression for the value at a tick, for labels."""
        return f"((datum.value + 1e-9) % {self.stride} + {self.low})"

    @property
    def _visible(self) -> str:
        """Expression for the number of panels that are drawn."""
        return f"max(1, min({_FITTING}, {self.rows} - length(hidden)))"

    @property
    def heading(self) -> dict[str, Any]:
        """Mark of the names of the rows, cut off at the width of a panel."""
        limit = {"expr": f"{_HEADING_SHARE} * width / {self._visible}"}
        return {"type": "text", "fontWeight": "bold", "limit": limit, "baseline": "top"}

    @property
    def scale(self) -> dict[str, Any]:
        """Scale of the axis, which ends after the last visible panel."""
        return {"domainMin": 0, "domainMax": {"expr": f"{self.stride} * {self._visible}"}, "nice": False}

    @property
    def axis(self) -> dict[str, Any]:
        """Properties of the axis that keep the labels of neighbouring panels apart."""
        return {"grid": False, "domain": False, "labelOverlap": "greedy", "labelSeparation": 3}

    def ticks(self, values: Sequence[float]) -> list[float]:
        """Return the positions of ticks at these values in every panel."""
        parts = range(min(MAX_PANELS, self.rows))
        return [part * self.stride + value - self.low for part in parts for value in values]


def panel_notes(names: Sequence[str]) -> list[str]:
    """Return sentences about rows without a panel, and the names if they may not fit above the panels.

    Args:
        names: Names of the rows, from left to right.
    """
    notes = []
    if len(names) > MAX_PANELS:
        notes.append(
            f"Of {len(names)} rows, the first {MAX_PANELS} that are not hidden are drawn, or as many as fit."
        )
    elif len(names) > _ALWAYS_FITTING:
        notes.append(f"Of {len(names)} rows, as many as fit are drawn.")
    drawn = names[:MAX_PANELS]
    if len(drawn) > 1 and any(
        text_width(name, _HEADING_SIZE) > _HEADING_SHARE * _MIN_WIDTH for name in drawn
    ):
        notes.append(f"From left to right: {', '.join(drawn)}.")
    return notes
