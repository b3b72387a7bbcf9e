"""Pivot table of a metric over the values of two keys."""

from __future__ import annotations

from typing import Any

from initbench.analysis.metrics import METRICS, Metric
from initbench.analysis.tables import Row
from initbench.render import text
from initbench.render.compare import formatting, notes
from initbench.render.compare.analysed_table import AnalysedTable
from initbench.render.compare.table import ComparisonTable, TableCell

NO_RUNS = "no runs"


def pivot_table(judged: AnalysedTable, name: str, title: str) -> ComparisonTable:
    """Return a pivot table of the means of a metric: values of the first key down, of the second across."""
    metric = METRICS[name]
    down, across = judged.table.by
    row_by_keys = {(key_value(row.key[down]), key_value(row.key[across])): row for row in judged.rows}
    columns = ordered_key_values([row.key[across] for row in judged.rows])
    corner = f"{down} ↓  {across} →"
    block = ComparisonTable(f"{title} · {name}", [corner, *columns], frozenset([corner]))
    for value in ordered_key_values([row.key[down] for row in judged.rows]):
        block.add(value, *(_cell(judged, metric, row_by_keys.get((value, column))) for column in columns))
    unit = ", in %" if metric.form == "percent" else ""
    block.notes = [
        f"{notes.describe_metric(name)}{unit}: mean ±std (n). {notes.spread_note(geometric=metric.log)}",
        *notes.letters_note(judged, [name], of_cells=True),
    ]
    block.warnings = notes.row_warnings(judged)
    block.summary = notes.short_note("mean ±std (n)", notes.letters_phrase(judged, [name]))
    return block


def _cell(judged: AnalysedTable, metric: Metric, row: Row | None) -> TableCell:
    if row is None:
        return TableCell(NO_RUNS)
    summary = row.metrics[metric.name]
    if summary.mean is None:
        return TableCell(missing_mean(metric, row))
    words = formatting.format_mean_std(metric, row)
    counted = words if summary.n != row.n else f"{words} ({row.n})"
    return TableCell(counted, judged.shown_letters(metric.name).get(row.label, ""))


def missing_mean(metric: Metric, row: Row) -> str:
    """Return the text of a cell that has no mean."""
    if not row.n:
        return f"unfinished ({row.unfinished})"
    if row.diverged == row.n:
        return f"diverged ({row.n})"
    return f"{formatting.format_mean(metric, row)} ({row.n})"


def key_value(value: Any) -> str:
    """Return the value of a key as the text of a heading."""
    return text.one_line(formatting.format_config_value(value))


def ordered_key_values(values: list[Any]) -> list[str]:
    """Return the distinct values as text: numbers in ascending order, then words."""
    numbers = sorted({value for value in values if isinstance(value, int | float)})
    words = sorted({key_value(value) for value in values if not isinstance(value, int | float)})
    return [*dict.fromkeys(map(key_value, numbers)), *words]
