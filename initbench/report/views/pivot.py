"""Means of the rows of a comparison in a table with two axes, for rows that two keys make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from initbench.render.compare.analysed_table import AnalysedTable
from initbench.render.compare.pivot import pivot_table
from initbench.render.compare.titles import table_title
from initbench.report.page import HtmlTable, ReportSection

METRIC = "best_val_accuracy"


def pivot_sections(tables: Sequence[AnalysedTable]) -> Iterator[ReportSection]:
    """Yield a section with a pivot of each table whose rows two keys make, if there is any."""
    by_two_keys = [analysed for analysed in tables if len(analysed.table.by) == 2]
    if not by_two_keys:
        return
    down, across = by_two_keys[0].table.by
    yield ReportSection(
        "pivot", f"Accuracy by {down} and {across}", tables=[_html_table(a, by_two_keys) for a in by_two_keys]
    )


def _html_table(analysed: AnalysedTable, tables: Sequence[AnalysedTable]) -> HtmlTable:
    title = table_title(analysed.table, [other.table for other in tables])
    block = pivot_table(analysed, METRIC, title)
    rows = [[f"{cell.text} {cell.letters}".rstrip() for cell in row] for row in block.rows]
    return HtmlTable(block.headings, rows, [f"{title}. {block.notes[0]}", *block.notes[1:], *block.warnings])
