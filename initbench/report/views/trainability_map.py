"""The map of `initbench probe --map`: findings over weight scale and depth, and the layers of each point."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from initbench.diagnostics.trainability_map import MAX_PROFILE_LAYERS, MapPoint, TrainabilityMap
from initbench.render.map_plot import FINDING_WORDS, HEALTHY, mark_of
from initbench.render.text import format_number, format_percent, one_line, plural
from initbench.report.colour_legend import linear_colour
from initbench.report.figure import ReportFigure, columns_of, rounded
from initbench.report.parameters import LAYER, POINT, selected_layer_rule
from initbench.theory.depth_scales import TRAINABLE

COLOURS = {
    "healthy": "#009E73",
    "vanishing": "#0072B2",
    "exploding": "#D55E00",
    "saturated": "#CC79A7",
    "dead": "#E69F00",
    "symmetric": "#56B4E9",
    "another finding": "#999999",
}
"""Colours of the findings: those of the rows, which are distinguishable with colour blindness."""
_CELL_COLUMNS = (
    "kind",
    "point",
    "sigma_w",
    "depth",
    "left",
    "right",
    "low",
    "high",
    "finding",
    "codes",
    "mark",
    "signal_ratio",
    "gradient_ratio",
    "learned",
    "accuracy",
)
_PROFILE_COLUMNS = ("point", "sigma_w", "depth", "finding", "layer", "value")
_HEIGHT = 420
_STRETCH = 1.2
"""Factor from the middle of a cell to its ends on an axis with a single value."""


def map_figures(result: TrainabilityMap) -> Iterator[ReportFigure]:
    """Yield the map of findings, the accuracies after training, and the profiles of q and of the gradient."""
    cells = list(_cells(result))
    yield _finding_figure(result, cells)
    if any(cell["accuracy"] is not None for cell in cells):
        yield _accuracy_figure(result, cells)
    for key, title, axis in (
        ("q", "Second moment of the pre-activations", "q = E[h²]"),
        ("gradient", "Second moment of the gradient", "E[δ²]"),
    ):
        records = list(_profile_records(result, key))
        if records:
            yield _profile_figure(result, key, title, axis, records)


def provenance(result: TrainabilityMap) -> str:
    """Return the data, the numbers of points and nets, and the training, for captions."""
    nets = f"{plural(len(result.points), 'point')}, {plural(len(result.config.seed_list), 'net')} each"
    budget = "not trained" if result.bar is None else plural(result.bar.steps, "step")
    return f"{one_line(result.dataset)}, {nets}, {result.samples} samples, {budget}"


def map_takeaway(result: TrainabilityMap) -> str:
    """Return a sentence with the numbers of points by finding, and where theory puts the critical line."""
    counts = Counter(_finding(point) for point in result.points)
    parts = ", ".join(f"{counts[word]:,} {word}" for word in COLOURS if counts[word])
    sentences = [f"Of {plural(len(result.points), 'point')}: {parts}"]
    if result.bar is not None:
        learned = sum(bool(point.learned) for point in result.points)
        sentences.append(
            f"{learned:,} learned: their validation accuracy is above"
            f" {format_percent(result.bar.accuracy, 1)} % after {plural(result.bar.steps, 'step')}"
        )
    if result.critical is not None:
        sentences.append(f"Theory puts the critical σ_w, where χ₁ = 1, at {format_number(result.critical)}")
    return ". ".join(sentences) + "."


def _finding(point: MapPoint) -> str:
    return FINDING_WORDS[mark_of(point)]


def _cells(result: TrainabilityMap) -> Iterator[dict[str, Any]]:
    """Yield a record for each point, and one for each σ_w with the greatest trainable depth of theory."""
    columns = dict(zip(result.axes.sigma_w, _edges(result.axes.sigma_w, is_log=False), strict=True))
    lines = dict(zip(result.axes.depth, _edges(result.axes.depth, is_log=True), strict=True))
    for number, point in enumerate(result.points):
        (left, right), (low, high) = columns[point.sigma_w], lines[point.depth]
        mark = mark_of(point)
        yield {
            "kind": "point",
            "point": number,
            "sigma_w": point.sigma_w,
            "depth": point.depth,
            "left": rounded(left),
            "right": rounded(right),
            "low": rounded(low),
            "high": rounded(high),
            "finding": _finding(point),
            "codes": ", ".join(point.diagnosis) or "none",
            "mark": ("" if mark == HEALTHY else mark) + "+" * bool(point.learned),
            "signal_ratio": rounded(point.signal_ratio),
            "gradient_ratio": rounded(point.gradient_ratio),
            "learned": point.learned,
            "accuracy": rounded(point.val_accuracy),
        }
    ends = [end for line in lines.values() for end in line]
    for sigma_w, scales in zip(result.axes.sigma_w, result.theory or [], strict=False):
        reach = min(max(scales.reach, min(ends)), max(ends))
        yield dict.fromkeys(_CELL_COLUMNS) | {"kind": "theory", "sigma_w": sigma_w, "depth": rounded(reach)}
    if result.critical is not None:
        yield dict.fromkeys(_CELL_COLUMNS) | {"kind": "critical", "sigma_w": rounded(result.critical)}


def _edges(values: Sequence[float], *, is_log: bool) -> list[tuple[float, float]]:
    """Return the ends of the cell of each value, halfway to its neighbours."""
    if len(values) == 1:
        return [(values[0] / _STRETCH, values[0] * _STRETCH)]
    scaled = [math.log(value) if is_log else value for value in values]
    middles = [(low + high) / 2 for low, high in pairwise(scaled)]
    edges = [2 * scaled[0] - middles[0], *middles, 2 * scaled[-1] - middles[-1]]
    return list(pairwise(math.exp(edge) if is_log else edge for edge in edges))


def _finding_figure(result: TrainabilityMap, cells: list[dict[str, Any]]) -> ReportFigure:
    caption = (
        f"First finding of the diagnosis at each weight scale σ_w and depth ({provenance(result)}); weights"
        " N(0, σ_w²/fan_in). v: vanishing, x: exploding, s: saturated, d: dead, =: symmetric, +: learned."
    )
    if result.theory is not None:
        caption += (
            f" Line: the greatest trainable depth according to theory, {TRAINABLE:.0f} ξ (Schoenholz et al."
            " 2017), where ξ is the shorter of the depth scales of correlations and gradient."
        )
    if result.critical is not None:
        caption += " Dashed: the critical σ_w, where χ₁ = 1."
    caption += " A click on a point shows its layers below; another click shows the deepest nets again."
    notes = [] if result.reason is None else [f"Theory predicts no depth scale: {one_line(result.reason)}."]
    colour = {
        "field": "finding",
        "type": "nominal",
        "scale": {"domain": list(COLOURS), "range": list(COLOURS.values())},
        "legend": {
            "title": "first finding",
            "titleFontWeight": "normal",
            "orient": "top",
            "values": [word for word in COLOURS if any(cell["finding"] == word for cell in cells)],
        },
    }
    return ReportFigure(
        key="map",
        title="Findings over weight scale and depth",
        takeaway=map_takeaway(result),
        caption=caption,
        columns=columns_of(cells, _CELL_COLUMNS),
        spec=_map_spec(result, colour, marks=True),
        size="full",
        notes=notes,
    )


def _accuracy_figure(result: TrainabilityMap, cells: list[dict[str, Any]]) -> ReportFigure:
    accuracies = [cell["accuracy"] for cell in cells if cell["accuracy"] is not None]
    best = max(result.points, key=lambda point: (point.val_accuracy or 0.0, -point.depth))
    title = "validation accuracy"
    return ReportFigure(
        key="map-accuracy",
        title="Accuracy over weight scale and depth",
        takeaway=f"The best mean validation accuracy, {format_percent(best.val_accuracy, 1)} %, is that of"
        f" σ_w = {format_number(best.sigma_w)} and depth {best.depth}.",
        caption=f"Mean {title} over the nets of each point ({provenance(result)}). Grey: a net diverged."
        " Line and dashes: as in the map of findings.",
        columns=columns_of(cells, _CELL_COLUMNS),
        spec=_map_spec(result, {"field": "accuracy", **linear_colour(accuracies, title)}, marks=False),
        size="full",
    )


def _map_spec(result: TrainabilityMap, colour: dict[str, Any], *, marks: bool) -> dict[str, Any]:
    depths = list(result.axes.depth)
    across, down = _edges(result.axes.sigma_w, is_log=False), _edges(depths, is_log=True)
    x = {
        "field": "sigma_w",
        "type": "quantitative",
        "title": "σ_w",
        "scale": {"domain": [across[0][0], across[-1][1]], "nice": False, "zero": False},
        "axis": {"grid": False},
    }
    y = {
        "field": "depth",
        "type": "quantitative",
        "title": "depth",
        "scale": {"type": "log", "domain": [down[-1][1], down[0][0]], "nice": False},
        "axis": {"grid": False, "values": depths, "format": ",d"},
    }
    cell = {
        "x": {**x, "field": "left"},
        "x2": {"field": "right"},
        "y": {**y, "field": "low"},
        "y2": {"field": "high"},
    }
    points: dict[str, Any] = {"filter": "datum.kind == 'point'"}
    tooltip = [
        {"field": "sigma_w", "title": "σ_w", "format": ".4g"},
        {"field": "depth", "title": "depth"},
        {"field": "codes", "title": "findings"},
        {"field": "signal_ratio", "title": "signal, last over first layer", "format": ".4g"},
        {"field": "gradient_ratio", "title": "E[δ²], first over last layer", "format": ".4g"},
    ]
    if result.bar is not None:
        tooltip += [
            {"field": "learned", "title": "learned"},
            {"field": "accuracy", "title": "validation accuracy", "format": ".1%"},
        ]
    layers: list[dict[str, Any]] = [
        {
            "transform": [points],
            "mark": {"type": "rect", "color": "currentColor", "opacity": 0.15},
            "encoding": {**cell, "tooltip": tooltip},
        },
        {
            "transform": [points, {"filter": f"isValid(datum.{colour['field']})"}],
            "mark": {"type": "rect"},
            "encoding": {**cell, "color": colour, "tooltip": tooltip},
        },
    ]
    if marks:
        layers.append(
            {
                "transform": [points, {"filter": "datum.mark != ''"}],
                "mark": {"type": "text", "color": "white", "fontSize": 10, "tooltip": None},
                "encoding": {"x": x, "y": y, "text": {"field": "mark"}},
            }
        )
    return {
        "height": _HEIGHT,
        "params": [POINT],
        "layer": [*layers, *_theory_marks(x, y), *_outlines(cell)],
    }


def _theory_marks(x: dict[str, Any], y: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the lines of theory, black on white to be visible on all colours."""
    for colour, width in (("white", 4.0), ("black", 2.0)):
        yield {
            "transform": [{"filter": "datum.kind == 'theory'"}],
            "mark": {"type": "line", "stroke": colour, "strokeWidth": width, "clip": True},
            "encoding": {"x": x, "y": y, "order": {"field": "sigma_w"}},
        }
        yield {
            "transform": [{"filter": "datum.kind == 'critical'"}],
            "mark": {"type": "rule", "stroke": colour, "strokeWidth": width - 0.5, "strokeDash": [5, 4]},
            "encoding": {"x": x},
        }


