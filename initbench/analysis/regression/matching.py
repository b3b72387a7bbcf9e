"""Matching of current and earlier rows: by config, or by name if the config has changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from initbench.analysis.config_keys import keys_that_differ
from initbench.analysis.operands import Operand
from initbench.analysis.regression.reference import Reference, ReferenceRow, row_name
from initbench.analysis.tables import Row, Table

MAX_CHANGED_KEYS = 6
"""Maximum number of changed config keys that are listed."""


class Matching:
    """The current rows with their earlier states.

    A row whose config has changed is matched to the earlier row of its name, since the change may be the
    cause of a regression. This requires exactly one such row on each side with the same data, precision and
    budget; with several, the match would be ambiguous.
    """

    def __init__(self, tables: Sequence[Table], reference: Reference) -> None:
        self._sides: dict[tuple[int, int], Operand] = {}
        self._changed: dict[tuple[int, int], list[str]] = {}
        self.only_now: dict[str, str] = {}
        """Current rows without an earlier state (label and data set), with the reason."""
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
        """Earlier rows without a current state (name and data set)."""

    def earlier_operand(self, table: Table, row: Row) -> Operand | None:
        """Return the earlier state of a row, or None."""
        return self._sides.get((id(table), id(row)))

    def config_changes(self, table: Table, row: Row) -> list[str]:
        """Return the changed config keys of a row that was matched by name, as `key: before → now`."""
        return self._changed.get((id(table), id(row)), [])

    def _match_by_name(
        self, table: Table, row: Row, unmatched: Sequence[ReferenceRow], *, is_alone: bool
    ) -> ReferenceRow | None:
        """Match a row by its name, or record in `only_now` why it has no match."""
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
            return f"several rows named {name} have a different config than before, so none can be matched"
        if namesakes:
            return f"the earlier {name} was trained with different data, precision or budget"
        if name in self._names_before:
            return f"the earlier {name} has the config of another current row"
        return f"the earlier state has no {name}"


def _config_changes(earlier: ReferenceRow, row: Row) -> list[str]:
    if earlier.config_keys is None:
        return ["its variant"]
    earlier_keys, current_keys = earlier.config_keys, row.group.runs[0].config_keys
    keys = keys_that_differ([dict(earlier_keys), current_keys])
    changes = [
        f"{key}: {_value_text(earlier_keys.get(key))} → {_value_text(current_keys.get(key))}" for key in keys
    ]
    rest = len(changes) - MAX_CHANGED_KEYS
    return [*changes[:MAX_CHANGED_KEYS], f"{rest} more keys"] if rest > 0 else changes


def _value_text(value: object) -> str:
    return "null" if value is None else str(value)
