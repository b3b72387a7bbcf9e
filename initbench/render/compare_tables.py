"""What `compare` prints and writes, in every format."""

from __future__ import annotations

import errno
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console, RenderableType

from initbench.analysis.tables import Table
from initbench.errors import StoreError, UsageError
from initbench.render.compare.analysed_table import analyse, without_comparison
from initbench.render.compare.console import print_blocks, table_renderables
from initbench.render.compare.csv_long import to_long_csv
from initbench.render.compare.display_options import View, check_names
from initbench.render.compare.layout import build_comparison_tables
from initbench.render.compare.markdown_latex import to_latex, to_markdown
from initbench.render.compare.table import ComparisonTable
from initbench.render.compare.titles import why_separate
from initbench.render.json_documents import compare_document
from initbench.store import strict_json
from initbench.store.files import write_atomic

NO_EXTRA_KEYS: Mapping[str, Any] = MappingProxyType({})
DISK_ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_FILE_WIDTH = 10_000
"""Columns of a table that goes to a file: its notes stay on one line each."""


def print_tables(console: Console, tables: Sequence[Table], view: View | None = None) -> None:
    """Print every table of a view for the width of the console, split where it is too wide and never cut."""
    view = view or View(width=console.width)
    print_blocks(console, _tables_to_show(tables, view), view.width, all_notes=view.all_notes)


def comparison_renderables(tables: Sequence[Table], view: View | None = None) -> list[RenderableType]:
    """The same, to be printed by others."""
    view = view or View()
    return [
        piece
        for block in _tables_to_show(tables, view)
        for piece in table_renderables(block, view.width, all_notes=view.all_notes)
    ]


def render_comparison(tables: Sequence[Table], view: View, more: Mapping[str, Any] = NO_EXTRA_KEYS) -> str:
    """The view in its format, as lines; `more` keys go into JSON alone.

    Raises UsageError for a name that is not there.
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
    """Write the view to a file in one step: a reader sees the old file or the new one.

    Raises UsageError for a path that cannot be written, StoreError where the disk is full or fails.
    """
    content = render_comparison(tables, replace(view, width=None), more)
    try:
        if path.exists() and not path.is_file():  # a pipe or a terminal cannot be replaced
            path.write_text(content, encoding="utf-8", newline="")
        else:
            write_atomic(path, content)
    except OSError as error:
        kind = StoreError if error.errno in DISK_ERRORS else UsageError
        raise kind(f"cannot write {path}: {error.strerror or error}") from error


def _tables_to_show(tables: Sequence[Table], view: View) -> list[ComparisonTable]:
    """The blocks; before several tables it is said why they are several, and below them what is in none."""
    comparison_tables = build_comparison_tables(tables, view)
    reason = None if view.only_changed else why_separate(tables)
    above = [] if reason is None else [ComparisonTable("", [], notes=[reason])]
    uncompared = [*without_comparison(tables, view), *view.aside]
    below = [ComparisonTable("", [], warnings=uncompared)] if uncompared else []
    return [*above, *comparison_tables, *below]
