"""Comparisons as CSV in long form: one line for each table, row and metric."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

from initbench.analysis.metrics import METRICS
from initbench.analysis.stats.confidence_intervals import rate_interval
from initbench.analysis.tables import Row
from initbench.render.compare.analysed_table import AnalysedTable
from initbench.render.compare.display_options import View
from initbench.render.compare.per_layer import LAYER_FIELDS, layer_records
from initbench.render.text import one_line

DIVERGENCE = "divergence_rate"
"""Additional metric: the share of complete runs that diverged, with its exact confidence interval."""
FIELDS = (
    "dataset",
    "fingerprint",
    "precision",
    "steps",
    "batch_size",
    "row",
    "runs",
    "diverged",
    "unfinished",
    "metric",
    "n",
    "mean",
    "std",
    "std_scale",
    "confidence",
    "ci_low",
    "ci_high",
    "letters",
    "baseline",
    "difference",
    "difference_ci_low",
    "difference_ci_high",
    "p_adjusted",
    "effect_size",
    "verdict",
    "seeds_needed",
    "method",
)
_FORMULA = ("=", "+", "-", "@")
_CAUTION = "'"


def to_long_csv(tables: Sequence[AnalysedTable], view: View) -> str:
    """Return the CSV text (RFC 4180); numbers have all digits, and missing values are empty.

    Text that a spreadsheet would run as a formula is prefixed with an apostrophe. Control characters are
    escaped, because the file may be printed on a terminal.
    """
    if view.layers:
        return _layers(tables)
    keys = list(dict.fromkeys(key for analysed in tables for row in analysed.rows for key in row.key))
    file = io.StringIO()
    writer = csv.DictWriter(file, [*FIELDS[:6], *(f"key:{key}" for key in keys), *FIELDS[6:]])
    writer.writerow({name: plain_cell(name) for name in writer.fieldnames})
    for record in long_records(tables, view):
        writer.writerow({key: plain_cell(value) for key, value in record.items()})
    return file.getvalue()


def long_records(tables: Sequence[AnalysedTable], view: View) -> Iterator[dict[str, Any]]:
    """Yield one record with the keys FIELDS for each table, row and metric; absent values are omitted."""
    names = [name for name in METRICS if name in view.metrics] if view.metrics else recorded_metrics(tables)
    for analysed in tables:
        for row in analysed.rows:
            yield from _lines(analysed, row, names)


def recorded_metrics(tables: Sequence[AnalysedTable]) -> list[str]:
    """Return all metrics, optional ones only if a row has a value."""
    return [
        name
        for name, metric in METRICS.items()
        if not metric.is_optional or any(row.metrics[name].n for table in tables for row in table.rows)
    ]


def _layers(tables: Sequence[AnalysedTable]) -> str:
    """Return CSV text with one line for each table, row, layer and moment (init or end)."""
    file = io.StringIO()
    writer = csv.DictWriter(file, LAYER_FIELDS)
    writer.writeheader()
    for table in tables:
        for record in layer_records(table):
            writer.writerow({key: plain_cell(value) for key, value in record.items()})
    return file.getvalue()


def plain_cell(value: Any) -> Any:
    """Return a cell of a CSV file: all digits of a number, and text that no spreadsheet runs as a formula."""
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else _format_nonfinite(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    words = one_line(str(value))
    return _CAUTION + words if words.startswith(_FORMULA) else words


def _format_nonfinite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _lines(analysed: AnalysedTable, row: Row, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    terms = analysed.table.conditions
    shared = {
        "dataset": terms.dataset,
        "fingerprint": terms.fingerprint,
        "precision": terms.precision,
        "steps": terms.steps,
        "batch_size": terms.batch_size,
        "row": row.label,
        **{f"key:{key}": _key(value) for key, value in row.key.items()},
        "runs": row.n,
        "diverged": row.diverged,
        "unfinished": row.unfinished,
        "confidence": analysed.confidence,
        "baseline": analysed.baseline.label if analysed.baseline else None,
    }
    for name in names:
        yield {**shared, **_metric(analysed, row, name), **_versus(analysed, row, name)}
    yield {**shared, **_divergence(analysed, row)}


def _key(value: Any) -> Any:
    """Format the value of a key; a variant has several keys, as in `model.depth=20 model.norm=batch`."""
    return " ".join(f"{key}={inner}" for key, inner in value.items()) if isinstance(value, dict) else value


def _metric(analysed: AnalysedTable, row: Row, name: str) -> dict[str, Any]:
    summary, interval = row.metrics[name], analysed.interval(row, name)
    return {
        "metric": name,
        "n": summary.n,
        "mean": summary.mean,
        "std": summary.std,
        "std_scale": "log" if METRICS[name].log else "linear",
        "ci_low": interval.low if interval else None,
        "ci_high": interval.high if interval else None,
        "letters": analysed.letters(name).get(row.label) if METRICS[name].view == "convergence" else None,
    }


def _versus(analysed: AnalysedTable, row: Row, name: str) -> dict[str, Any]:
    comparison = analysed.versus(name).get(row.label)
    if comparison is None:
        return {}
    difference = comparison.difference
    return {
        "difference": difference.difference,
        "difference_ci_low": difference.interval.low if difference.interval else None,
        "difference_ci_high": difference.interval.high if difference.interval else None,
        "p_adjusted": comparison.p_adjusted,
        "effect_size": difference.effect_size,
        "verdict": str(comparison.verdict),
        "seeds_needed": str(comparison.seeds_needed) if comparison.seeds_needed else None,
        "method": str(difference.method),
    }


def _divergence(analysed: AnalysedTable, row: Row) -> dict[str, Any]:
    interval = rate_interval(row.diverged, row.n, analysed.confidence)
    line: dict[str, Any] = {
        "metric": DIVERGENCE,
        "n": row.n,
        "mean": row.diverged / row.n if row.n else None,
        "ci_low": interval.low if interval else None,
        "ci_high": interval.high if interval else None,
    }
    if analysed.baseline is None or row is analysed.baseline:
        return line
    difference, p = analysed.divergence[row.label]
    return {
        **line,
        "difference": difference.difference,
        "p_adjusted": p,
        "method": str(difference.method),
    }