def _outlines(cell: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the outline of the selected point, black on white."""
    for colour, width in (("white", 4.0), ("black", 2.0)):
        yield {
            "transform": [{"filter": "datum.kind == 'point' && datum.point === point"}],
            "mark": {"type": "rect", "fill": None, "stroke": colour, "strokeWidth": width},
            "encoding": cell,
        }


def _profile_records(result: TrainabilityMap, key: str) -> Iterator[dict[str, Any]]:
    for number, point in enumerate(result.points):
        if point.profile is None:
            continue
        for layer, value in zip(point.profile.layers, getattr(point.profile, key), strict=True):
            yield {
                "point": number,
                "sigma_w": point.sigma_w,
                "depth": point.depth,
                "finding": _finding(point),
                "layer": layer,
                "value": None if value is None else rounded(float(f"{value:.4g}")),
            }


def _profile_figure(
    result: TrainabilityMap, key: str, title: str, axis: str, records: list[dict[str, Any]]
) -> ReportFigure:
    deepest = result.axes.depth[-1]
    y = {
        "field": "value",
        "type": "quantitative",
        "title": axis,
        "scale": {"type": "log"},
        "axis": {"format": "~e", "tickCount": 6},
    }
    colour = {
        "field": "finding",
        "type": "nominal",
        "scale": {"domain": list(COLOURS), "range": list(COLOURS.values())},
        "legend": None,
    }
    tooltip = [
        {"field": "sigma_w", "title": "σ_w", "format": ".4g"},
        {"field": "depth", "title": "depth"},
        {"field": "layer", "title": "layer"},
        {"field": "value", "title": axis, "format": ".4g"},
        {"field": "finding", "title": "first finding"},
    ]
    return ReportFigure(
        key=f"map-{key}",
        title=f"{title} of the selected point",
        takeaway=f"Without a selected point: the nets of depth {deepest:,}, a line for each σ_w.",
        caption=f"{title} against depth, the median over the nets ({provenance(result)}), at no more than"
        f" {MAX_PROFILE_LAYERS} layers. Colours are those of the map.",
        columns=columns_of(records, _PROFILE_COLUMNS),
        spec={
            "height": 240,
            "params": [POINT, LAYER],
            "transform": [
                {"filter": f"isValid(point) ? datum.point === point : datum.depth === {deepest}"},
                {"filter": "datum.value > 0"},
            ],
            "encoding": {
                "x": {
                    "field": "layer",
                    "type": "quantitative",
                    "title": "layer",
                    "axis": {"tickMinStep": 1, "format": ",d"},
                }
            },
            "layer": [
                {
                    "mark": {"type": "line", "strokeWidth": 1.5},
                    "encoding": {"y": y, "color": colour, "detail": {"field": "sigma_w"}},
                },
                {
                    "mark": {"type": "point", "size": 24, "filled": True, "opacity": 1},
                    "encoding": {"y": y, "color": colour, "tooltip": tooltip},
                },
                {
                    "transform": [
                        {"filter": "isValid(point) && datum.layer === 1"},
                        {
                            "calculate": "'σ_w = ' + format(datum.sigma_w, '.4~g')"
                            " + ', depth ' + datum.depth",
                            "as": "name",
                        },
                    ],
                    "mark": {"type": "text", "align": "right", "baseline": "top", "dy": 2},
                    "encoding": {"x": {"value": "width"}, "y": {"value": 0}, "text": {"field": "name"}},
                },
                selected_layer_rule(),
            ],
        },
        log_channels=("y",),
    )
