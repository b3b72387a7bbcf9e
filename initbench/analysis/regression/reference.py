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
from initbench.analysis.operands import Side, side_of, varying
from initbench.analysis.tables import Row, Table


@dataclass(frozen=True)
class EarlierRow:
    """A row of the earlier state that no row of today has in common with it but, perhaps, the name."""

    name: str
    """Of the experiment, where rows are experiments."""
    description: str
    """The row and its data set in words."""
    is_comparable: Callable[[Table], bool]
    """Whether it is on the terms of a table."""
    side: Callable[[Table], Side]
    """The row, on the terms of a table."""
    config_keys: Mapping[str, Any] | None
    """None where only a summary was kept."""


class Reference(Protocol):
    """What is known of the earlier state."""

    def match(self, table: Table, row: Row) -> Side | None:
        """The earlier state of a row with the same config; None where it has none."""

    def named(self, table: Table, name: str) -> Side | None:
        """An earlier row by its name, on the terms of `table`; None where there is none."""

    def labels(self) -> list[str]:
        """The names of all its rows."""

    def unmatched(self, tables: Sequence[Table]) -> list[EarlierRow]:
        """Its rows that no row of `tables` matches."""


@dataclass(frozen=True)
class ReferenceRuns:
    """The rows of a store. Of several versions of the code in it the one that ran last counts."""

    tables: Sequence[Table]

    def match(self, table: Table, row: Row) -> Side | None:
        """The row of the same terms, key and config that ran last."""
        return self._sides(table, self._matching.get(signature(table, row), []))

    def named(self, table: Table, name: str) -> Side | None:
        """The row of that name on the same terms."""
        for earlier in self.tables:
            if earlier.terms == table.terms:
                by_name = [row for row in earlier.rows if row.key.get("experiment") == name]
                found = by_name or [row for row in [find_row(earlier, name)] if row]
                return self._sides(table, [(earlier, row) for row in found])
        return None

    def labels(self) -> list[str]:
        """The names of all its rows."""
        return list(dict.fromkeys(name_of(row) for table in self.tables for row in table.rows))

    def unmatched(self, tables: Sequence[Table]) -> list[EarlierRow]:
        """Its rows that no row of `tables` matches; versions of the code are one row."""
        known = {signature(table, row) for table in tables for row in table.rows}
        return [self._row(versions) for sign, versions in self._matching.items() if sign not in known]

    def _row(self, versions: Sequence[tuple[Table, Row]]) -> EarlierRow:
        earlier, row = versions[0]

        def side(table: Table) -> Side:
            latest = self._sides(table, versions)
            assert latest is not None
            return latest

        return EarlierRow(
            name_of(row),
            f"{name_of(row)} ({earlier.dataset})",
            lambda table: table.terms == earlier.terms and table.by == earlier.by,
            side,
            row.group.runs[0].config_keys,
        )

    @cached_property
    def _matching(self) -> dict[str, list[tuple[Table, Row]]]:
        found: dict[str, list[tuple[Table, Row]]] = {}
        for table in self.tables:
            for row in table.rows:
                found.setdefault(signature(table, row), []).append((table, row))
        return found

    def _sides(self, table: Table, found: Sequence[tuple[Table, Row]]) -> Side | None:
        if not found:
            return None
        earlier, row = max(found, key=lambda one: max(run.created for run in one[1].group.runs))
        place = id(table), id(row)
        if place not in self._ready:
            self._ready[place] = side_of(row, table.target, self._varying(table, earlier))
        return self._ready[place]

    def _varying(self, table: Table, earlier: Table) -> tuple[str, ...]:
        place = id(table), id(earlier)
        if place not in self._keys:
            self._keys[place] = varying(table, earlier)
        return self._keys[place]

    @cached_property
    def _ready(self) -> dict[tuple[int, int], Side]:
        return {}

    @cached_property
    def _keys(self) -> dict[tuple[int, int], tuple[str, ...]]:
        return {}


def signature(table: Table, row: Row) -> str:
    """What two rows share that are the same in two states."""
    first = row.group.runs[0]
    same = row.key if table.by else {"experiment": first.experiment, **first.config_keys}
    return repr((table.terms, table.by, sorted(same.items())))


def name_of(row: Row) -> str:
    """The experiment, where rows are experiments: versions of its code are one row here."""
    return str(row.key["experiment"]) if "experiment" in row.key else row.label
