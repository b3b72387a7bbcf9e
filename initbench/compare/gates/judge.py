"""Gates applied to tables: which rows each is about, and what it came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from initbench.compare.against.earlier import Earlier
from initbench.compare.gates.decide import Part, State, decide
from initbench.compare.gates.known import Sides
from initbench.compare.gates.parse import parse, pointed
from initbench.compare.gates.tree import LayerStatistic, Node, Quantity, RowName
from initbench.compare.rows import Row, Table
from initbench.compare.sides import RunsSide, Side, side_of, varying
from initbench.compare.versus import row_named
from initbench.errors import UsageError

OPTION = "--fail-if"


@dataclass(frozen=True)
class Gate:
    """What must not be."""

    text: str
    condition: Node

    @property
    def quantities(self) -> list[Quantity]:
        """All that it reads."""
        return self.condition.quantities


@dataclass(frozen=True)
class Case:
    """A gate in one place: on a row, or on the rows that it names."""

    label: str
    """The row in words; empty where the gate names its rows."""
    dataset: str
    state: State
    parts: list[Part]


@dataclass(frozen=True)
class Judgement:
    """What a gate came to in all places."""

    gate: Gate
    cases: list[Case]

    @property
    def state(self) -> State:
        """Triggered if it is anywhere; clear if it is everywhere, and there is somewhere."""
        states = {case.state for case in self.cases}
        if State.TRIGGERED in states:
            return State.TRIGGERED
        return State.CLEAR if states == {State.CLEAR} else State.UNDECIDED

    @property
    def decisive(self) -> list[Case]:
        """The cases that made it so."""
        return [case for case in self.cases if case.state == self.state]

    @property
    def undecided(self) -> list[Case]:
        """The cases that could not be decided."""
        return [case for case in self.cases if case.state == State.UNDECIDED]

    def fails(self, *, strict: bool) -> bool:
        """Whether the command is to fail."""
        return self.state == State.TRIGGERED or (strict and self.state == State.UNDECIDED)


def read_gates(texts: Sequence[str]) -> list[Gate]:
    """Read gates; raises UsageError, with the column, for one that is none."""
    return [Gate(text, parse(text, OPTION)) for text in texts]


def judge(
    gates: Sequence[Gate], tables: Sequence[Table], confidence: float = 0.95, earlier: Earlier | None = None
) -> list[Judgement]:
    """Apply gates to the rows of all tables.

    A quantity without a row is that of each row in turn. Raises UsageError for a row or a layer that is
    nowhere, rows that are in no table together, no runs at all, and `before.` without an earlier state.
    """
    court = _Court(tables, confidence, earlier)
    return [court.judge(gate) for gate in gates]


class _Court:
    """Rows are made ready once for all gates."""

    def __init__(self, tables: Sequence[Table], confidence: float, earlier: Earlier | None) -> None:
        self._tables, self._confidence, self._earlier = tables, confidence, earlier
        self._ready: dict[tuple[int, int], RunsSide] = {}
        self._varying = {id(table): varying(table) for table in tables}

    def judge(self, gate: Gate) -> Judgement:
        """At every place where the gate applies."""
        if not self._tables:
            raise UsageError(f"{OPTION}: there are no runs to judge")
        self._check_names(gate)
        places = [place for table in self._tables for place in self._places(gate, table)]
        if not places:
            self._refuse_places(gate)
        self._check_layers(gate, [sides for *_, sides in places])
        cases = [
            Case(label, dataset, *decide(gate.condition, sides, self._confidence))
            for label, dataset, sides in places
        ]
        return Judgement(gate, cases)

    def _places(self, gate: Gate, table: Table) -> Iterator[tuple[str, str, Sides]]:
        """The rows of a table that the gate is about."""
        names = list(dict.fromkeys(quantity.row for quantity in gate.quantities))
        fixed = {name: self._named(table, name) for name in names if name.name is not None}
        known = {name: side for name, side in fixed.items() if side is not None}
        if len(known) < len(fixed):
            return
        free = [name for name in names if name.name is None]
        if not free:
            yield "", table.dataset, known
            return
        named = [row_named(table, name.name) for name in fixed if name.name and not name.earlier]
        for row in table.rows:
            own = {name: self._free(table, row, name) for name in free}
            sides = {name: side for name, side in own.items() if side is not None}
            if len(sides) == len(own) and not any(row is one for one in named):
                yield row.label, table.dataset, {**known, **sides}

    def _free(self, table: Table, row: Row, name: RowName) -> Side | None:
        if name.earlier:
            return self._earlier.match(table, row) if self._earlier else None
        return self._side(table, row)

    def _named(self, table: Table, name: RowName) -> Side | None:
        assert name.name is not None
        row = row_named(table, name.name)
        if not name.earlier:
            return self._side(table, row) if row else None
        assert self._earlier is not None
        matched = self._earlier.match(table, row) if row else None
        return matched or self._earlier.named(table, name.name)

    def _side(self, table: Table, row: Row) -> RunsSide:
        place = id(table), id(row)
        if place not in self._ready:
            self._ready[place] = side_of(row, table.target, self._varying[id(table)])
        return self._ready[place]

    def _check_names(self, gate: Gate) -> None:
        for quantity in gate.quantities:
            name = quantity.row
            if name.earlier and self._earlier is None:
                raise _fault(
                    gate, quantity, "before. needs an earlier state: --against RUNS_DIR|compare.json"
                )
            if name.name is None or any(self._named(table, name) for table in self._tables):
                continue
            labels = [row.label for table in self._tables for row in table.rows]
            if name.earlier:
                assert self._earlier is not None
                labels = self._earlier.labels()
            raise _fault(gate, quantity, _unknown_row(name, labels))

    def _refuse_places(self, gate: Gate) -> None:
        names = sorted({repr(q.row.name) for q in gate.quantities if q.row.name is not None})
        quantity = gate.quantities[0]
        if len(names) > 1:
            problem = (
                f"{' and '.join(names)} are in no table together: their data, precision or budgets differ"
            )
            raise _fault(gate, quantity, problem)
        if any(q.row.earlier for q in gate.quantities):
            raise _fault(gate, quantity, "no row is in both states")
        raise _fault(gate, quantity, "there is no other row to compare")

    def _check_layers(self, gate: Gate, places: Sequence[Sides]) -> None:
        for quantity in gate.quantities:
            if not isinstance(quantity, LayerStatistic):
                continue
            sides = [sides[quantity.row] for sides in places]
            runs = [run for side in sides if isinstance(side, RunsSide) for run in side.runs.values()]
            depths = [len(run.hidden(quantity.moment)) for run in runs]
            if any(depths) and max(depths) < abs(quantity.layer):
                problem = (
                    f"there is no layer {quantity.layer}: the deepest net has {max(depths)} hidden layers"
                )
                raise _fault(gate, quantity, problem)


def _unknown_row(name: RowName, labels: Sequence[str]) -> str:
    from initbench.registry import unknown_name

    assert name.name is not None
    said = unknown_name("row", name.name, dict.fromkeys(labels))
    dashed = "; put blanks around a minus" if "-" in name.name else ""
    return said + dashed


def _fault(gate: Gate, quantity: Quantity, problem: str) -> UsageError:
    return UsageError(f"{OPTION}: {pointed(gate.text, quantity.column, problem)}")
