"""Heat maps of sweeps over two config keys: the best validation accuracy for each pair of values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from initbench.analysis.config_keys import keys_that_differ
from initbench.analysis.metrics import METRICS
from initbench.analysis.tables import Row
from initbench.render.compare import formatting
from initbench.render.compare.analysed_table import AnalysedTable
from initbench.render.compare.pivot import key_value, missing_mean, ordered_key_values
from initbench.render.compare.titles import distinguishing_terms
from initbench.render.text import plural
from initbench.report.colour_legend import linear_colour
from initbench.report.figure import ReportFigure, columns_of, rounded
from initbench.report.parameters import HIDDEN, HIDE_ROWS
from initbench.report.report_runs import ReportRow, ReportRuns

METRIC = METRICS["best_val_accuracy"]
_COLUMNS = ("row", "down", "across", "value", "std", "n", "diverged", "words", "detail", "best")
_CELL = 38
"""Height of a cell in pixels."""
_LIGHT = 0.62
"""Position on the colour scale from which text is black instead of white."""


def sweep_figures(report: ReportRuns) -> Iterator[ReportFigure]:
    """Yield a heat map for each table whose rows differ in exactly two keys."""
    maps = [(table, keys) for table in report.tables if (keys := swept_keys(table)) is not None]
    for number, (table, keys) in enumerate(maps, 1):
        rows = [row for row in report.rows if row.table is table]
        records = [_record(row, keys) for row in rows]
        values = [record["value"] for record in records if record["value"] is not None]
        if values:
            for record in records:
                record["best"] = record["value"] == max(values)
            key = "sweep-map" if len(maps) == 1 else f"sweep-map-{number}"
            yield _figure(report, table, keys, records, key)


def swept_keys(table: AnalysedTable) -> tuple[str, str] | None:
    """Return the two keys in which the rows of a table differ; None if they differ in fewer or more.

    These are the keys that the user selected, or those in which the configs of the rows differ. Options of a
    component that differs, such as `init.scheme.mode`, do not count.
    """
    if table.table.by:
        keys = list(table.table.by)
    else:
        configs = [row.group.runs[0].config_keys for row in table.rows]
        differing = keys_that_differ(configs)
        keys = [key for key in differing if not any(key.startswith(f"{other}.") for other in differing)]
    pairs = {tuple(key_value(_value(row, key)) for key in keys) for row in table.rows}
    if len(keys) != 2 or len(pairs) < len(table.rows):
        return None
    counts = [len({pair[i] for pair in pairs}) for i in range(2)]
    return (keys[0], keys[1]) if min(counts) > 1 else None


def _value(row: Row, key: str) -> Any:
    return row.key[key] if key in row.key else row.group.runs[0].config_keys.get(key)


def _record(row: ReportRow, keys: tuple[str, str]) -> dict[str, Any]:
    summary = row.row.metrics[METRIC.name]
    has_mean = summary.mean is not None
    words = formatting.format_mean(METRIC, row.row) if has_mean else missing_mean(METRIC, row.row)
    detail = f"±{formatting.format_std(METRIC, summary)}" if summary.std is not None else ""
    if has_mean and row.row.diverged:
        detail = f"{row.row.diverged} of {row.row.n} diverged"
    return {
        "row": row.name,
        "down": key_value(_value(row.row, keys[0])),
        "across": key_value(_value(row.row, keys[1])),
        "value": None if summary.mean is None else rounded(100 * summary.mean),
        "std": None if summary.std is None else rounded(100 * summary.std),
        "n": row.row.n,
        "diverged": row.row.diverged,
        "words": words,
        "detail": detail,
    }


def _figure(
    report: ReportRuns,
    table: AnalysedTable,
    keys: tuple[str, str],
    records: Sequence[dict[str, Any]],
    key: str,
) -> ReportFigure:
    down, across = keys
    terms = distinguishing_terms(table.table, [other.table for other in report.tables])
    orders = [ordered_key_values([_value(row, name) for row in table.rows]) for name in keys]
    return ReportFigure(
        key=key,
        title=f"Best validation accuracy by {down} and {across}{', ' * bool(terms)}{terms}",
        takeaway=_takeaway(keys, records),
        caption=f"Mean of the best validation accuracy in % for each value of {down} and {across}"
        f" ({report.provenance}{'; ' * bool(terms)}{terms}), with its standard deviation over seeds or the"
        " number of diverged runs. Outlined: the best mean. Crossed out: all runs diverged.",
        columns=columns_of(records, _COLUMNS),
        spec=_spec(keys, orders, records),
        size="full" if len(orders[1]) > 5 else "half",
    )


def _takeaway(keys: tuple[str, str], records: Sequence[dict[str, Any]]) -> str:
    best = next(record for record in records if record["best"])
    where = f"{keys[0]}={best['down']} and {keys[1]}={best['across']}"
    sentence = f"The best mean, {best['words']} %, is that of {where}"
    diverged = sum(record["diverged"] == record["n"] > 0 for record in records)
    if diverged:
        sentence += f"; in {plural(diverged, 'cell')} of {len(records)} all runs diverged"
    return f"{sentence}."


def _spec(
    keys: tuple[str, str], orders: Sequence[list[str]], records: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    values = [record["value"] for record in records if record["value"] is not None]
    colour = linear_colour(values, "best validation accuracy, %")
    low, high = colour["scale"]["domain"]
    x, y = (
        {
            "field": field,
            "type": "nominal",
            "title": title,
            "scale": {"domain": order, "paddingInner": 0.03, "paddingOuter": 0},
            "axis": {"domain": False, "ticks": False, "labelAngle": 0, "labelLimit": 160},
        }
        for field, title, order in (("across", keys[1], orders[1]), ("down", keys[0], orders[0]))
    )
    tooltip = [
        {"field": "row", "title": "row"},
        {"field": "down", "title": keys[0]},
        {"field": "across", "title": keys[1]},
        {"field": "value", "title": "best validation accuracy, %", "format": ".4g"},
        {"field": "std", "title": "std", "format": ".3g"},
        {"field": "n", "title": "n"},
        {"field": "diverged", "title": "diverged"},
    ]
    is_light = f"datum.value > {low + _LIGHT * (high - low)}"
    ink = {"condition": {"test": is_light, "value": "black"}, "value": "white"}
    has_mean = {"filter": "isValid(datum.value)"}
    has_none = {"filter": "!isValid(datum.value)"}
    return {
        "height": _CELL * len(orders[0]),
        "autosize": {"type": "fit-x", "contains": "padding"},
        "params": [HIDDEN],
        "transform": [HIDE_ROWS],
        "encoding": {"x": x, "y": y},
        "layer": [
            {
                "transform": [has_mean],
                "mark": {"type": "rect"},
                "encoding": {"color": {"field": "value", **colour}, "tooltip": tooltip},
            },
            {
                "transform": [has_none],
                "mark": {"type": "rect", "color": "currentColor", "opacity": 0.12},
                "encoding": {"tooltip": tooltip},
            },
            {
                "transform": [{"filter": "datum.n > 0 && datum.diverged == datum.n"}],
                "mark": {"type": "point", "shape": "M-1,-1.6L1,.4M1,-1.6L-1,.4", "size": 250, "opacity": 0.4},
                "encoding": {"stroke": {"value": "currentColor"}, "tooltip": tooltip},
            },
            {
                "transform": [{"filter": "datum.best"}],
                "mark": {"type": "rect", "fill": None, "stroke": "currentColor", "strokeWidth": 2},
            },
            {
                "transform": [has_mean],
                "mark": {"type": "text", "fontWeight": "bold", "dy": {"expr": "datum.detail ? -6 : 0"}},
                "encoding": {"text": {"field": "words"}, "color": ink},
            },
            {
                "transform": [has_mean],
                "mark": {"type": "text", "fontSize": 10, "dy": 8},
                "encoding": {"text": {"field": "detail"}, "color": ink},
            },
            {
                "transform": [has_none],
                "mark": {"type": "text", "fontStyle": "italic", "dy": 12, "baseline": "middle"},
                "encoding": {"text": {"field": "words"}},
            },
        ],
    }
