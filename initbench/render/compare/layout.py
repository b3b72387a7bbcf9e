"""Which tables a view is made of."""

from __future__ import annotations

from collections.abc import Sequence

from initbench.analysis.tables import Table
from initbench.render.compare.analysed_table import AnalysedTable, analyse
from initbench.render.compare.columns import OVERVIEW, activations, metrics_of, overview_table
from initbench.render.compare.config_diff import changed
from initbench.render.compare.display_options import View, check_names
from initbench.render.compare.learning_curves import curves
from initbench.render.compare.metric_detail import against_baseline, metric_table
from initbench.render.compare.per_layer import layer_lines
from initbench.render.compare.pivot import pivot
from initbench.render.compare.table import ComparisonTable
from initbench.render.compare.titles import title

_PIVOTED = "final_val_accuracy"


def blocks(tables: Sequence[Table], view: View) -> list[ComparisonTable]:
    """The tables to show, in order. Raises UsageError for a name that is not there."""
    check_names(view, tables)
    found = analyse(tables, view)
    if view.only_changed:
        return [changed(found)] if found else []
    return [block for one in found for block in _of_one(one, view, title(one.table, tables))]


def _of_one(one: AnalysedTable, view: View, name: str) -> list[ComparisonTable]:
    if view.plot:
        return curves(one, view, name)
    if view.layers:
        return [layer_lines(one, name)]
    if _is_pivot(one, view):
        return [pivot(one, metric, name) for metric in view.metrics or (_PIVOTED,)] + _versus(one, view)
    if view.metrics:
        return [metric_table(one, metric, name) for metric in metrics_of(view)]
    if view.view == "activation" and not view.columns:
        return [activations(one, name), *_versus(one, view)]
    return [overview_table(one, view, name), *_versus(one, view)]


def _is_pivot(one: AnalysedTable, view: View) -> bool:
    """Whether two keys make the rows, and nothing else sets any of them apart."""
    by = one.table.by
    alone = len(by) == 2 and all(len(row.key) == 2 for row in one.rows)
    return alone and not view.columns and view.view == "all"


def _versus(one: AnalysedTable, view: View) -> list[ComparisonTable]:
    if one.baseline is None or len(one.rows) < 2:
        return []
    return [against_baseline(one, _held(one, view))]


def _held(one: AnalysedTable, view: View) -> list[str]:
    """The metrics of the view that are there at all; the single metric of a pivot by itself."""
    if _is_pivot(one, view):
        return list(view.metrics) or [_PIVOTED]
    metrics = metrics_of(view) or list(OVERVIEW)
    return [name for name in metrics if any(row.metrics[name].n for row in one.rows)]
