"""Results as HTML for notebooks; all text is escaped, and nothing is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from initbench.analysis.tables import Table
from initbench.render.compare.display_options import View
from initbench.render.compare.layout import build_comparison_tables
from initbench.render.compare.table import ComparisonTable


def preformatted_html(text: str) -> str:
    """Return text as it is printed in a terminal."""
    return f'<pre style="line-height: 1.2; white-space: pre">{escape(text)}</pre>'


def html_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str = "",
    notes: Sequence[str] = (),
    left_aligned: Iterable[str] = (),
) -> str:
    """Return a table with its title above and its notes below.

    Args:
        headings: One heading per column.
        rows: Cells of each row, one per heading.
        title: Caption of the table.
        notes: Paragraphs below the table.
        left_aligned: Headings of columns of words; other columns hold numbers.
    """
    words = frozenset(left_aligned)
    aligned = [
        'style="text-align: left"' if name in words else 'style="text-align: right"' for name in headings
    ]

    def line(tag: str, cells: Sequence[str]) -> str:
        columns = zip(cells, aligned, strict=True)
        return "<tr>" + "".join(f"<{tag} {style}>{escape(cell)}</{tag}>" for cell, style in columns) + "</tr>"

    caption = f"<caption>{escape(title)}</caption>" if title else ""
    body = "\n".join(line("td", row) for row in rows)
    head = line("th", headings)
    table = f"<table>{caption}<thead>{head}</thead>\n<tbody>{body}</tbody></table>" if headings else caption
    return "\n".join([table, *(f"<p>{escape(note)}</p>" for note in notes)])


def comparison_html(tables: Sequence[Table], view: View) -> str:
    """Return the tables of a comparison."""
    return "\n".join(_comparison_table(table) for table in build_comparison_tables(tables, view))


def _comparison_table(table: ComparisonTable) -> str:
    rows = [[f"{cell.text} {cell.letters}".rstrip() for cell in row] for row in table.rows]
    return html_table(
        table.headings,
        rows,
        title=table.title,
        notes=[*table.notes, *table.warnings],
        left_aligned=table.left_aligned,
    )
