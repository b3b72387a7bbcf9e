"""An earlier state that rows are held against: a store of runs, or a document that `compare --json` printed.

Rows belong together if they are of the same experiment with the same config, on the same data, in the same
precision and budget; the code, torch and the device may have changed, for that is the question. Rows whose
config has changed are paired by name in `matching`.
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
    """A row of the earlier state that no row of today has in common with it but, perhaps, the name."""

    name: str
    """Of the experiment, where rows are experiments."""
    description: str
    """The row and its data set in words."""
    is_comparable: Callable[[Table], bool]
    """Whether it is on the terms of a table."""
    make_operand: Callable[[Table], Operand]
    """The row, on the terms of a table."""
    config_keys: Mapping[str, Any] | None
    """None where only a summary was kept."""


class Reference(Protocol):
    """What is known of the earlier state."""

    def match_row(self, table: Table, row: Row) -> Operand | None:
        """The earlier state of a row with the same config; None where it has none."""

    def find_row(self, table: Table, name: str) -> Operand | None:
        """An earlier row by its name, on the terms of `table`; None where there is none."""

    def row_labels(self) -> list[str]:
        """The names of all its rows."""

    def unmatched_rows(self, tables: Sequence[Table]) -> list[ReferenceRow]:
        """Its rows that no row of `tables` matches."""


@dataclass(frozen=True)
class ReferenceRuns:
    """The rows of a store. Of several versions of the code in it the one that ran last counts."""

    tables: Sequence[Table]

    def match_row(self, table: Table, row: Row) -> Operand | None:
        """The row of the same terms, key and config that ran last."""
        return self._latest_operand(table, self._rows_by_signature.get(row_signature(table, row), []))

    def find_row(self, table: Table, name: str) -> Operand | None:
        """The row of that name on the same terms."""
        for earlier in self.tables:
            if earlier.conditions == table.conditions:
                by_name = [row for row in earlier.rows if row.key.get("experiment") == name]
                rows = by_name or [row for row in [find_row(earlier, name)] if row]
                return self._latest_operand(table, [(earlier, row) for row in rows])
        return None

    def row_labels(self) -> list[str]:
        """The names of all its rows."""
        return list(dict.fromkeys(row_name(row) for table in self.tables for row in table.rows))

    def unmatched_rows(self, tables: Sequence[Table]) -> list[ReferenceRow]:
        """Its rows that no row of `tables` matches; versions of the code are one row."""
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
    """What two rows share that are the same in two states."""
    first = row.group.runs[0]
    keys = row.key if table.by else {"experiment": first.experiment, **first.config_keys}
    return repr((table.conditions, table.by, sorted(keys.items())))


def row_name(row: Row) -> str:
    """The experiment, where rows are experiments: versions of its code are one row here."""
    return str(row.key["experiment"]) if "experiment" in row.key else row.label
