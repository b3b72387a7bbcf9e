"""Which rows of two states belong together: by their configs, and by name where a config has changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from initbench.analysis.config_keys import keys_that_differ
from initbench.analysis.operands import Operand
from initbench.analysis.regression.reference import Reference, ReferenceRow, row_name
from initbench.analysis.tables import Row, Table

MAX_CHANGED_KEYS = 6
"""Keys of a config that are listed as changed."""


class Matching:
    """The rows of today with their earlier state.

    A row whose config has changed belongs to the earlier row of its name: a change of the config is what may
    have broken it. That takes one such row on each side, on the same data, precision and budget; where there
    are several, nobody can say which was which.
    """

    def __init__(self, tables: Sequence[Table], reference: Reference) -> None:
        self._sides: dict[tuple[int, int], Operand] = {}
        self._changed: dict[tuple[int, int], list[str]] = {}
        self.only_now: dict[str, str] = {}
        """Rows without an earlier state, in words, and why they have none."""
        unmatched_now = []
        for table in tables:
            for row in table.rows:
                operand = reference.match_row(table, row)
                if operand is None:
                    unmatched_now.append((table, row))
                else:
                    self._sides[id(table), id(row)] = operand
        unmatched = reference.unmatched_rows(tables)
        self._names_before = set(reference.row_labels())
        rivals = Counter((id(table), row_name(row)) for table, row in unmatched_now)
        matched = [
            pair
            for table, row in unmatched_now
            if (
                pair := self._match_by_name(
                    table, row, unmatched, is_alone=rivals[id(table), row_name(row)] == 1
                )
            )
        ]
        self.only_before = [
            candidate.description
            for candidate in unmatched
            if not any(candidate is matched_row for matched_row in matched)
        ]
        """Earlier rows that are gone, in words."""

    def earlier_operand(self, table: Table, row: Row) -> Operand | None:
        """The earlier state of a row; None where it has none."""
        return self._sides.get((id(table), id(row)))

    def config_changes(self, table: Table, row: Row) -> list[str]:
        """What has changed in the config of a row that was matched by name, as `key: before → now`."""
        return self._changed.get((id(table), id(row)), [])

    def _match_by_name(
        self, table: Table, row: Row, unmatched: Sequence[ReferenceRow], *, is_alone: bool
    ) -> ReferenceRow | None:
        """Match a row by its name, or note why that cannot be done."""
        namesakes = [candidate for candidate in unmatched if candidate.name == row_name(row)]
        comparable = [candidate for candidate in namesakes if candidate.is_comparable(table)]
        if len(comparable) == 1 and is_alone:
            self._sides[id(table), id(row)] = comparable[0].make_operand(table)
            self._changed[id(table), id(row)] = _config_changes(comparable[0], row)
            return comparable[0]
        self.only_now[f"{row.label} ({table.dataset})"] = self._no_match_reason(row, namesakes, comparable)
        return None

    def _no_match_reason(
        self, row: Row, namesakes: Sequence[ReferenceRow], comparable: Sequence[ReferenceRow]
    ) -> str:
        name = row_name(row)
        if comparable:
            return f"several rows called {name} have other configs than before, so that none can be matched"
        if namesakes:
            return f"{name} was trained on other data, in another precision or with another budget before"
        if name in self._names_before:
            return f"the earlier {name} has the config of another row of today"
        return f"there was no {name} before"


def _config_changes(earlier: ReferenceRow, row: Row) -> list[str]:
    if earlier.config_keys is None:
        return ["its variant"]
    earlier_keys, current_keys = earlier.config_keys, row.group.runs[0].config_keys
    keys = keys_that_differ([dict(earlier_keys), current_keys])
    changes = [
        f"{key}: {_value_text(earlier_keys.get(key))} → {_value_text(current_keys.get(key))}" for key in keys
    ]
    rest = len(changes) - MAX_CHANGED_KEYS
    return [*changes[:MAX_CHANGED_KEYS], f"{rest} keys more"] if rest > 0 else changes


def _value_text(value: object) -> str:
    return "null" if value is None else str(value)
