"""Forest plots: means of the rows, or their differences from the baseline, with confidence intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from initbench.analysis.metrics import METRICS, Metric
from initbench.analysis.stats.verdict import DifferenceVerdict, is_significant
from initbench.render.compare import formatting, notes
from initbench.render.compare.titles import distinguishing_terms
from initbench.render.text import DASH, one_line, plural
from initbench.report.figure import ReportFigure, columns_of, rounded
from initbench.report.parameters import HIDDEN, HIDE_ROWS
from initbench.report.report_runs import ReportRow, ReportRuns
from initbench.report.theme import row_channels

FOREST_METRICS = (
    "test_accuracy",
    "best_val_accuracy",
    "test_r2",
    "best_val_r2",
    "steps_to_target",
    "final_train_loss",
)
"""Metrics that have a forest plot."""
_COLUMNS = (
    "row",
    "order",
    "n",
    "value",
    "low",
    "high",
    "p",
    "filled",
    "estimate",
    "p_text",
    "verdict",
    "seeds_needed",
    "letters",
    "missing",
)
_TEST = "paired t-test if rows share seeds and data, otherwise Welch's t-test"
_ROW, _HEADING = 26, 24
"""Height of a row and of the headings, in pixels."""
_CHARACTER = 6.6
"""Average width of a character in pixels."""
_LONGEST_NAME = 38
"""Longest name, in characters, for which a figure has enough space."""
_NARROW = 640
"""Width of a figure, in pixels, below which the columns of text are not drawn."""


@dataclass(frozen=True)
class _TextColumn:
    """A column of text on the right of the intervals."""

    field: str
    heading: str
    width: int
    """Width in pixels."""


def _columns(records: Sequence[dict[str, Any]], *, has_baseline: bool) -> list[_TextColumn]:
    longest = max(len(record["estimate"]) for record in records)
    estimate = _TextColumn("estimate", "difference" if has_baseline else "mean", round(6.2 * longest) + 14)
    if has_baseline:
        return [
            estimate,
            _TextColumn("p_text", "p", 48),
            _TextColumn("verdict", "verdict", 128),
            _TextColumn("seeds_needed", "seeds needed", 76),
        ]
    return [estimate, _TextColumn("letters", "letters", 48), _TextColumn("n", "n", 30)]


def forest_figures(report: ReportRuns) -> Iterator[ReportFigure]:
    """Yield a forest plot for each of FOREST_METRICS that runs have, if there are several rows."""
    if len(report.rows) < 2:
        return
    for metric in map(METRICS.__getitem__, FOREST_METRICS):
        make_record = _difference_record if _has_baseline(report) else _mean_record
        records = [make_record(row, order, metric) for order, row in enumerate(report.rows)]
        if any(record["value"] is not None for record in records):
            yield _figure(report, metric, records)


def _has_baseline(report: ReportRuns) -> bool:
    return any(table.baseline is not None for table in report.tables)


def _scale(metric: Metric) -> float:
    return 100.0 if metric.form == "percent" else 1.0


def _mean_record(row: ReportRow, order: int, metric: Metric) -> dict[str, Any]:
    mean, scale = row.row.metrics[metric.name].mean, _scale(metric)
    interval = row.table.interval(row.row, metric.name)
    value = None if mean is None else rounded(scale * mean)
    words = formatting.format_mean(metric, row.row)
    if interval is not None:
        words += f" {_bracketed(formatting.format_interval(metric, interval, row.row.n))}"
    return {
        "row": row.name,
        "order": order,
        "n": row.row.n,
        "value": value,
        "low": None if interval is None else rounded(scale * interval.low),
        "high": None if interval is None else rounded(scale * interval.high),
        "filled": True,
        "estimate": "" if value is None else words,
        "letters": row.table.shown_letters(metric.name).get(row.row.label, ""),
        "missing": _missing(metric, row) if value is None else "",
    }


def _difference_record(row: ReportRow, order: int, metric: Metric) -> dict[str, Any]:
    texts = dict.fromkeys(("estimate", "p_text", "verdict", "seeds_needed"), "")
    record = {"row": row.name, "order": order, "n": row.row.n, "value": None, "filled": False, **texts}
    if row.row is row.table.baseline:
        mean = formatting.format_mean(metric, row.row)
        has_mean = row.row.metrics[metric.name].mean is not None
        missing = "" if has_mean else _missing(metric, row)
        return {
            **record,
            "value": 0.0 if has_mean else None,
            "estimate": f"mean {mean}" if has_mean else "",
            "verdict": "baseline",
            "missing": missing,
        }
    comparison = row.table.versus(metric.name).get(row.row.label)
    if comparison is None:
        return {**record, "missing": "not compared"}
    difference, scale = comparison.difference, _scale(metric)
    if difference.difference is None:
        missing = _missing(metric, row) if row.row.metrics[metric.name].mean is None else "not compared"
        return {**record, "verdict": str(comparison.verdict), "missing": missing}
    interval = difference.interval
    estimate = formatting.format_difference(metric, difference)
    if interval is not None:
        estimate += f" {_bracketed(formatting.format_difference_interval(metric, difference))}"
    return {
        **record,
        "value": rounded(scale * difference.difference),
        "low": None if interval is None else rounded(scale * interval.low),
        "high": None if interval is None else rounded(scale * interval.high),
        "p": rounded(comparison.p_adjusted),
        "p_text": formatting.format_p_value(comparison.p_adjusted),
        "filled": is_significant(comparison.p_adjusted, row.table.confidence),
        "estimate": estimate,
        "verdict": str(comparison.verdict),
        "seeds_needed": formatting.format_seeds_needed(comparison.seeds_needed),
        "missing": "",
    }


def _bracketed(interval: str) -> str:
    return interval if interval.startswith("[") else f"({interval})"


def _missing(metric: Metric, row: ReportRow) -> str:
    """Return the reason why a row has no mean."""
    if row.row.diverged == row.row.n > 0 and not metric.censored:
        return "diverged"
    words = formatting.format_mean(metric, row.row)
    return "not measured" if words == DASH else words


def _figure(report: ReportRuns, metric: Metric, records: Sequence[dict[str, Any]]) -> ReportFigure:
    has_baseline = _has_baseline(report)
    confidence = f"{100 * report.tables[0].confidence:g} %"
    meaning = f"{metric.meaning[0].upper()}{metric.meaning[1:]}"
    target = ", ".join(
        dict.fromkeys(formatting.metric_heading(metric, table.table.target) for table in report.tables)
    )
    shown = f"{meaning} ({target})" if metric.censored else meaning
    if has_baseline:
        what = f"Differences of the mean from {_baselines(report)}, with their {confidence} intervals"
        test = (
            f" Test: {_TEST}; p is Holm-adjusted over the rows compared with the baseline. The verdict"
            " follows p; filled points differ significantly. Seeds needed: runs per row that detect a"
            " difference of this size with 80 % power, a rough estimate with few seeds."
        )
    else:
        what = f"Means over seeds with their {confidence} intervals (Student's t)"
        test = (
            f" Rows that share a letter do not differ significantly ({_TEST}, Holm-adjusted over all pairs)."
        )
        if len(report.tables) > 1:
            test += " Rows of different data or budgets are not compared, and their letters are separate."
    return ReportFigure(
        key=f"forest-{metric.name.replace('_', '-')}",
        title=meaning,
        takeaway=_takeaway(report, metric, records),
        caption=f"{shown}. {what} ({report.provenance}). Rows are in the order of the comparison.{test}",
        columns=columns_of(records, _COLUMNS),
        spec=_spec(report, metric, records, has_baseline=has_baseline),
        size="full",
        named_rows=report.names,
        name_space=0.33,
        is_comparison=has_baseline,
        notes=list(dict.fromkeys(_notes(report, metric))),
    )


def _baselines(report: ReportRuns) -> str:
    labels = [table.baseline.label for table in report.tables if table.baseline is not None]
    return ", ".join(dict.fromkeys(map(one_line, labels)))


def _notes(report: ReportRuns, metric: Metric) -> Iterator[str]:
    for table in report.tables:
        if table.baseline is not None:
            yield from notes.partial_pairs(table, [metric.name])
        yield from notes.row_warnings(table)


def _takeaway(report: ReportRuns, metric: Metric, records: Sequence[dict[str, Any]]) -> str:
    if not _has_baseline(report):
        return " ".join(_best_rows(report, metric, records))
    names: dict[str, list[str]] = {}
    for record in records:
        if record["verdict"] not in ("", "baseline"):
            names.setdefault(record["verdict"], []).append(record["row"])
    order = [str(verdict) for verdict in DifferenceVerdict]
    words = [f"{verdict}: {_listed(names[verdict])}" for verdict in sorted(names, key=order.index)]
    return f"Compared with {_baselines(report)}, {'; '.join(words)}." if words else ""


def _best_rows(report: ReportRuns, metric: Metric, records: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each table, since means of different data or budgets are not compared."""
    tables = [table.table for table in report.tables]
    for table in report.tables:
        names = {row.name for row in report.rows if row.table is table}
        of_table = [record for record in records if record["row"] in names]
        if any(record["value"] is not None for record in of_table):
            terms = distinguishing_terms(table.table, tables)
            yield f"{terms}: {_best_row(metric, of_table)}" if terms else _best_row(metric, of_table)


