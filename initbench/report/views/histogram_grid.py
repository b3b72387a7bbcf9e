"""The classic grid: histograms layer by layer, one column for each row of the comparison."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from initbench.render.text import evenly_spaced, format_number
from initbench.report.figure import STATIC_WIDTHS, ReportFigure, columns_of, rounded
from initbench.report.panels import MAX_PANELS, PLACES, PanelAxis, panel_notes
from initbench.report.parameters import AT_STEP, HIDDEN, HIDE_ROWS, LAYER, STEP, selected_layer_rule
from initbench.report.report_runs import Layer, LayerReport, LayerRow, Moment
from initbench.report.theme import row_channels
from initbench.store.histograms import Histogram, histogram_range, parse_histogram
from initbench.theory.bands import recorded_distribution

MAX_LAYERS = 24
"""Largest number of layers in the grid; of deeper nets, evenly spaced ones are drawn."""
MAX_HISTOGRAMS = 6000
"""Largest number of histograms of a quantity; with more rows, fewer moments are kept."""
BINS = 32
_BIN_NUMBERS = np.arange(BINS + 1)
_HEIGHT = 0.85
"""Height of the fullest bin, in distances of two layers."""
_DRAWN_HEIGHTS = (0.5, 200.0)
"""Heights between which a predicted curve is drawn, in percent of the fullest bin."""
IDENTITY_IF_POSITIVE = ("linear", "relu", "leaky_relu", "prelu", "elu", "celu")
"""Activations with φ(h) = h for h > 0."""
_REACH = 4.0
"""Half the width of the axis of pre-activations and gradients, in root mean squares."""
_COLUMNS = (
    "row",
    "order",
    "step",
    "until",
    "layer",
    "spacing",
    "low",
    "width",
    "shares",
    "theory",
    "zeros",
    "outside",
)
_CURVES = {
    "pre-activation": "the distribution that mean-field theory predicts for the mean of many nets.",
    "activation": "the positive part of the pre-activations, as mean-field theory predicts it.",
}
"""What a predicted curve shows, by the key of the quantity."""


@dataclass(frozen=True)
class HistogramQuantity:
    """A quantity whose histograms form a grid."""

    key: str
    title: str
    section: str
    """Key of a stored layer that holds the histogram."""
    is_scaled: bool
    """Whether the axis is scaled to the root mean square of the row's layers."""


QUANTITIES = (
    HistogramQuantity("activation", "Activations", "act", False),
    HistogramQuantity("pre-activation", "Pre-activations", "pre", True),
    HistogramQuantity("gradient", "Gradients", "grad", True),
)


