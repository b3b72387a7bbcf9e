"""What changed between the rows: the keys that differ, and nothing else."""

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
"""Keys of a run that are no cause of what it computes."""
_MAX_ACROSS = 6
"""Rows beyond which they stand below each other, and the keys across."""
_MAX_ACROSS_LENGTH = 40
"""Columns that a row's name may take above a column; a longer one makes the rows stand below each other."""


def config_diff_table(tables: Sequence[AnalysedTable]) -> ComparisonTable:
    """Keys of the config, the data, the device, versions and code that differ; over all tables at once."""
    labels = _labels([analysed.table for analysed in tables])
    values_by_label = {labels[id(row)]: _values(row) for analysed in tables for row in analysed.rows}
    keys = [key for key in keys_that_differ(list(values_by_label.values())) if key not in _NO_CAUSE]
    title = f"{text.plural(len(keys), 'key')} that {'differs' if len(keys) == 1 else 'differ'}"
    fits = len(values_by_label) <= _MAX_ACROSS and all(
        cell_len(label) <= _MAX_ACROSS_LENGTH for label in values_by_label
    )
    block = (_rows_across if fits else _keys_across)(values_by_label, keys, title)
    same = len({key for values in values_by_label.values() for key in values}) - len(keys) - len(_NO_CAUSE)
    block.notes = [f"{text.plural(max(0, same), 'other key')} that all rows agree on are not shown."]
    return block


def _values(row: Row) -> dict[str, str]:
    """A row's values of each key; several where its runs differ."""
    runs: Sequence[RunSummary] = row.group.runs
    keys = sorted({key for run in runs for key in run.keys})
    return {
        key: ", ".join(
            text.one_line(formatting.format_config_value(value)) for value in distinct_values(key, runs)
        )
        for key in keys
    }


def _labels(tables: Sequence[Table]) -> dict[int, str]:
    """By the row's identity, its label, with the data and the budget where another row is called the same."""
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