def _best_row(metric: Metric, records: Sequence[dict[str, Any]]) -> str:
    """Name the row with the best mean, and the rows that do not differ significantly from it."""
    measured = [record for record in records if record["value"] is not None]
    best = (min if metric.better == "lower" else max)(measured, key=lambda record: record["value"])
    mean = best["estimate"].split()[0]
    unit = " %" if metric.form == "percent" else ""
    sentence = f"{best['row']} has the best mean, {mean}{unit}"
    if len(measured) == 1:
        return f"{best['row']} is the only row with a mean, {mean}{unit}."
    if not best["letters"]:
        return f"{sentence}; no differences were tested."
    similar = [
        record["row"]
        for record in measured
        if record is not best and set(record["letters"]) & set(best["letters"])
    ]
    if similar:
        return f"{sentence}; no significant difference is shown from {_listed(similar)}."
    return f"{sentence}, which differs significantly from all other means."


def _listed(names: Sequence[str]) -> str:
    more = len(names) - 4
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:4])} and {plural(more, 'more row')}"


def _spec(
    report: ReportRuns, metric: Metric, records: Sequence[dict[str, Any]], *, has_baseline: bool
) -> dict[str, Any]:
    columns = _columns(records, has_baseline=has_baseline)
    rows = len(report.rows)
    visible = f"max(1, {rows} - length(hidden))"
    longest = min(_LONGEST_NAME, max(map(len, report.names)))
    left = f"min({10 + _CHARACTER * longest:.0f}, width * 0.36)"
    text_width = sum(column.width for column in columns)
    right = f"(width > {_NARROW} ? width - {text_width + 14} : width - 12)"
    x = {
        "field": "value",
        "type": "quantitative",
        "title": _axis_title(metric, has_baseline=has_baseline),
        "scale": {"range": [{"expr": left}, {"expr": right}], "zero": has_baseline, "nice": True},
        "axis": {
            "titleAnchor": "start",
            "grid": True,
            "tickCount": {"expr": f"max(2, ({right} - {left}) / 70)"},
        },
    }
    y = {
        "field": "place",
        "type": "quantitative",
        "scale": {"domainMin": 0, "domainMax": {"expr": f"{visible} + 0.5"}, "reverse": True, "nice": False},
        "axis": None,
    }
    colour = row_channels(report.rows, marks="area")
    tooltip = [
        {"field": "row", "title": "row"},
        {"field": "estimate", "title": "difference" if has_baseline else "mean"},
        *(
            [{"field": "p_text", "title": "p"}, {"field": "verdict", "title": "verdict"}]
            if has_baseline
            else []
        ),
        {"field": "n", "title": "n"},
    ]
    zero = {
        "mark": {"type": "rule", "strokeDash": [4, 3], "opacity": 0.8},
        "encoding": {"x": {**{key: value for key, value in x.items() if key != "field"}, "datum": 0}},
    }
    return {
        "height": _HEADING + _ROW * rows,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "params": [HIDDEN],
        "transform": [
            HIDE_ROWS,
            {"window": [{"op": "dense_rank", "as": "place"}], "sort": [{"field": "order"}]},
        ],
        "layer": [
            *([zero] if has_baseline else []),
            {
                "transform": [{"filter": "isValid(datum.low)"}],
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y, **colour},
            },
            {
                "transform": [{"filter": "isValid(datum.value)"}],
                "mark": {"type": "point", "size": 64, "strokeWidth": 2, "opacity": 1},
                "encoding": {
                    "x": x,
                    "y": y,
                    **colour,
                    "fill": {**colour["color"], "legend": None},
                    "fillOpacity": {"condition": {"test": "datum.filled", "value": 1}, "value": 0},
                    "tooltip": tooltip,
                },
            },
            _text(y, "row", {"expr": "0"}, {"limit": {"expr": f"{left} - 10"}}),
            _text(y, "missing", {"expr": f"{left} + 6"}, {"fontStyle": "italic", "opacity": 0.8}),
            *_text_columns(columns, y),
        ],
    }


