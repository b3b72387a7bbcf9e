"""Which tables a view is made of."""

from __future__ import annotations

from collections.abc import Sequence

from initbench.compare.rows import Table
from initbench.report.comparison.block import Block
from initbench.report.comparison.changed import changed
from initbench.report.comparison.columns import OVERVIEW, activations, line_a_row, metrics_of
from initbench.report.comparison.curves import curves
from initbench.report.comparison.depth import against_baseline, in_depth
from initbench.report.comparison.judged import Judged, judged
from initbench.report.comparison.layer_lines import layer_lines
from initbench.report.comparison.pivot import pivot
from initbench.report.comparison.titles import title
from initbench.report.comparison.view import View, check_names

_PIVOTED = "final_val_accuracy"


def blocks(tables: Sequence[Table], view: View) -> list[Block]:
    """The tables to show, in order. Raises UsageError for a name that is not there."""
    check_names(view, tables)
    found = judged(tables, view)
    if view.only_changed:
        return [changed(found)] if found else []
    return [block for one in found for block in _of_one(one, view, title(one.table, tables))]


def _of_one(one: Judged, view: View, name: str) -> list[Block]:
    if view.plot:
        return curves(one, view, name)
    if view.layers:
        return [layer_lines(one, name)]
    if _is_pivot(one, view):
        return [pivot(one, metric, name) for metric in view.metrics or (_PIVOTED,)] + _versus(one, view)
    if view.metrics:
        return [in_depth(one, metric, name) for metric in metrics_of(view)]
    if view.view == "activation" and not view.columns:
        return [activations(one, name), *_versus(one, view)]
    return [line_a_row(one, view, name), *_versus(one, view)]


def _is_pivot(one: Judged, view: View) -> bool:
    """Whether two keys make the rows, and nothing else sets any of them apart."""
    by = one.table.by
    alone = len(by) == 2 and all(len(row.key) == 2 for row in one.rows)
    return alone and not view.columns and view.view == "all"


def _versus(one: Judged, view: View) -> list[Block]:
    if one.baseline is None or len(one.rows) < 2:
        return []
    return [against_baseline(one, _held(one, view))]


def _held(one: Judged, view: View) -> list[str]:
    """The metrics of the view that are there at all; the single metric of a pivot by itself."""
    if _is_pivot(one, view):
        return list(view.metrics) or [_PIVOTED]
    metrics = metrics_of(view) or list(OVERVIEW)
    return [name for name in metrics if any(row.metrics[name].n for row in one.rows)]
