"""Colours, dashes and marks of the rows of a report, and the look of its figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
"""Colours that are distinguishable with every common form of colour blindness.

The yellow of the palette, which is hard to see on white, is omitted; black is replaced with grey, which is
visible in light and dark. Source: Okabe & Ito (2008).
"""
DASHES: tuple[tuple[int, ...], ...] = ((), (6, 3), (2, 2), (8, 3, 2, 3))
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")


@dataclass(frozen=True)
class RowStyle:
    """Appearance of a row in all figures; dash and mark distinguish rows without colours."""

    colour: str
    dash: tuple[int, ...]
    shape: str


def row_style(index: int) -> RowStyle:
    """Return the style of the row with this position.

    The numbers of dashes and of marks have no common divisor, so that no two of the first 28 rows have both
    the same dash and the same mark.
    """
    return RowStyle(
        OKABE_ITO[index % len(OKABE_ITO)], DASHES[index % len(DASHES)], SHAPES[index % len(SHAPES)]
    )


class StyledRow(Protocol):
    """A row of a report, which all figures show in its style."""

    @property
    def name(self) -> str:
        """Name of the row in the report."""

    @property
    def style(self) -> RowStyle:
        """Style of the row in all figures."""


def row_channels(rows: Sequence[StyledRow], *, marks: str = "line") -> dict[str, Any]:
    """Return the encoding channels of Vega-Lite that give each row its style.

    Args:
        rows: The rows, whose names are the values of the field `row`.
        marks: `line` for colour and dash, `point` for colour and shape, `area` for colour alone.
    """
    domain, styles = [row.name for row in rows], [row.style for row in rows]
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


def log_axis(values: Iterable[float | None]) -> dict[str, Any]:
    """Return the properties of a logarithmic y axis: its ticks, and labels such as 0.01 and 1e-3.

    If the values that are visible span less than two decades, there are ticks between the powers of ten.

    Args:
        values: All values of the figure, of which those above 0 count.
    """
    # Superscripts would be nicer, but few fonts have all of them.
    label = "0.01 <= datum.value && datum.value < 1e4 ? format(datum.value, '~g') :"
    label += " replace(format(datum.value, '~e'), 'e+', 'e')"
    exponents = [math.floor(math.log10(value)) for value in values if value and 0 < value < math.inf]
    # Ratios to a baseline are shown on the same axis, and are most often close to 1.
    near = range(min([-2, *exponents]), max([2, *exponents]) + 1)
    fine, medium, coarse = (
        f"[{', '.join(f'{factor}e{power}' for power in powers for factor in factors)}]"
        for powers, factors in ((near, range(1, 10)), (near, (1, 2, 5)), (range(-45, 38), (1,)))
    )
    decades = "abs(log(domain('y')[1] / domain('y')[0])) / LN10"
    ticks = f"{decades} < 0.7 ? {fine} : {decades} < 2 ? {medium} : {coarse}"
    return {"values": {"expr": ticks}, "tickCount": 12, "labelExpr": label}


def text_width(text: str, font_size: float) -> float:
    """Return an estimate of the width of a text in the font of print.

    Args:
        text: One line.
        font_size: Size of the font; the result has the same unit.
    """
    return sum(_WIDTHS.get(sign, 1.0 if ord(sign) > _FIRST_WIDE_SIGN else 0.6) for sign in text) * font_size


MEASURED_FONT = "Liberation Sans"
"""A font that vl-convert contains, so that texts have the same widths on all machines."""
PRINT_FONT = f"'{MEASURED_FONT}', Arial, Helvetica, sans-serif"
"""Fonts of print, whose characters have the same widths."""
_FIRST_WIDE_SIGN = 0x2E80
"""Code point from which on signs are as wide as they are high: those of Chinese, Japanese and Korean."""
_WIDTHS = {
    **dict.fromkeys("ijl'", 0.222),
    **dict.fromkeys(" !,./:;I[]ft|·", 0.278),
    **dict.fromkeys("()-r²³¹", 0.333),
    **dict.fromkeys("ckJsvxyz", 0.5),
    **dict.fromkeys("FTZ", 0.611),
    **dict.fromkeys("&ABEKPSVXY", 0.667),
    **dict.fromkeys("CDHNRUw", 0.722),
    **dict.fromkeys("GOQ", 0.778),
    **dict.fromkeys("Mm", 0.833),
    **dict.fromkeys("%W@", 0.944),
}
"""Widths of characters in font sizes; that of most others is close to 0.6."""


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
            "labelFlush": False,
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
            "offset": 6,
            "gradientThickness": 10,
        },
        "title": {"color": "currentColor", "fontSize": font_size + 1, "anchor": "start"},
        "text": {"color": "currentColor", "fontSize": font_size},
        "rule": {"color": "currentColor"},
    }
