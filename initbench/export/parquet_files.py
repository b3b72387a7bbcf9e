"""Tidy tables as Parquet files, which polars, pandas and duckdb read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from initbench.export.table_files import ExportCounts, write_table_files
from initbench.export.tables import Columns, RunTables, Schemas, TableColumn
from initbench.optional_packages import import_optional

_GROUP_ROWS = 1 << 17
"""Rows after which a row group is written; a group for each run would make files slow to read."""

_MAX_PARTS = 1000
"""Parts that are kept apart: a table of one row takes a hundred times the memory of a row in a block."""


class ParquetExporter:
    """Writes one Parquet file for each table, with the meaning of each column in its metadata."""

    def __init__(self) -> None:
        self._arrow = import_optional("pyarrow", "Parquet files", "table")
        self._parquet = import_optional("pyarrow.parquet", "Parquet files", "table")

    def write(self, runs: Iterable[RunTables], schemas: Schemas, output: Path) -> ExportCounts:
        """Write the rows of all runs."""
        return write_table_files(runs, schemas, output, ".parquet", self._open)

    @contextmanager
    def _open(self, path: Path, columns: Sequence[TableColumn]) -> Iterator[_ParquetFile]:
        schema = self._arrow.schema([self._field(column) for column in columns])
        with self._parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            file = _ParquetFile(self._arrow, schema, writer)
            yield file
            file.flush()

    def _field(self, column: TableColumn) -> Any:
        arrow = self._arrow
        types = {
            "text": arrow.string,
            "integer": arrow.int64,
            "number": arrow.float64,
            "boolean": arrow.bool_,
        }
        return arrow.field(column.name, types[column.kind](), metadata={"description": column.meaning})


class _ParquetFile:
    """A table that is written in groups of rows."""

    def __init__(self, arrow: Any, schema: Any, writer: Any) -> None:
        self._arrow, self._schema, self._writer = arrow, schema, writer
        self._parts: list[Any] = []
        self._blocks: list[Any] = []
        self._rows = 0

    def write(self, rows: Columns) -> None:
        """Append rows."""
        part = self._arrow.Table.from_pydict(rows, schema=self._schema)
        self._parts.append(part)
        self._rows += part.num_rows
        if len(self._parts) >= _MAX_PARTS:
            self._combine_parts()
        if self._rows >= _GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the collected rows as one row group."""
        if self._rows:
            self._combine_parts()
            self._writer.write_table(self._arrow.concat_tables(self._blocks), row_group_size=self._rows)
        self._blocks, self._rows = [], 0

    def _combine_parts(self) -> None:
        """Copy the parts into one block."""
        if self._parts:
            self._blocks.append(self._arrow.concat_tables(self._parts).combine_chunks())
        self._parts = []
