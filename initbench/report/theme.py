"""Colours, dashes and marks of the rows of a report, and the look of its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
"""Colours that are distinguishable with every common form of colour blindness.

The yellow of the palette, which is hard to see on white, is omitted; black is replaced with grey, which is
visible in light and dark. Source: Okabe & Ito (2008).
"""
DASHES: tuple[tuple[int, ...], ...] = ((), (6, 3), (2, 2), (8, 3, 2, 3))
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")


@dataclass(frozen=True)
class RowStyle:
    """Appearance of a row in all figures: the mark changes when the colours repeat."""

    colour: str
    dash: tuple[int, ...]
    shape: str


def row_style(index: int) -> RowStyle:
    """Return the style of the row with this position, which no other of the first 28 rows has."""
    cycle, position = divmod(index, len(OKABE_ITO))
    return RowStyle(
        OKABE_ITO[position], DASHES[cycle % len(DASHES)], SHAPES[(position + cycle) % len(SHAPES)]
    )


def row_channels(names: Sequence[str], styles: Sequence[RowStyle], *, marks: str = "line") -> dict[str, Any]:
    """Return the encoding channels of Vega-Lite that give each row its style.

    Args:
        names: The rows, which are the values of the field `row`.
        styles: Their styles.
        marks: `line` for colour and dash, `point` for colour and shape, `area` for colour alone.
    """
    domain = list(names)
    colour = _channel(domain, [style.colour for style in styles])
    if marks == "line":
        return {"color": colour, "strokeDash": _channel(domain, [list(style.dash) for style in styles])}
    if marks == "point":
        return {"color": colour, "shape": _channel(domain, [style.shape for style in styles])}
    return {"color": colour}


def _channel(domain: list[str], values: list[Any]) -> dict[str, Any]:
    return {
        "field": "row",
        "type": "nominal",
        "title": None,
        "scale": {"domain": domain, "range": values},
    }


FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"


DECADES = [10.0**exponent for exponent in range(-45, 40)]
"""Ticks of logarithmic axes, of which Vega draws those within the axis."""


def vega_config(*, legend: bool, font_size: float = 11.0) -> dict[str, Any]:
    """Return the Vega-Lite config of all figures.

    Text and axes have the colour of the surrounding text, so that figures fit light and dark pages.

    Args:
        legend: Whether figures have a legend of their own; a page has one for all figures.
        font_size: Size of labels in pixels.
    """
    ink = {"labelColor": "currentColor", "titleColor": "currentColor"}
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "aria": False,  # the page describes each figure as a whole, and has its data as a table
        "mark": {"aria": False},
        "axis": {
            **ink,
            "domainColor": "currentColor",
            "tickColor": "currentColor",
            "gridColor": "currentColor",
            "gridOpacity": 0.12,
            "domainOpacity": 0.5,
            "tickOpacity": 0.5,
            "labelFontSize": font_size,
            "titleFontSize": font_size,
            "titleFontWeight": "normal",
            "labelOverlap": True,
        },
        "header": {**ink, "labelFontSize": font_size, "titleFontSize": font_size},
        "legend": {
            **ink,
            "labelFontSize": font_size,
            "titleFontSize": font_size,
            "disable": not legend,
            "orient": "top",
            "columns": 3,
            "labelLimit": 260,
        },
        "title": {"color": "currentColor", "fontSize": font_size + 1, "anchor": "start"},
        "text": {"color": "currentColor", "fontSize": font_size},
        "rule": {"color": "currentColor"},
    }
