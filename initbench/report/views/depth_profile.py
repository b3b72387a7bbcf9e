"""Statistics of the signal against depth: one figure for each statistic."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from initbench.analysis.stats.summary import summarise_geometric
from initbench.probing.log_slopes import VANISHING_RATIO
from initbench.render.text import format_number, plural
from initbench.report.figure import ReportFigure, columns_of, rounded
from initbench.report.parameters import (
    AT_STEP,
    BASELINE,
    HIDDEN,
    HIDE_ROWS,
    LAYER,
    STEP,
    relative_to_baseline,
    selected_layer_rule,
)
from initbench.report.report_runs import Layer, LayerReport, LayerRow, Moment
from initbench.report.theme import log_axis, row_channels
from initbench.theory.bands import recorded_band, recorded_value

_COLUMNS = (
    "row",
    "step",
    "until",
    "layer",
    "value",
    "least",
    "most",
    "theory",
    "theory_low",
    "theory_high",
    "limit",
)


@dataclass(frozen=True)
class DepthStatistic:
    """A statistic of a layer that is drawn against depth."""

    key: str
    title: str
    axis: str
    value: Callable[[Layer], float | None]
    is_log: bool
    limit_at: int | None = None
    """Position of the hidden layer that a vanishing signal is compared with, 0 or -1; None: no limit."""
    theory: str | None = None
    """Name of the statistic in the theory of a layer."""
    is_theory_ratio: bool = False
    """Whether theory predicts the ratio of a layer's value to that of the next layer."""
    is_geometric: bool = False
    """Whether the mean over seeds is geometric, or 0 if it is 0 under a seed."""

    @property
    def kind_of_mean(self) -> str:
        """Name of the mean that `mean` computes."""
        return "geometric means" if self.is_geometric else "means"

    def mean(self, values: Sequence[float]) -> float:
        """Return the mean of the finite values of one layer under all seeds."""
        if self.is_geometric and len(values) > 1:
            return summarise_geometric(values).mean or 0.0
        return math.fsum(values) / len(values)


def _of_activation(name: str) -> Callable[[Layer], float | None]:
    return lambda layer: (layer["act"] or {}).get(name)


STATISTICS = (
    DepthStatistic(
        "activation-std",
        "Standard deviation of the activations",
        "std",
        _of_activation("std"),
        True,
        theory="act_std",
    ),
    DepthStatistic(
        "q",
        "Second moment of the pre-activations",
        "q = E[h²]",
        lambda layer: layer["pre"]["q"],
        True,
        limit_at=0,
        theory="q",
    ),
    DepthStatistic(
        "gradient",
        "Second moment of the gradient",
        "E[δ²]",
        lambda layer: layer["grad"]["pre_q"],
        True,
        limit_at=-1,
        theory="grad_ratio",
        is_theory_ratio=True,
        is_geometric=True,
    ),
    DepthStatistic("dead-units", "Dead units", "share of dead units", _of_activation("dead_fraction"), False),
    DepthStatistic(
        "saturated",
        "Saturated activations",
        "share of saturated activations",
        _of_activation("saturated_fraction"),
        False,
        theory="saturated_fraction",
    ),
)


def depth_figures(report: LayerReport) -> Iterator[ReportFigure]:
    """Yield the figures of the statistics that the runs have and that are not zero everywhere."""
    for statistic in STATISTICS:
        records = [record for row in report.rows for record in _records(row, statistic)]
        if any(record["value"] for record in records):
            yield _figure(report, statistic, records)


def _figure(report: LayerReport, statistic: DepthStatistic, records: list[dict[str, Any]]) -> ReportFigure:
    has_theory = any(record["theory"] is not None for record in records)
    has_band = any(record["theory_low"] is not None for record in records)
    has_limit = any(record["limit"] is not None for record in records)
    caption = (
        f"{statistic.title} in each layer ({report.provenance}). Points are {statistic.kind_of_mean} over"
        " seeds, bars the smallest and largest seed."
    )
    if has_band:
        caption += " Shaded: where mean-field theory expects the mean of these seeds at init."
    if has_theory:
        caption += " Dashed: the value that theory expects"
        caption += ", given that of the last layer." if statistic.is_theory_ratio else "."
    if has_limit:
        caption += f" Dotted: {VANISHING_RATIO:g} of the first value in the direction of the pass, below"
        caption += " which the diagnosis calls the signal vanishing."
    return ReportFigure(
        key=f"depth-{statistic.key}",
        title=f"{statistic.title} against depth",
        takeaway=_takeaway(report, statistic),
        caption=caption,
        columns=columns_of(records, _COLUMNS),
        spec=_spec(report, statistic, records),
        log_channels=("y",) if statistic.is_log else (),
    )


