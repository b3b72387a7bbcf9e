"""Tidy tables as CSV files (RFC 4180, UTF-8)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from initbench.export.table_files import ExportCounts, write_table_files
from initbench.export.tables import Columns, Kind, RunTables, Schemas, TableColumn
from initbench.render.compare.csv_long import plain_cell


class CsvExporter:
    """Writes one CSV file for each table; missing values are empty, and text is never a formula."""

    def write(self, runs: Iterable[RunTables], schemas: Schemas, output: Path) -> ExportCounts:
        """Write the rows of all runs."""
        return write_table_files(runs, schemas, output, ".csv", _open_csv)


def csv_text(tables: RunTables, table: str, schema: Sequence[TableColumn]) -> str:
    """Return the rows of one run in one table as the text of a CSV file."""
    file = io.StringIO()
    _CsvFile(file, schema).write(tables.columns(table, schema))
    return file.getvalue()


class _CsvFile:
    def __init__(self, file: TextIO, schema: Sequence[TableColumn]) -> None:
        self._writer = csv.writer(file)
        self._writer.writerow([plain_cell(column.name) for column in schema])
        self._kinds = {column.name: column.kind for column in schema}

    def write(self, rows: Columns) -> None:
        """Append rows."""
        columns = [_plain_cells(cells, self._kinds[name]) for name, cells in rows.items()]
        self._writer.writerows(zip(*columns, strict=True))


def _plain_cells(cells: list[Any], kind: Kind) -> Iterable[Any]:
    """Return cells for the writer, which itself writes all digits of numbers, inf, -inf, and None as empty.

    NaN is written in the only way that pandas, polars and duckdb all read as a number.
    """
    if kind == "number":
        return ("NaN" if cell is not None and math.isnan(cell) else cell for cell in cells)
    if kind == "integer":
        return cells
    plain = {cell: plain_cell(cell) for cell in set(cells)}  # few different ones
    return (plain[cell] for cell in cells)


@contextmanager
def _open_csv(path: Path, schema: Sequence[TableColumn]) -> Iterator[_CsvFile]:
    with path.open("x", encoding="utf-8", newline="") as file:
        yield _CsvFile(file, schema)
