"""Selection of the tables that make up a view."""

from __future__ import annotations

from collections.abc import Sequence

from initbench.analysis.tables import Table
from initbench.render.compare.analysed_table import AnalysedTable, analyse
from initbench.render.compare.columns import OVERVIEW, SCORES, layer_output_table, metrics_of, overview_table
from initbench.render.compare.config_diff import config_diff_table
from initbench.render.compare.display_options import View, check_names
from initbench.render.compare.learning_curves import curve_plots
from initbench.render.compare.metric_detail import against_baseline, metric_table
from initbench.render.compare.per_layer import layer_lines
from initbench.render.compare.pivot import pivot_table
from initbench.render.compare.table import ComparisonTable
from initbench.render.compare.titles import table_title

_PIVOTED = ("final_val_accuracy", "final_val_r2")
"""Metrics of a pivot table by default; the first one that a row has."""


def build_comparison_tables(tables: Sequence[Table], view: View) -> list[ComparisonTable]:
    """Return the tables to show, in order; raise UsageError for an unknown name."""
    check_names(view, tables)
    analysed_tables = analyse(tables, view)
    if view.only_changed:
        return [config_diff_table(analysed_tables)] if analysed_tables else []
    return [
        block
        for analysed in analysed_tables
        for block in _tables_for(analysed, view, table_title(analysed.table, tables))
    ]


def _tables_for(analysed: AnalysedTable, view: View, name: str) -> list[ComparisonTable]:
    if view.plot:
        return curve_plots(analysed, view, name)
    if view.layers:
        return [layer_lines(analysed, name)]
    if _is_pivot(analysed, view):
        metrics = _pivoted_metrics(analysed, view)
        return [pivot_table(analysed, metric, name) for metric in metrics] + _versus(analysed, view)
    if view.metrics:
        return [metric_table(analysed, metric, name) for metric in metrics_of(view)]
    if view.view == "activation" and not view.columns:
        return [layer_output_table(analysed, name), *_versus(analysed, view)]
    return [overview_table(analysed, view, name), *_versus(analysed, view)]


def _is_pivot(analysed: AnalysedTable, view: View) -> bool:
    """Return whether to show a pivot table: two keys define the rows, and no other key distinguishes them."""
    by = analysed.table.by
    alone = len(by) == 2 and all(len(row.key) == 2 for row in analysed.rows)
    return alone and not view.columns and view.view == "all"


def _pivoted_metrics(analysed: AnalysedTable, view: View) -> list[str]:
    recorded = (name for name in _PIVOTED if any(row.metrics[name].n for row in analysed.rows))
    return list(view.metrics) or [next(recorded, _PIVOTED[0])]


def _versus(analysed: AnalysedTable, view: View) -> list[ComparisonTable]:
    if analysed.baseline is None or len(analysed.rows) < 2:
        return []
    return [against_baseline(analysed, _compared_metrics(analysed, view))]


def _compared_metrics(analysed: AnalysedTable, view: View) -> list[str]:
    """Return the metrics to compare with the baseline: those of the view that any row has a value of."""
    if _is_pivot(analysed, view):
        return _pivoted_metrics(analysed, view)
    metrics = metrics_of(view) or [*OVERVIEW, *SCORES]
    return [name for name in metrics if any(row.metrics[name].n for row in analysed.rows)]
