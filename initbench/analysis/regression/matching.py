"""Which rows of two states belong together: by their configs, and by name where a config has changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from initbench.analysis.config_keys import keys_that_differ
from initbench.analysis.operands import Side
from initbench.analysis.regression.reference import EarlierRow, Reference, name_of
from initbench.analysis.tables import Row, Table

MAX_CHANGED_KEYS = 6
"""Keys of a config that are listed as changed."""


class Matching:
    """The rows of today with their earlier state.

    A row whose config has changed belongs to the earlier row of its name: a change of the config is what may
    have broken it. That takes one such row on each side, on the same data, precision and budget; where there
    are several, nobody can say which was which.
    """

    def __init__(self, tables: Sequence[Table], earlier: Reference) -> None:
        self._sides: dict[tuple[int, int], Side] = {}
        self._changed: dict[tuple[int, int], list[str]] = {}
        self.only_now: dict[str, str] = {}
        """Rows without an earlier state, in words, and why they have none."""
        lonely = []
        for table in tables:
            for row in table.rows:
                side = earlier.match(table, row)
                if side is None:
                    lonely.append((table, row))
                else:
                    self._sides[id(table), id(row)] = side
        unmatched = earlier.unmatched(tables)
        self._names_before = set(earlier.labels())
        rivals = Counter((id(table), name_of(row)) for table, row in lonely)
        taken = [
            pair
            for table, row in lonely
            if (pair := self._pair(table, row, unmatched, is_alone=rivals[id(table), name_of(row)] == 1))
        ]
        self.only_before = [one.description for one in unmatched if not any(one is other for other in taken)]
        """Earlier rows that are gone, in words."""

    def side(self, table: Table, row: Row) -> Side | None:
        """The earlier state of a row; None where it has none."""
        return self._sides.get((id(table), id(row)))

    def config_changes(self, table: Table, row: Row) -> list[str]:
        """What has changed in the config of a row that was matched by name, as `key: before → now`."""
        return self._changed.get((id(table), id(row)), [])

    def _pair(
        self, table: Table, row: Row, unmatched: Sequence[EarlierRow], *, is_alone: bool
    ) -> EarlierRow | None:
        """Match a row by its name, or note why that cannot be done."""
        namesakes = [one for one in unmatched if one.name == name_of(row)]
        comparable = [one for one in namesakes if one.is_comparable(table)]
        if len(comparable) == 1 and is_alone:
            self._sides[id(table), id(row)] = comparable[0].side(table)
            self._changed[id(table), id(row)] = _config_changes(comparable[0], row)
            return comparable[0]
        self.only_now[f"{row.label} ({table.dataset})"] = self._reason(row, namesakes, comparable)
        return None

    def _reason(self, row: Row, namesakes: Sequence[EarlierRow], comparable: Sequence[EarlierRow]) -> str:
        name = name_of(row)
        if comparable:
            return f"several rows called {name} have other configs than before, so that none can be matched"
        if namesakes:
            return f"{name} was trained on other data, in another precision or with another budget before"
        if name in self._names_before:
            return f"the earlier {name} has the config of another row of today"
        return f"there was no {name} before"


def _config_changes(earlier: EarlierRow, row: Row) -> list[str]:
    if earlier.config_keys is None:
        return ["its variant"]
    before, now = earlier.config_keys, row.group.runs[0].config_keys
    keys = keys_that_differ([dict(before), now])
    changes = [f"{key}: {_text(before.get(key))} → {_text(now.get(key))}" for key in keys]
    rest = len(changes) - MAX_CHANGED_KEYS
    return [*changes[:MAX_CHANGED_KEYS], f"{rest} keys more"] if rest > 0 else changes


def _text(value: object) -> str:
    return "null" if value is None else str(value)
