"""Columns of numbers and texts, read from CSV, TSV and Parquet files."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from initbench.errors import DataError
from initbench.optional_packages import import_optional
from initbench.registry import unknown_name_message

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
_PARQUET_SUFFIXES = (".parquet", ".pq")
SUFFIXES = (*_DELIMITERS, *_PARQUET_SUFFIXES)
_CHUNK_ROWS = 10_000
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
"""Texts that stand for a missing value, in lower case."""
_MAX_NUMBER = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class TypedColumn:
    """The values of one column."""

    name: str
    values: NDArray[Any]
    """(N,) float64, or (N,) of texts (object)."""
    is_integer: bool = False
    """Whether the values are numbers without fractions, and stored as integers."""

    @property
    def is_text(self) -> bool:
        """Whether the values are texts."""
        return self.values.dtype == object


@dataclass(frozen=True)
class TableReader:
    """A file with named columns."""

    path: Path

    @property
    def is_parquet(self) -> bool:
        """Whether the file is in the Parquet format."""
        return self.path.suffix.lower() in _PARQUET_SUFFIXES

    def column_names(self) -> list[str]:
        """Return the names of the columns.

        Raises:
            DataError: If the file is not a table, or two columns have the same name.
        """
        names = self._open_parquet().schema_arrow.names if self.is_parquet else next(self._rows())[1]
        twice = next((name for name in names if names.count(name) > 1 or not name.strip()), None)
        if twice is not None:
            problem = f"two columns are called {twice!r}" if twice.strip() else "a column has no name"
            raise DataError(f"{self._location(1)}: {problem}; the first line must name the columns")
        return list(names)

    def read(self, names: Sequence[str], texts: Sequence[str] = ()) -> list[TypedColumn]:
        """Read columns.

        A column of numbers is one whose first value is a number.

        Args:
            names: Names of the columns to read.
            texts: Names of columns whose values are texts, even if they look like numbers.

        Raises:
            DataError: If the file cannot be read, a value is missing, or a column of numbers contains a text
                or a number that is not finite in float32; it names line and column.
        """
        all_names = self.column_names()
        for name in (*names, *texts):
            if name not in all_names:
                raise DataError(f"{self.path}: {unknown_name_message('column', name, all_names)}")
        columns = (
            self._read_parquet(names, texts) if self.is_parquet else self._read_text(all_names, names, texts)
        )
        if not len(columns[0].values):
            raise DataError(f"{self.path} has no rows")
        return columns

    def _read_text(
        self, all_names: Sequence[str], names: Sequence[str], texts: Sequence[str]
    ) -> list[TypedColumn]:
        positions = [all_names.index(name) for name in names]
        are_texts = [name in texts for name in names]
        parts: list[list[NDArray[Any]]] = [[] for _ in names]
        are_integers = [True for _ in names]
        rows = self._rows()
        next(rows)
        while chunk := list(itertools.islice(rows, _CHUNK_ROWS)):
            for line, row in chunk:
                if len(row) != len(all_names):
                    raise DataError(f"{self.path}:{line}: {len(row)} values in {len(all_names)} columns")
            for index, position in enumerate(positions):
                cells = [row[position] for _, row in chunk]
                if not parts[index]:
                    are_texts[index] = are_texts[index] or not (_is_number(cells[0]) or _is_missing(cells[0]))
                fault = self._fill(parts[index], cells, is_text=are_texts[index])
                if fault is not None:
                    row_number, problem = fault
                    location = self._location(chunk[row_number][0], position)
                    raise DataError(f"{location}: {names[index]}: {problem}")
                are_integers[index] &= all(cell.strip().lstrip("+-").isdecimal() for cell in cells)
        return [
            TypedColumn(name, np.concatenate(part) if part else np.empty(0), is_integer and not is_text)
            for name, part, is_text, is_integer in zip(names, parts, are_texts, are_integers, strict=True)
        ]

    @staticmethod
    def _fill(parts: list[NDArray[Any]], cells: Sequence[str], *, is_text: bool) -> tuple[int, str] | None:
        """Append the values of cells; return the index of the first invalid one and the problem, or None."""
        if is_text:
            parts.append(np.array([cell.strip() for cell in cells], dtype=object))
            faults = (index for index, cell in enumerate(cells) if _is_missing(cell))
        else:
            try:
                values = np.array(cells, dtype=np.float64)
            except ValueError:
                faults = (index for index, cell in enumerate(cells) if not _is_number(cell))
            else:
                parts.append(values)
                faults = (int(index) for index in np.nonzero(~(np.abs(values) <= _MAX_NUMBER))[0])
        first = next(faults, None)
        return None if first is None else (first, _value_problem(cells[first]))

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the first line and the cells of each row, the header first; skip empty lines."""
        delimiter = _DELIMITERS[self.path.suffix.lower()]
        line, is_empty = 1, True
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=delimiter, strict=True)
                for row in reader:
                    if row:
                        is_empty = False
                        yield line, row
                    line = reader.line_num + 1
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: not UTF-8 in or after line {line:,}: {error.reason}") from None
        except csv.Error as error:
            raise DataError(f"{self.path}:{line}: {error}") from None
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}") from None
        if is_empty:
            raise DataError(f"{self.path} is empty; the first line must name the columns")

    def _location(self, line: int, position: int = 0) -> str:
        """Return `file:line:column` of a cell of the row that begins in a line; cells may be quoted."""
        if self.is_parquet:
            return str(self.path)
        delimiter, is_quoted, column = _DELIMITERS[self.path.suffix.lower()], False, 1
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            characters = itertools.chain.from_iterable(itertools.islice(file, line - 1, None))
            while position:
                character = next(characters)
                is_quoted ^= character == '"'
                position -= character == delimiter and not is_quoted
                line, column = (line + 1, 1) if character == "\n" else (line, column + 1)
        return f"{self.path}:{line}:{column}"

    def _read_parquet(self, names: Sequence[str], texts: Sequence[str]) -> list[TypedColumn]:
        file = self._open_parquet()
        try:
            table = file.read(columns=list(names))
        except Exception as error:  # pyarrow raises a dozen kinds for a damaged file
            raise DataError(f"{self.path} cannot be read as Parquet: {_first_line(error)}") from error
        return [self._parquet_column(name, table.column(name), name in texts) for name in names]

    def _parquet_column(self, name: str, column: Any, is_text: bool) -> TypedColumn:
        types = import_optional("pyarrow.types", "Parquet files", "table")
        kind = column.type
        if types.is_dictionary(kind):
            kind = kind.value_type
        is_string = types.is_string(kind) or types.is_large_string(kind)
        is_integer = types.is_integer(kind)
        is_number = is_integer or types.is_floating(kind)
        if not (is_string or is_number or types.is_boolean(kind)):
            raise DataError(f"{self.path}: {name} has values of type {kind}; expected numbers or texts")
        values = column.to_pylist()
        missing = next((row for row, value in enumerate(values) if value is None), None)
        if missing is not None:
            raise DataError(f"{self.path}: row {missing + 1:,}: {name}: the value is missing")
        if is_text or not is_number:
            cells = np.empty(len(values), dtype=object)
            cells[:] = [str(value) for value in values]
            return TypedColumn(name, cells)
        numbers = np.array(values, dtype=np.float64)
        invalid = np.nonzero(~(np.abs(numbers) <= _MAX_NUMBER))[0]
        if len(invalid):
            row = int(invalid[0])
            raise DataError(f"{self.path}: row {row + 1:,}: {name}: {_value_problem(str(values[row]))}")
        return TypedColumn(name, numbers, is_integer)

    def _open_parquet(self) -> Any:
        parquet = import_optional("pyarrow.parquet", "Parquet files", "table")
        try:
            return parquet.ParquetFile(self.path)
        except Exception as error:
            raise DataError(f"{self.path} cannot be read as Parquet: {_first_line(error)}") from error


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in _MISSING


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _value_problem(cell: str) -> str:
    if _is_missing(cell):
        return f"the value is missing (found {cell!r}); fill it in or remove the row"
    if _is_number(cell):
        return f"{cell.strip()} is not finite in float32"
    return (
        f"expected a number as in the first row, found {cell[:40]!r};"
        " if the column has texts, list it under data.categories"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