def _records(row: LayerRow, statistic: DepthStatistic) -> Iterator[dict[str, Any]]:
    for moment in row.moments:
        by_position = values_by_layer(moment, statistic)
        limit = rounded(_limit(moment, statistic, by_position))
        expected = _expected(moment, statistic, by_position)
        for position, values in by_position.items():
            layer = moment.layers[0][position]
            low, high = _band(layer, statistic, len(moment.layers))
            yield {
                "row": row.name,
                "step": moment.step,
                "until": moment.until,
                "layer": layer["index"],
                "value": rounded(statistic.mean(values)),
                "least": rounded(min(values)) if len(values) > 1 else None,
                "most": rounded(max(values)) if len(values) > 1 else None,
                "theory": rounded(expected.get(position)),
                "theory_low": low,
                "theory_high": high,
                "limit": limit,
            }


def values_by_layer(moment: Moment, statistic: DepthStatistic) -> Mapping[int, list[float]]:
    """Return the values under every seed by the position of the layer, where all of them are finite."""
    if statistic.key not in moment.values:
        by_run = [[_finite(statistic.value(layer)) for layer in layers] for layers in moment.layers]
        by_layer = [[value for value in values if value is not None] for values in zip(*by_run, strict=False)]
        runs = len(by_run)
        moment.values[statistic.key] = {at: each for at, each in enumerate(by_layer) if len(each) == runs}
    return moment.values[statistic.key]


def _limit(
    moment: Moment, statistic: DepthStatistic, by_position: Mapping[int, Sequence[float]]
) -> float | None:
    """Return the value below which the diagnosis calls the signal vanishing; None without one."""
    if statistic.limit_at is None:
        return None
    hidden = [position for position in by_position if moment.layers[0][position]["act"] is not None]
    if len(hidden) < 2:
        return None
    return VANISHING_RATIO * statistic.mean(by_position[hidden[statistic.limit_at]])


def _expected(
    moment: Moment, statistic: DepthStatistic, by_position: Mapping[int, Sequence[float]]
) -> dict[int, float]:
    """Return the values that theory expects, by position of the layer.

    Ratios are multiplied from the measured mean of the last layer to the first, as far as theory predicts.

    Args:
        moment: The probe.
        statistic: The statistic.
        by_position: The measured values, as `values_by_layer` yields them.
    """
    if statistic.theory is None:
        return {}
    theories = [layer.get("theory") for layer in moment.layers[0]]
    if not any(theories):
        return {}
    predicted = [recorded_value(theory, statistic.theory) for theory in theories]
    if not statistic.is_theory_ratio:
        return {position: value for position, value in enumerate(predicted) if value is not None}
    last = len(predicted) - 1
    if last not in by_position or not any(predicted):
        return {}
    expected = {last: statistic.mean(by_position[last])}
    for position in range(last - 1, -1, -1):
        ratio = predicted[position]
        if ratio is None:
            break
        expected[position] = ratio * expected[position + 1]
    return expected


def _band(layer: Layer, statistic: DepthStatistic, nets: int) -> tuple[float | None, float | None]:
    """Return where theory expects the mean over `nets` nets; (None, None) without a band."""
    if statistic.theory is None or statistic.is_theory_ratio or not layer.get("theory"):
        return None, None
    band = recorded_band(layer.get("theory"), statistic.theory, nets)
    if band is None:
        return None, None
    low, high = band if statistic.is_log else (max(0.0, band[0]), min(1.0, band[1]))
    return rounded(low), rounded(high)


def _takeaway(report: LayerReport, statistic: DepthStatistic) -> str:
    """Describe the change of the statistic over the hidden layers at the first probe of each row."""
    sentences = []
    for row in report.rows[:4]:
        first = next(iter(row.moments), None)
        if first is None:
            continue
        means = [statistic.mean(values) for values in values_by_layer(first, statistic).values()]
        if statistic.is_log and len(means) > 1 and min(means[0], means[-1]) > 0:
            factor = (means[-1] / means[0]) ** (1 / (len(means) - 1))
            sentences.append(f"{row.name}: ×{format_number(factor)} a layer")
        elif means:
            sentences.append(f"{row.name}: at most {100 * max(means):.0f} %")
    more = len(report.rows) - len(sentences)
    suffix = f"; and {plural(more, 'more row')}" if more > 0 and len(report.rows) > 4 else ""
    return f"At init, {statistic.title.lower()}: {'; '.join(sentences)}{suffix}." if sentences else ""


