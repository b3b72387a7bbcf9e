"""The reference of a regression check: an earlier runs directory, or the output of `compare --json`.

A current and an earlier row match if they have the same experiment, config, data, precision and budget. The
code, torch and the device may differ: the regression check looks for their effect. `matching` matches rows
whose config has changed by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from initbench.analysis.baseline import find_row
from initbench.analysis.operands import Operand, keys_varying_in_rows, runs_operand
from initbench.analysis.tables import Row, Table


@dataclass(frozen=True)
class ReferenceRow:
    """An earlier row without a current row of the same config; one of the same name may exist."""

    name: str
    """Name of the experiment if rows are experiments, otherwise the label of the row."""
    description: str
    """Name of the row with its data set, for messages."""
    is_comparable: Callable[[Table], bool]
    """Function that returns whether the row has the same data, precision and budget as a table."""
    make_operand: Callable[[Table], Operand]
    """Function that returns the operand to compare with the rows of a table."""
    config_keys: Mapping[str, Any] | None
    """Dotted keys of the config with their values; None if the reference is a document."""


class Reference(Protocol):
    """The earlier state that current rows are compared with."""

    def match_row(self, table: Table, row: Row) -> Operand | None:
        """Return the earlier row with the same config, or None."""

    def find_row(self, table: Table, name: str) -> Operand | None:
        """Return the earlier row of that name with the data, precision and budget of `table`, or None."""

    def row_labels(self) -> list[str]:
        """Return the names of all earlier rows."""

    def unmatched_rows(self, tables: Sequence[Table]) -> list[ReferenceRow]:
        """Return the earlier rows that match no row of `tables`."""


@dataclass(frozen=True)
class ReferenceRuns:
    """A reference made of stored runs; of several code versions of a row, the latest counts."""

    tables: Sequence[Table]

    def match_row(self, table: Table, row: Row) -> Operand | None:
        """Return the latest row with the same data, precision, budget, key and config, or None."""
        return self._latest_operand(table, self._rows_by_signature.get(row_signature(table, row), []))

    def find_row(self, table: Table, name: str) -> Operand | None:
        """Return the latest row of that name with the data, precision and budget of `table`, or None."""
        for earlier in self.tables:
            if earlier.conditions == table.conditions:
                by_name = [row for row in earlier.rows if row.key.get("experiment") == name]
                rows = by_name or [row for row in [find_row(earlier, name)] if row]
                return self._latest_operand(table, [(earlier, row) for row in rows])
        return None

    def row_labels(self) -> list[str]:
        """Return the names of all rows."""
        return list(dict.fromkeys(row_name(row) for table in self.tables for row in table.rows))

    def unmatched_rows(self, tables: Sequence[Table]) -> list[ReferenceRow]:
        """Return the rows that match no row of `tables`; versions of the code count as one row."""
        signatures = {row_signature(table, row) for table in tables for row in table.rows}
        return [
            self._reference_row(versions)
            for sign, versions in self._rows_by_signature.items()
            if sign not in signatures
        ]

    def _reference_row(self, versions: Sequence[tuple[Table, Row]]) -> ReferenceRow:
        earlier, row = versions[0]

        def side(table: Table) -> Operand:
            latest = self._latest_operand(table, versions)
            assert latest is not None
            return latest

        return ReferenceRow(
            row_name(row),
            f"{row_name(row)} ({earlier.dataset})",
            lambda table: table.conditions == earlier.conditions and table.by == earlier.by,
            side,
            row.group.runs[0].config_keys,
        )

    @cached_property
    def _rows_by_signature(self) -> dict[str, list[tuple[Table, Row]]]:
        rows: dict[str, list[tuple[Table, Row]]] = {}
        for table in self.tables:
            for row in table.rows:
                rows.setdefault(row_signature(table, row), []).append((table, row))
        return rows

    def _latest_operand(self, table: Table, versions: Sequence[tuple[Table, Row]]) -> Operand | None:
        if not versions:
            return None
        earlier, row = max(versions, key=lambda version: max(run.created for run in version[1].group.runs))
        cache_key = id(table), id(row)
        if cache_key not in self._operand_cache:
            self._operand_cache[cache_key] = runs_operand(
                row, table.target, self._varying_keys(table, earlier)
            )
        return self._operand_cache[cache_key]

    def _varying_keys(self, table: Table, earlier: Table) -> tuple[str, ...]:
        cache_key = id(table), id(earlier)
        if cache_key not in self._varying_keys_cache:
            self._varying_keys_cache[cache_key] = keys_varying_in_rows(table, earlier)
        return self._varying_keys_cache[cache_key]

    @cached_property
    def _operand_cache(self) -> dict[tuple[int, int], Operand]:
        return {}

    @cached_property
    def _varying_keys_cache(self) -> dict[tuple[int, int], tuple[str, ...]]:
        return {}


def row_signature(table: Table, row: Row) -> str:
    """Return the text that is equal for a row in two states: data, precision, budget, key and config."""
    first = row.group.runs[0]
    keys = row.key if table.by else {"experiment": first.experiment, **first.config_keys}
    return repr((table.conditions, table.by, sorted(keys.items())))


def row_name(row: Row) -> str:
    """Return the experiment if rows are experiments (whatever the code version), otherwise the label."""
    return str(row.key["experiment"]) if "experiment" in row.key else row.label