def histogram_figures(report: LayerReport) -> Iterator[ReportFigure]:
    """Yield the grid of each quantity that the runs have histograms of."""
    for quantity in QUANTITIES:
        records: list[dict[str, Any]] = []
        notes: list[str] = []
        max_moments = max(2, MAX_HISTOGRAMS // (MAX_LAYERS * max(1, len(report.rows))))
        for order, row in enumerate(report.rows):
            records += _records(row, order, quantity, max_moments)
        if records:
            deepest = max(len(_drawable(m, quantity)) for row in report.rows for m in row.moments)
            if deepest > MAX_LAYERS:
                notes.append(f"{MAX_LAYERS} of up to {deepest} layers are drawn, evenly spaced.")
            notes += panel_notes(report.names)
            if any(not record["top"] for record in records):
                notes.append("Layers without bars have only zeros, or values outside of the axis.")
            if any(len(row.moments) > max_moments for row in report.rows):
                notes.append(f"{max_moments} probes of each row are kept.")
            yield _figure(report, quantity, records, notes)


def _figure(
    report: LayerReport, quantity: HistogramQuantity, records: list[dict[str, Any]], notes: list[str]
) -> ReportFigure:
    scaling = (
        f"Each column is scaled to the widest layer of its row at this probe (±{_REACH:g} root mean squares)."
        if quantity.is_scaled
        else "All columns share one axis."
    )
    theory = f" Dashed: {_CURVES[quantity.key]}" if _has_theory(records) else ""
    has_zeros = any(record["zeros"] for record in records)
    axes = _Axes(quantity, records, len(report.rows))
    zeros = "; the grey bar on the left is the share of exact zeros, from 0 to 1" if has_zeros else ""
    return ReportFigure(
        key=f"histograms-{quantity.key}",
        title=f"{quantity.title}, layer by layer",
        takeaway=_takeaway(report, quantity),
        caption=f"Histograms of the {quantity.title.lower()} on the probe batch, one seed of each row"
        f" ({report.provenance}). Bars have the height of the fullest bin{zeros}. {scaling}{theory}",
        columns=columns_of(records, _COLUMNS),
        spec=_spec(report, axes, _bar_marks(axes)),
        static_spec=_spec(report, axes, _outline_marks(axes)),
        size="full",
        named_rows=report.names[:MAX_PANELS],
        name_space=0.85 / len(report.names[:MAX_PANELS]),
        notes=notes,
    )


def _has_theory(records: Sequence[dict[str, Any]]) -> bool:
    return any(record["theory"] is not None for record in records)


def _drawable(moment: Moment, quantity: HistogramQuantity) -> list[Layer]:
    """Return the layers of the first run that have a histogram of the quantity."""
    return [layer for layer in moment.layers[0] if (layer[quantity.section] or {}).get("histogram")]


def _records(
    row: LayerRow, order: int, quantity: HistogramQuantity, max_moments: int
) -> Iterator[dict[str, Any]]:
    steps = set(evenly_spaced([moment.step for moment in row.moments], max_moments))
    moments = [moment for moment in row.moments if moment.step in steps]
    for moment, following in zip_longest(moments, moments[1:]):
        until = 1e18 if following is None else float(following.step)
        layers = {layer["index"]: layer for layer in _drawable(moment, quantity)}
        reach = _axis_reach(layers.values(), quantity) if quantity.is_scaled else None
        indices = evenly_spaced(sorted(layers), MAX_LAYERS)
        spacing = (indices[-1] - indices[0]) / (len(indices) - 1) if len(indices) > 1 else 1.0
        for index, record in zip(indices, _bars([layers[i] for i in indices], quantity, reach), strict=True):
            theory = _theory(layers[index], quantity, row.activation, record, reach or 1.0)
            yield {
                "row": row.name,
                "order": order,
                "step": moment.step,
                "until": until,
                "layer": index,
                "spacing": rounded(spacing),
                **record,
                "theory": theory,
            }


def _axis_reach(layers: Iterable[Layer], quantity: HistogramQuantity) -> float | None:
    """Return half the width of the axis of a row at a probe: that of its widest layer.

    Training changes the widths, so that one axis for all probes would leave most of them as thin lines. None
    if no layer has a scale.
    """
    ranges = (histogram_range(layer[quantity.section]["histogram"]) for layer in layers)
    return max((high for low, high in ranges if low < high), default=None)


def _bars(
    layers: Sequence[Layer], quantity: HistogramQuantity, reach: float | None
) -> Iterator[dict[str, Any]]:
    """Yield the bins of each layer of a net on the axis of its column, without exact zeros.

    Shares are relative to the fullest bin, in percent; `top` is the share of all entries in that bin.

    Args:
        layers: The layers, whose histograms have equally many bins.
        quantity: What the histograms count.
        reach: Half the width of a scaled axis; None to keep the bins of the histograms.
    """
    histograms = [parse_histogram(layer[quantity.section]["histogram"]) for layer in layers]
    zeros = list(map(partial(_zero_share, quantity), layers, histograms))
    scaled = [i for i, histogram in enumerate(histograms) if _has_scale(histogram)]
    bars = _shares([histograms[i] for i in scaled], [zeros[i] for i in scaled], reach)
    for histogram, share in zip(histograms, zeros, strict=True):
        yield {**(next(bars) if _has_scale(histogram) else _no_bars(share)), "zeros": rounded(share)}


def _has_scale(histogram: Histogram) -> bool:
    return histogram.edges[0] < histogram.edges[-1]


def _zero_share(quantity: HistogramQuantity, layer: Layer, histogram: Histogram) -> float:
    """Return the share of exact zeros; for pre-activations with a scale, where it is unknown, 0."""
    if not _has_scale(histogram):
        return sum(histogram.counts) / histogram.total if histogram.total else 0.0
    value = layer[quantity.section].get("zero_fraction") if quantity.section != "pre" else 0.0
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _no_bars(zeros: float) -> dict[str, Any]:
    """Return an empty scaled axis for a tensor without a scale: all entries 0, or some of them not finite."""
    return {
        "low": -1.0,
        "width": 2.0 / BINS,
        "shares": [0] * BINS,
        "outside": rounded(1.0 - zeros),
        "top": 0.0,
    }


def _shares(
    histograms: Sequence[Histogram], zeros: Sequence[float], reach: float | None
) -> Iterator[dict[str, Any]]:
    """Yield the bins of histograms with a scale, all at once, as there are thousands.

    Args:
        histograms: The histograms, with equally many bins.
        zeros: Their shares of exact zeros. On a scaled axis they are in the middle bin, however its edge is
            rounded.
        reach: Half the width of a scaled axis; None to keep the bins of the histograms.
    """
    if not histograms:
        return
    edges = np.array([histogram.edges for histogram in histograms])
    counts = np.array([histogram.counts for histogram in histograms], dtype=np.float64)
    totals = np.array([max(1, histogram.total) for histogram in histograms], dtype=np.float64)
    outside = np.array([each.below + each.above + each.nan for each in histograms], dtype=np.float64)
    at_zero = (edges[:, :-1] <= 0.0) & (edges[:, 1:] > 0.0)
    if reach is not None:
        at_zero = np.zeros_like(at_zero)
        at_zero[:, counts.shape[1] // 2] = True
    counts -= at_zero * np.minimum(counts, np.rint(np.array(zeros) * totals)[:, None])
    lows, widths = edges[:, 0], (edges[:, -1] - edges[:, 0]) / counts.shape[1]
    if reach is not None:
        counts, lost = _rebinned(counts, edges, reach)
        outside += lost
        lows, widths = np.full_like(lows, -1.0), np.full_like(widths, 2.0 / BINS)
    tops = counts.max(axis=1)
    shares = np.rint(100 * counts / np.where(tops > 0, tops, 1.0)[:, None])
    shares[(shares == 0) & (counts > 0)] = 1
    columns = (lows, widths, shares.astype(int), outside / totals, tops / totals)
    for low, width, share, beyond, top in zip(*(column.tolist() for column in columns), strict=True):
        yield {
            "low": rounded(low),
            "width": rounded(width),
            "shares": share,
            "outside": rounded(beyond),
            "top": top,
        }


def _rebinned(
    counts: NDArray[np.float64], edges: NDArray[np.float64], reach: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Spread the counts of histograms over BINS equal bins, each count evenly over its own bin.

    Args:
        counts: One row for each histogram.
        edges: The edges of their bins, one more than bins in each row.
        reach: The new bins go from −reach to reach.

    Returns:
        The new counts, and for each histogram the sum of the counts outside.
    """
    below = np.zeros_like(edges)
    np.cumsum(counts, axis=1, out=below[:, 1:])
    new_edges = _BIN_NUMBERS * (2.0 * reach / BINS) - reach
    below_new = np.array([np.interp(new_edges, *each) for each in zip(edges, below, strict=True)])
    inside = below_new[:, -1] - below_new[:, 0]
    return np.diff(below_new, axis=1), np.maximum(0.0, below[:, -1] - inside)


def _theory(
    layer: Layer, quantity: HistogramQuantity, activation: str | None, record: dict[str, Any], reach: float
) -> list[float | None] | None:
    """Return the predicted share of each bin, on the scale of the bars.

    Theory predicts the distribution of pre-activations, and hence that of the positive activations where
    φ(h) = h; bins of other values, nearly empty ones, and those far above the bars are None.

    Args:
        layer: The layer.
        quantity: What the histogram counts.
        activation: Name of the activation.
        record: The bars of the histogram.
        reach: Value at the position 1 of the axis.

    Returns:
        The shares, or None without a prediction.
    """
    share_below = recorded_distribution(layer.get("theory"))
    is_shown = quantity.key == "pre-activation" or (
        quantity.key == "activation" and activation in IDENTITY_IF_POSITIVE
    )
    if share_below is None or not is_shown or not record["top"]:
        return None
    least = -math.inf if quantity.key == "pre-activation" or activation == "linear" else 0.0
    edges = [reach * (record["low"] + index * record["width"]) for index in range(len(record["shares"]) + 1)]
    below = list(map(share_below, edges))
    shares: list[float | None] = []
    for index, low in enumerate(edges[:-1]):
        height = round(100 * (below[index + 1] - below[index]) / record["top"], 1)
        is_drawn = low >= least and _DRAWN_HEIGHTS[0] <= height <= _DRAWN_HEIGHTS[1]
        shares.append(height if is_drawn else None)
    return shares if any(share is not None for share in shares) else None


def _takeaway(report: LayerReport, quantity: HistogramQuantity) -> str:
    """Compare the widths of the first and the last layer of each row at the first probe."""
    words = []
    for row in report.rows[:4]:
        layers = _drawable(row.moments[0], quantity) if row.moments else []
        widths = [width for layer in layers if (width := _root_mean_square(layer, quantity))]
        if len(widths) > 1:
            change = widths[-1] / widths[0] if quantity.key != "gradient" else widths[0] / widths[-1]
            words.append(f"in {row.name} they change by ×{format_number(change)}")
    way = (
        "from the last layer to the first"
        if quantity.key == "gradient"
        else "from the first layer to the last"
    )
    return f"At init, the widths of the {quantity.title.lower()} {way}: {'; '.join(words)}." if words else ""


def _root_mean_square(layer: Layer, quantity: HistogramQuantity) -> float | None:
    name = "pre_q" if quantity.section == "grad" else "q"
    value = layer[quantity.section].get(name)
    return math.sqrt(value) if isinstance(value, int | float) and 0 < value < math.inf else None


_TOOLTIP = [
    {"field": "row", "title": "row"},
    {"field": "layer", "title": "layer"},
    {"field": "step", "title": "updates", "format": ",d"},
    {"field": "zeros", "title": "exact zeros", "format": ".4~%"},
    {"field": "outside", "title": "outside the axis", "format": ".4~%"},
    {"field": "from", "title": "from", "format": ".4g"},
    {"field": "to", "title": "to", "format": ".4g"},
    {"field": "share", "title": "% of the fullest bin", "format": ".3g"},
]


@dataclass(frozen=True)
class _Axes:
    """The axes of the grid: each row has its part of the x axis, and each layer its line."""

    quantity: HistogramQuantity
    records: Sequence[dict[str, Any]]
    rows: int

    @cached_property
    def low(self) -> float:
        """Left end of the part of a row, with space for the bar of the zeros."""
        return float(min(record["low"] - 2.4 * record["width"] for record in self.records))

    @cached_property
    def first_bin(self) -> float:
        """Left edge of the first bin."""
        return float(min(record["low"] for record in self.records))

    @cached_property
    def high(self) -> float:
        """Right edge of the last bin."""
        return float(max(record["low"] + record["width"] * len(record["shares"]) for record in self.records))

    @cached_property
    def panels(self) -> PanelAxis:
        """Part of the x axis that each row has."""
        return PanelAxis(self.low, self.high, self.rows)

    @cached_property
    def layers(self) -> list[int]:
        """Numbers of the layers."""
        return sorted({record["layer"] for record in self.records})

    @cached_property
    def top(self) -> float:
        """Upper end of the y axis, above the bars of the first layer and the headings."""
        return float(self.layers[0] - 1.5 * max(record["spacing"] for record in self.records))

    @cached_property
    def bottom(self) -> float:
        """Lower end of the y axis."""
        return self.layers[-1] + 0.2 * (self.layers[0] - self.top)

    @property
    def height(self) -> int:
        """Height of the figure in pixels."""
        return max(140, 28 * len(self.layers))

    def x(self) -> dict[str, Any]:
        """Return the channel x, whose labels are those of each part."""
        name = f"{self.quantity.key}, scaled" if self.quantity.is_scaled else self.quantity.key
        ticks = [self.first_bin, (self.first_bin + self.high) / 2, self.high]
        panels = self.panels
        return {
            "field": "x",
            "type": "quantitative",
            "title": name,
            "scale": panels.scale,
            "axis": {
                **panels.axis,
                "values": panels.ticks(ticks),
                "labelExpr": f"format(round(1e6 * {panels.value}) / 1e6, '.2~g')",
            },
        }

    def y(self, field: str = "layer") -> dict[str, Any]:
        """Return the channel y, on which the first layer is at the top."""
        axis = {"values": self.layers, "tickCount": len(self.layers), "labelOverlap": False}
        axis |= {"domain": False, "ticks": False}
        scale = {"domain": [self.bottom, self.top], "nice": False, "zero": False}
        return {"field": field, "type": "quantitative", "title": "layer", "scale": scale, "axis": axis}

    def peak(self, share: str) -> dict[str, Any]:
        """Return the transform that adds the peak of a bar with this expression for its height, 0 to 1."""
        return {"calculate": f"datum.layer - datum.spacing * {_HEIGHT} * {share}", "as": "peak"}

    def bins(self, column: str, height: str) -> list[dict[str, Any]]:
        """Return transforms to one record for each bin, with its position and the peak of its bar."""
        return [
            {"calculate": f"sequence(length(datum.{column}))", "as": "bin"},
            {"flatten": [column, "bin"], "as": [height, "bin"]},
            {"calculate": "datum.low + datum.width * datum.bin", "as": "from"},
            {"calculate": "datum.from + datum.width", "as": "to"},
            {"calculate": f"datum.from + {self.panels.offset}", "as": "x"},
            # Bars overlap a little, or viewers of pictures would show white lines between them.
            {"calculate": f"datum.to + 0.02 * datum.width + {self.panels.offset}", "as": "x2"},
            self.peak(f"datum.{height} / 100"),
        ]


def _spec(report: LayerReport, axes: _Axes, bars: dict[str, Any]) -> dict[str, Any]:
    """Return the specification with these marks of the bins."""
    layers = [
        selected_layer_rule("y"),
        {**bars, "encoding": {**bars["encoding"], **row_channels(report.rows, marks="area")}},
        _zero_marks(axes),
        _heading_marks(axes),
    ]
    return {
        "height": axes.height,
        "params": [HIDDEN, STEP, LAYER],
        "transform": [
            HIDE_ROWS,
            AT_STEP,
            *PLACES,
        ],
        "layer": [*layers, _theory_marks(axes)] if _has_theory(axes.records) else layers,
    }


def _bar_marks(axes: _Axes) -> dict[str, Any]:
    """Return the histograms with a bar for each bin."""
    position = {"x": axes.x(), "x2": {"field": "x2"}, "y": axes.y(), "y2": {"field": "peak"}}
    return {
        "transform": axes.bins("shares", "share"),
        "mark": {"type": "rect", "stroke": None},
        "encoding": {**position, "tooltip": _TOOLTIP},
    }


def _outline_marks(axes: _Axes) -> dict[str, Any]:
    """Return the histograms of the first view with one mark for each, which is drawn faster than its bars."""
    channel = {"field": "outline", "type": "nominal", "scale": None}
    return {
        "data": {"values": list(_outlines(axes))},
        # A path is drawn in its own units if the size of the mark is 4.
        "mark": {"type": "point", "size": 4, "filled": True, "opacity": 1},
        "encoding": {"x": axes.x(), "y": axes.y(), "shape": channel},
    }


def _outlines(axes: _Axes) -> Iterator[dict[str, Any]]:
    """Yield the place and the outline of each histogram of the first view, in pixels of a static picture."""
    visible = [each for each in axes.records if each["step"] <= STEP["value"] < each["until"]]
    orders = sorted({record["order"] for record in visible})[:MAX_PANELS]
    x_scale = STATIC_WIDTHS["full"] / (axes.panels.stride * min(MAX_PANELS, axes.rows))
    y_scale = axes.height / (axes.bottom - axes.top)
    for record in visible:
        if record["order"] in orders:
            bar = record["width"] * x_scale
            peak = record["spacing"] * _HEIGHT * y_scale / 100
            steps = (f"V{-share * peak:.2f}H{i * bar:.2f}" for i, share in enumerate(record["shares"], 1))
            yield {
                "row": record["row"],
                "layer": record["layer"],
                "x": record["low"] - axes.low + orders.index(record["order"]) * axes.panels.stride,
                "outline": f"M0,0{''.join(steps)}V0Z",
            }


def _zero_marks(axes: _Axes) -> dict[str, Any]:
    """Return the bars of the exact zeros, on the left of each histogram."""
    position = {"x": axes.x(), "x2": {"field": "x2"}, "y": axes.y(), "y2": {"field": "peak"}}
    return {
        "transform": [
            {"filter": "datum.zeros > 0"},
            axes.peak("datum.zeros"),
            {"calculate": f"datum.low - datum.width * 2 + {axes.panels.offset}", "as": "x"},
            {"calculate": "datum.x + datum.width * 1.3", "as": "x2"},
        ],
        "mark": {"type": "rect", "color": "currentColor", "opacity": 0.5},
        "encoding": {**position, "tooltip": _TOOLTIP[:5]},
    }


def _heading_marks(axes: _Axes) -> dict[str, Any]:
    """Return the names of the rows above their parts."""
    middle = (axes.first_bin + axes.high) / 2
    y = {**axes.y(), "datum": axes.top}
    del y["field"]
    return {
        "transform": [
            {"filter": f"datum.layer === {axes.layers[0]}"},
            {"calculate": f"{middle} + {axes.panels.offset}", "as": "x"},
        ],
        "mark": {**axes.panels.heading, "baseline": "middle"},
        "encoding": {"x": axes.x(), "y": y, "text": {"field": "row"}, "tooltip": {"field": "row"}},
    }


def _theory_marks(axes: _Axes) -> dict[str, Any]:
    """Return the dashed curves of the predicted distributions."""
    return {
        "transform": [
            {"filter": "isValid(datum.theory)"},
            *axes.bins("theory", "density"),
            {"filter": "isValid(datum.density)"},
            {"calculate": "datum.x + datum.width / 2", "as": "x"},
        ],
        "mark": {"type": "line", "strokeDash": [4, 3], "strokeWidth": 1.2, "color": "currentColor"},
        "encoding": {
            "x": axes.x(),
            "y": axes.y("peak"),
            "detail": [{"field": "layer"}, {"field": "row"}],
        },
    }
