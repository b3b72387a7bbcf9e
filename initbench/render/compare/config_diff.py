"""Table of the keys that differ between rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.cells import cell_len

from initbench.analysis.config_keys import distinct_values, keys_that_differ
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.tables import Row, Table
from initbench.render import text
from initbench.render.compare import formatting
from initbench.render.compare.analysed_table import AnalysedTable
from initbench.render.compare.table import ComparisonTable

_NO_CAUSE = ("experiment", "seed", "status")
"""Keys that do not influence the results of a run."""
_MAX_ACROSS = 6
"""Largest number of rows that are shown side by side; more rows are shown below each other."""
_MAX_ACROSS_LENGTH = 40
"""Longest label, in terminal columns, of rows that are shown side by side."""


def config_diff_table(tables: Sequence[AnalysedTable]) -> ComparisonTable:
    """Return one table for all rows with the keys of config, data, device, versions and code that differ."""
    labels = _labels([analysed.table for analysed in tables])
    values_by_label = {labels[id(row)]: _values(row) for analysed in tables for row in analysed.rows}
    keys = [key for key in keys_that_differ(list(values_by_label.values())) if key not in _NO_CAUSE]
    title = f"{text.plural(len(keys), 'key')} that {'differs' if len(keys) == 1 else 'differ'}"
    fits = len(values_by_label) <= _MAX_ACROSS and all(
        cell_len(label) <= _MAX_ACROSS_LENGTH for label in values_by_label
    )
    block = (_rows_across if fits else _keys_across)(values_by_label, keys, title)
    same = len({key for values in values_by_label.values() for key in values}) - len(keys) - len(_NO_CAUSE)
    block.notes = [f"Not shown: {text.plural(max(0, same), 'other key')} with the same value in all rows."]
    return block


def _values(row: Row) -> dict[str, str]:
    """Return the value of each key of a row; values are joined by commas if its runs differ."""
    runs: Sequence[RunSummary] = row.group.runs
    keys = sorted({key for run in runs for key in run.keys})
    return {
        key: ", ".join(
            text.one_line(formatting.format_config_value(value)) for value in distinct_values(key, runs)
        )
        for key in keys
    }


def _labels(tables: Sequence[Table]) -> dict[int, str]:
    """Return a unique label per row, by `id(row)`; equal labels are extended by data set and steps."""
    rows = [(row, table) for table in tables for row in table.rows]
    often = Counter(row.label for row, _ in rows)
    labels: dict[int, str] = {}
    for row, table in rows:
        terms = table.conditions
        suffix = f" ({terms.dataset}, {terms.steps} steps)" if often[row.label] > 1 else ""
        label = text.one_line(row.label + suffix)
        duplicates = list(labels.values()).count(label)
        labels[id(row)] = f"{label} #{duplicates + 1}" if duplicates else label
    return labels


def _rows_across(
    values_by_label: Mapping[str, Mapping[str, str]], keys: Sequence[str], title: str
) -> ComparisonTable:
    block = ComparisonTable(title, ["key", *values_by_label], frozenset(["key", *values_by_label]))
    for key in keys:
        block.add(key, *(values.get(key, text.DASH) for values in values_by_label.values()))
    return block


def _keys_across(
    values_by_label: Mapping[str, Mapping[str, str]], keys: Sequence[str], title: str
) -> ComparisonTable:
    block = ComparisonTable(title, ["row", *keys], frozenset(["row", *keys]))
    for label, values in values_by_label.items():
        block.add(label, *(values.get(key, text.DASH) for key in keys))
    return block
