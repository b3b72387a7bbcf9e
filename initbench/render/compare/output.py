"""Output of `compare` in every format."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console, RenderableType

from initbench.analysis.tables import Table
from initbench.render.compare.analysed_table import analyse, without_comparison
from initbench.render.compare.console import print_blocks, table_renderables
from initbench.render.compare.csv_long import to_long_csv
from initbench.render.compare.display_options import View, check_names
from initbench.render.compare.layout import build_comparison_tables
from initbench.render.compare.markdown_latex import to_latex, to_markdown
from initbench.render.compare.table import ComparisonTable
from initbench.render.compare.titles import why_separate
from initbench.render.run_documents import compare_document
from initbench.store import strict_json
from initbench.store.files import write_output

NO_EXTRA_KEYS: Mapping[str, Any] = MappingProxyType({})
_FILE_WIDTH = 10_000
"""Width in columns of tables written to files, so that notes are not wrapped."""


def print_tables(console: Console, tables: Sequence[Table], view: View | None = None) -> None:
    """Print the tables of a view; tables wider than the console are split, never truncated."""
    view = view or View(width=console.width)
    print_blocks(console, _tables_to_show(tables, view), view.width, all_notes=view.all_notes)


def comparison_renderables(tables: Sequence[Table], view: View | None = None) -> list[RenderableType]:
    """Return the tables of a view as renderables for the caller to print."""
    view = view or View()
    return [
        piece
        for block in _tables_to_show(tables, view)
        for piece in table_renderables(block, view.width, all_notes=view.all_notes)
    ]


def render_comparison(tables: Sequence[Table], view: View, more: Mapping[str, Any] = NO_EXTRA_KEYS) -> str:
    """Return the view as text in its format; the keys `more` are added to JSON only.

    Raises:
        UsageError: For an unknown name.
    """
    if view.format == "json":
        return strict_json.dumps({**compare_document(tables, view), **more}) + "\n"
    if view.format == "csv":
        check_names(view, tables)
        return to_long_csv(analyse(tables, view), view)
    if view.format == "markdown":
        return to_markdown(_tables_to_show(tables, view)) + "\n"
    if view.format == "latex":
        return to_latex(_tables_to_show(tables, view)) + "\n"
    console = Console(
        file=io.StringIO(), width=view.width or _FILE_WIDTH, markup=False, emoji=False, highlight=False
    )
    print_tables(console, tables, view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def save_comparison(
    path: Path, tables: Sequence[Table], view: View, more: Mapping[str, Any] = NO_EXTRA_KEYS
) -> None:
    """Write the view to a file atomically: a reader sees either the old file or the new one.

    Raises:
        UsageError: If the path cannot be written.
        StoreError: If the disk is full or fails.
    """
    write_output(path, render_comparison(tables, replace(view, width=None), more))


def _tables_to_show(tables: Sequence[Table], view: View) -> list[ComparisonTable]:
    """Return the tables, preceded by the reason if there are several, and followed by the general notes."""
    comparison_tables = build_comparison_tables(tables, view)
    reason = None if view.only_changed else why_separate(tables)
    above = [] if reason is None else [ComparisonTable("", [], notes=[reason])]
    uncompared = [*without_comparison(tables, view), *view.aside]
    below = [ComparisonTable("", [], warnings=uncompared)] if uncompared else []
    return [*above, *comparison_tables, *below]
