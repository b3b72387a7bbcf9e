"""Makes the tree of a gate, and refuses what is written well but means nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

from lark import Token, Transformer, v_args

from initbench.compare.facts import (
    LAYER_STATISTICS,
    MOMENTS,
    PROBED,
    RUNNING_STATISTICS,
    SHIFT_STATISTICS,
    TRAIN,
)
from initbench.compare.gates import tree
from initbench.compare.gates.tree import DIVERGENCE_RATE, Node, RowName
from initbench.compare.metrics import METRICS

ALIASES = {
    "std": "act_std",
    "mean": "act_mean",
    "zeros": "zero_fraction",
    "dead": "dead_fraction",
    "saturated": "saturated_fraction",
    "rank": "effective_rank",
    "gradient": "delta_q",
}
"""Short names of statistics of a layer."""
_STATISTICS = (*LAYER_STATISTICS, *RUNNING_STATISTICS, *SHIFT_STATISTICS)
_SURELY_PERCENT = 10.0
DEEPEST = 60
"""How deep a gate may be nested: far deeper than a person writes."""


@dataclass(frozen=True)
class Measure:
    """What is read off a run, before it is known of which row."""

    token: Token
    """That may name the row."""
    make: Callable[[RowName, int], tree.Quantity]
    """The quantity of a row, at a column."""


class FaultError(Exception):
    """What is wrong with a gate, and at which column, from 0."""

    def __init__(self, column: int, problem: str) -> None:
        super().__init__(problem)
        self.column = column


@v_args(inline=True)
class _Builder(Transformer[Token, Node]):
    """Makes nodes as the text is reduced, innermost first, so that no depth of nesting overflows."""

    def any_of(self, *conditions: Node) -> Node:
        return conditions[0] if len(conditions) == 1 else _checked(tree.Any(conditions))

    def all_of(self, *conditions: Node) -> Node:
        return conditions[0] if len(conditions) == 1 else _checked(tree.All(conditions))

    def opposite(self, condition: Node) -> Node:
        return _checked(tree.Not(condition))

    def chain(self, first: Node, *rest: Node | Token) -> Node:
        sides = [first, *(one for one in rest if isinstance(one, Node))]
        signs = [one for one in rest if isinstance(one, Token)]
        links = [
            _compared(tree.Comparison(left, _RELATIONS[sign], right), sign)
            for sign, (left, right) in zip(signs, pairwise(sides), strict=True)
        ]
        return links[0] if len(links) == 1 else _checked(tree.All(tuple(links)))

    def near(self, left: Node, sign: Token, right: Node, margin: tree.Number) -> Node:
        return _compared(tree.Near(left, right, margin.value), sign)

    def binary(self, left: Node, sign: Token, right: Node) -> Node:
        return _checked(tree.Binary(_OPERATORS[sign], left, right))

    def minus(self, _sign: Token, inner: Node) -> Node:
        return _checked(tree.Negation(inner))

    def function(self, kind: Token, inner: Node) -> Node:
        return _checked(tree.Function(inner, cast(tree.FunctionName, str(kind))))

    def aggregate(self, kind: Token, inner: Node) -> Node:
        column = int(kind.start_pos or 0)
        found = list(inner.walk())
        if any(isinstance(node, tree.Aggregate) for node in found):
            raise FaultError(column, f"{kind}() of a mean, min or max is that number itself")
        if len({quantity.row for quantity in inner.quantities}) != 1:
            raise FaultError(column, f"{kind}() takes a number of the runs of one row")
        return _checked(tree.Aggregate(inner, cast(tree.Aggregation, str(kind)), column=column))

    def constant(self, number: Token, percent: Token | None = None) -> Node:
        value = float(number) / (100.0 if percent else 1.0)
        if not math.isfinite(value):
            raise FaultError(int(number.start_pos or 0), f"{number} is too large")
        return tree.Number(value)

    def quantity(self, *parts: Token | Measure) -> Node:
        """A measure of a row, whose name stands before it where a gate names rows."""
        measure, tokens = parts[-1], [part for part in parts if isinstance(part, Token)]
        assert isinstance(measure, Measure)
        token = measure.token
        column = int((tokens or [token])[0].start_pos or 0)
        earlier = any(one.type == "EARLIER" for one in tokens)
        quoted = [_unquoted(one) for one in tokens if one.type == "STRING"]
        name = quoted[0] if quoted else None
        own = str(token).rpartition(".")[0]
        if own and name is not None:
            raise FaultError(int(token.start_pos or 0), f"the row is {name!r} already; expected a metric")
        if own == "before" or own.startswith("before."):
            earlier, own = True, own[len("before.") :]
        return measure.make(tree.RowName(name if name is not None else own or None, earlier), column)

    def metric(self, token: Token) -> Measure:
        name = str(token).rpartition(".")[2]
        if name not in METRICS and name != DIVERGENCE_RATE:
            raise FaultError(int(token.end_pos or 0) - len(name), _unknown_metric(name))
        return Measure(token, lambda row, column: tree.Metric(row, name, column=column))

    def layer(self, token: Token, index: Token, statistic: Token, moment: Token) -> Measure:
        """A statistic of one layer, from 1 or from the last hidden one, −1, at a moment."""
        number = int(index.replace("−", "-")) if len(index) < 7 else 0
        if not number:
            raise FaultError(
                int(index.start_pos or 0),
                f"there is no layer {index}: 1 is the first hidden one, -1 the last",
            )
        named = _statistic_at(statistic, moment)
        return Measure(token, lambda row, column: tree.LayerStatistic(row, number, *named, column=column))

    def over_layers(self, token: Token, statistic: Token, moment: Token) -> Measure:
        kind = cast(tree.OfLayers, token.rpartition(".")[2])
        named = _statistic_at(statistic, moment)
        return Measure(token, lambda row, column: tree.OverLayers(row, kind, *named, column=column))

    def steps_to(self, token: Token, accuracy: tree.Number) -> Measure:
        if not 0.0 < accuracy.value <= 1.0:
            raise FaultError(
                int(token.end_pos or 0) + 1, "steps_to() takes an accuracy from above 0 to 1, such as 90 %"
            )
        return Measure(token, lambda row, column: tree.StepsTo(row, accuracy.value, column=column))


def builder() -> Transformer[Token, Node]:
    """What lark calls at each step; it raises FaultError."""
    return _Builder()


_RELATIONS: dict[str, tree.Relation] = {
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
    "==": "==",
    "!=": "!=",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
}
_OPERATORS: dict[str, tree.Operator] = {
    "+": "+",
    "-": "-",
    "*": "*",
    "/": "/",
    "−": "-",
    "×": "*",
    "÷": "/",
}


def _unquoted(token: Token) -> str:
    return re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL)


def _checked(node: Node) -> Node:
    if node.depth > DEEPEST:
        raise FaultError(0, f"nested more than {DEEPEST} deep")
    return node


def _compared(node: tree.Comparison | tree.Near, sign: Token) -> Node:
    """A comparison of two sides that can be compared."""
    found = node.quantities
    if not found:
        raise FaultError(int(sign.start_pos or 0), "only constants are compared here; name a metric")
    for side in node.children:
        for rate in side.bare:
            if rate.is_rate and rate is not side:
                problem = "its interval is exact, and that of an expression would not be"
                raise FaultError(rate.column, f"{DIVERGENCE_RATE} stands alone on its side: {problem}")
    _check_rates(node)
    _check_shares(node, sign)
    return _checked(node)


def _check_shares(node: tree.Comparison | tree.Near, sign: Token) -> None:
    """Accuracies are shares: 95 is none, and a gate on it would be decided whatever the runs are."""
    left, right = node.children[:2]
    for one, other in ((left, right), (right, left)):
        if not isinstance(one, tree.Metric) or not isinstance(other, tree.Number):
            continue
        is_share = one.is_rate or METRICS[one.metric].form == "percent"
        if is_share and _SURELY_PERCENT <= other.value <= 100.0:
            problem = f"{one.metric} is a share from 0 to 1: write {other.value:g} %"
            raise FaultError(int(sign.start_pos or 0), problem)


def _check_rates(node: tree.Comparison | tree.Near) -> None:
    rates = [side for side in node.children if isinstance(side, tree.Quantity) and side.is_rate]
    if not rates:
        return
    (rate, *more) = rates
    others = [side for side in node.children if side not in rates]
    if any(side.bare for side in others):
        raise FaultError(rate.column, f"{DIVERGENCE_RATE} is compared with a constant or with another one")
    if more and isinstance(node, tree.Near):
        raise FaultError(
            rate.column, f"whether two rates are alike needs an interval; compare {DIVERGENCE_RATE} with <"
        )


def _statistic_at(statistic: Token, moment: Token) -> tuple[str, str]:
    name = ALIASES.get(str(statistic), str(statistic))
    if name not in _STATISTICS:
        problem = _unknown("statistic of a layer", name, [*_STATISTICS, *ALIASES])
        raise FaultError(int(statistic.start_pos or 0), problem)
    if moment not in MOMENTS:
        raise FaultError(int(moment.start_pos or 0), _unknown("moment", str(moment), MOMENTS))
    if (name in SHIFT_STATISTICS) != (moment == TRAIN):
        moments = TRAIN if name in SHIFT_STATISTICS else " or ".join(PROBED)
        raise FaultError(int(moment.start_pos or 0), f"{name} is known at {moments}, not at {moment}")
    return name, str(moment)


def _unknown_metric(name: str) -> str:
    if name in _STATISTICS or name in ALIASES:
        at = f"{name}@{TRAIN if name in SHIFT_STATISTICS else 'init'}"
        return f"{name} belongs to a layer: layer[-1].{at}, slope({at}) or max_layer({at})"
    from initbench.registry import nearest

    guess = nearest(name, [*METRICS, DIVERGENCE_RATE])
    hint = (
        f"did you mean {guess!r}?"
        if guess
        else "docs/ci.md lists them, and a row goes before one: row.metric"
    )
    return f"unknown metric {name!r}; {hint}"


def _unknown(kind: str, name: str, choices: Iterable[str]) -> str:
    from initbench.registry import unknown_name  # brings pydantic, which only a mistake is in need of

    return unknown_name(kind, name, choices)