def _axis_title(metric: Metric, *, has_baseline: bool) -> list[str]:
    """Return the title in two lines, so that it fits narrow figures."""
    unit = {"percent": ", percentage points" if has_baseline else ", %", "count": ", updates"}
    title = f"{'difference' if has_baseline else 'mean'}{unit.get(metric.form, '')}"
    return [title, f"({metric.better} is better)"] if metric.better else [title]


def _text_columns(columns: Sequence[_TextColumn], y: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the columns of text with their headings, which are drawn where the figure is wide enough."""
    fits = {"opacity": {"expr": f"width > {_NARROW} ? 1 : 0"}}
    right = 0
    for column in reversed(columns):
        right += column.width
        x = {"expr": f"max(0, width - {right})"}
        yield _text(y, column.field, x, fits)
        heading = _text(y, column.field, x, {**fits, "fontWeight": "bold"})
        heading["encoding"]["y"] = {"value": 8}
        heading["encoding"]["text"] = {"value": column.heading}
        heading["transform"] = [{"filter": "datum.place == 1"}]
        yield heading


def _text(y: dict[str, Any], field: str, x: dict[str, Any], style: dict[str, Any]) -> dict[str, Any]:
    return {
        "mark": {"type": "text", "align": "left", "baseline": "middle", **style},
        "encoding": {"x": {"value": x}, "y": y, "text": {"field": field, "type": "nominal"}},
    }
