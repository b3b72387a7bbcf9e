"""Legends of figures that stand alone: each row with its colour, dashes and mark in one symbol.

The legends of Vega-Lite draw either lines or marks. The legend here belongs to a layer without visible
marks, whose shapes are pieces of the row's dashed line with the row's mark on top.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from initbench.report.theme import text_width

_ROW_CHANNELS = ("color", "strokeDash", "shape")
_SYMBOL_SIZE = 81.0
"""Area in square pixels of the square in which the paths of symbols have coordinates from -1 to 1."""
_HALF_LENGTH = 18.0
"""Half the length in pixels of the line of a symbol."""
_MARKS = {
    "circle": "M.8,0A.8,.8,0,1,1,-.8,0A.8,.8,0,1,1,.8,0Z",
    "square": "M-.7,-.7H.7V.7H-.7Z",
    "triangle-up": "M0,-.9L.9,.7H-.9Z",
    "triangle-down": "M0,.9L.9,-.7H-.9Z",
    "triangle-right": "M.9,0L-.7,.9V-.9Z",
    "diamond": "M0,-1L.8,0L0,1L-.8,0Z",
    "cross": "M-.3,-1H.3V-.3H1V.3H.3V1H-.3V.3H-1V-.3H-.3Z",
}
"""Outlines of the marks in the theme's SHAPES."""
_PATCH = "M-3,-1H3V1H-3Z"
"""Symbol of rows that are distinguished by colour alone."""


def with_row_legend(
    spec: dict[str, Any], width: float, font_size: float, only: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a specification whose legend of rows shows all that distinguishes them.

    Specifications that are not layered, or in which rows have no style, are returned unchanged.

    Args:
        spec: A specification of Vega-Lite.
        width: Width of the figure in pixels, which the columns of the legend share.
        font_size: Size of the labels in pixels.
        only: The rows that the legend lists; all if empty.
    """
    scales = dict(_row_scales(spec))
    if "layer" not in spec or "color" not in scales:
        return spec
    names = [name for name in scales["color"]["domain"] if not only or name in only]

    def values_of(channel: str) -> list[Any]:
        scale = scales.get(channel, {"domain": names, "range": [None] * len(names)})
        by_name = dict(zip(scale["domain"], scale["range"], strict=True))
        return [by_name[name] for name in names]

    colours = values_of("color")
    symbols = list(map(_symbol, values_of("strokeDash"), values_of("shape")))
    legend = _legend(names, width, font_size)

    def channel(values: Sequence[str]) -> dict[str, Any]:
        scale = {"domain": names, "range": values}
        return {"field": "row", "type": "nominal", "title": None, "scale": scale, "legend": legend}

    layer = {
        "data": {"values": [{"row": name} for name in names]},
        "mark": {"type": "point", "opacity": 0},
        "encoding": {
            "x": {"value": 0},
            "y": {"value": 0},
            "shape": channel(symbols),
            "fill": channel(colours),
            "stroke": channel(colours),
        },
    }
    plain = without_row_legends(spec)
    resolve = plain.get("resolve", {})
    # Legends are merged into one only if their scales belong to the same layer.
    independent = dict.fromkeys(("shape", "fill", "stroke"), "independent")
    scale = {**resolve.get("scale", {}), **independent}
    return {**plain, "layer": [*plain["layer"], layer], "resolve": {**resolve, "scale": scale}}


def without_row_legends(spec: Any) -> Any:
    """Return a specification in which no channel that styles rows has a legend."""
    if isinstance(spec, list):
        return [without_row_legends(part) for part in spec]
    if not isinstance(spec, dict):
        return spec
    copy = {key: without_row_legends(value) for key, value in spec.items()}
    for channel, _ in _styled_channels(spec):
        copy[channel]["legend"] = None
    return copy


def _row_scales(spec: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the channels that style rows, with their scales, wherever in the specification."""
    if isinstance(spec, list):
        for part in spec:
            yield from _row_scales(part)
    elif isinstance(spec, dict):
        yield from ((channel, definition["scale"]) for channel, definition in _styled_channels(spec))
        for part in spec.values():
            yield from _row_scales(part)


def _styled_channels(encoding: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for channel in _ROW_CHANNELS:
        definition = encoding.get(channel)
        if isinstance(definition, dict) and definition.get("field") == "row":
            yield channel, definition


def _symbol(dash: Sequence[float] | None, shape: str | None) -> str:
    """Return the path of a symbol; `dash` is None without a line, and `shape` None without a mark."""
    if dash is None and shape is None:
        return _PATCH
    line = "" if dash is None else _dashed_line(dash)
    return line + ("" if shape is None else _MARKS[shape])


def _dashed_line(dash: Sequence[float]) -> str:
    pixels = math.sqrt(_SYMBOL_SIZE) / 2
    lengths = list(dash) or [2 * _HALF_LENGTH, 0.0]
    path, start, index = "", -_HALF_LENGTH, 0
    while start < _HALF_LENGTH:
        end = min(start + lengths[index % len(lengths)], _HALF_LENGTH)
        if index % 2 == 0:
            path += f"M{start / pixels:.2f},0H{end / pixels:.2f}"
        start, index = end, index + 1
    return path


def _legend(names: Sequence[str], width: float, font_size: float) -> dict[str, Any]:
    entry = max(text_width(name, font_size) for name in names) + 2 * _HALF_LENGTH + 30
    columns = max(1, min(len(names), int(width // entry)))
    return {
        "columns": columns,
        "labelLimit": width - 2 * _HALF_LENGTH - 30,
        "labelOffset": 16,
        "columnPadding": 14,
        "rowPadding": 1,
        "offset": 4,
        "symbolOpacity": 1,
        "symbolSize": _SYMBOL_SIZE,
        "symbolStrokeWidth": 2.2,
        "orient": "top",
    }