def _finite(value: Any) -> float | None:
    """Return a number, or None for a missing number or one that is not finite, which is stored as text."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _spec(
    report: LayerReport, statistic: DepthStatistic, records: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    lines = row_channels(report.rows)
    points = row_channels(report.rows, marks="point")
    area = row_channels(report.rows, marks="area")
    scale: dict[str, Any] = {"type": "log"} if statistic.is_log else {"zero": True}
    axis_values = (record[name] for record in records for name in ("value", "limit"))
    axis = log_axis(axis_values) if statistic.is_log else {"format": "%"}
    y = {"field": "shown", "type": "quantitative", "title": statistic.axis, "scale": scale, "axis": axis}
    x = {
        "field": "layer",
        "type": "quantitative",
        "title": "layer",
        "axis": {"tickMinStep": 1, "format": ",d"},
    }
    x["scale"] = {"zero": False, "nice": False, "padding": 6}
    tooltip = [
        {"field": "row", "title": "row"},
        {"field": "layer", "title": "layer"},
        {"field": "step", "title": "updates", "format": ",d"},
        {"field": "value", "title": statistic.axis, "format": ".6g"},
        {"field": "least", "title": "least seed", "format": ".6g"},
        {"field": "most", "title": "most seed", "format": ".6g"},
        {"field": "theory", "title": "theory", "format": ".6g"},
    ]

    def bounds(low: str, high: str) -> dict[str, Any]:
        return {"y": {"field": low, "type": "quantitative", "scale": scale}, "y2": {"field": high}}

    return {
        "height": 240,
        "params": [HIDDEN, BASELINE, STEP, LAYER],
        "transform": [
            HIDE_ROWS,
            AT_STEP,
            *([{"filter": "datum.value > 0"}] if statistic.is_log else []),
            *relative_to_baseline("value", ["layer"], as_ratio=statistic.is_log),
        ],
        "encoding": {"x": x},
        "layer": [
            *_decorations(statistic, bounds, area),
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"y": y, **lines}},
            {
                "mark": {"type": "point", "size": 36, "filled": True, "opacity": 1},
                "encoding": {"y": y, **points, "tooltip": tooltip},
            },
            selected_layer_rule(),
        ],
    }


def _decorations(
    statistic: DepthStatistic, bounds: Callable[[str, str], dict[str, Any]], area: dict[str, Any]
) -> Sequence[dict[str, Any]]:
    """Return the marks behind the lines: theory, spread of seeds and limit of the diagnosis."""

    def condition(*columns: str) -> list[dict[str, Any]]:
        """Return the filter to records with these columns, which a logarithmic axis can show."""
        terms = [
            f"isValid(datum.{column})" + (f" && datum.{column} > 0" if statistic.is_log else "")
            for column in columns
        ]
        return [{"filter": " && ".join([*terms, "baseline == ''"])}]

    band = {
        "transform": condition("theory_low"),
        "mark": {"type": "area", "opacity": 0.18, "clip": True},
        "encoding": {**bounds("theory_low", "theory_high"), **area},
    }
    theory = {
        "transform": condition("theory"),
        "mark": {"type": "line", "strokeDash": [6, 4], "strokeWidth": 1.4, "opacity": 0.9},
        "encoding": {"y": bounds("theory", "theory")["y"], **area},
    }
    seeds = {
        "transform": condition("least"),
        "mark": {"type": "rule", "opacity": 0.5},
        "encoding": {**bounds("least", "most"), **area},
    }
    limit = {
        "transform": [
            *condition("limit"),
            {"aggregate": [{"op": "max", "field": "limit", "as": "limit"}], "groupby": ["row"]},
        ],
        "mark": {"type": "rule", "strokeDash": [1, 3], "strokeWidth": 1.2, "opacity": 0.8},
        "encoding": {
            "x": {"value": 0},
            "x2": {"value": "width"},
            "y": bounds("limit", "limit")["y"],
            **area,
        },
    }
    return [band, theory, seeds, limit]
