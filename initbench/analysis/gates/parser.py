"""Parser of gates: the lark grammar and the error messages. docs/ci.md describes the language."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import cast

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken, v_args
from lark.exceptions import VisitError

from initbench.analysis.gates import expression
from initbench.analysis.gates.expression import DIVERGENCE_RATE, GateNode, RowName
from initbench.analysis.metrics import METRICS
from initbench.errors import UsageError
from initbench.store.packed_numbers import LAYER_STATISTICS, RUNNING_STATISTICS, SHIFT_STATISTICS
from initbench.store.summary_file import MOMENTS, PROBED, TRAIN

ROW = r"(?:[^\W\d](?:[\w.-]*\w)?\.)?"
GRAMMAR = rf"""
?start: disjunction
?disjunction: conjunction (_OR conjunction)*           -> any_of
?conjunction: condition (_AND condition)*              -> all_of
?condition: _NOT condition                             -> opposite
          | comparison
          | "(" disjunction ")"
comparison: sum (RELATION sum)+                         -> chain
          | sum NEAR sum _WITHIN constant              -> near
?sum: product
    | sum PLUS product                                  -> binary
    | sum MINUS product                                 -> binary
?product: unary
        | product TIMES unary                           -> binary
        | product DIVIDE unary                          -> binary
?unary: MINUS unary                                     -> minus
      | atom
?atom: constant
     | quantity
     | AGGREGATE "(" sum ")"                            -> aggregate
     | FUNCTION "(" sum ")"                            -> function
     | "(" sum ")"
constant: NUMBER PERCENT?
quantity: EARLIER? (STRING ".")? measure
?measure: REFERENCE                                     -> metric
        | LAYER "[" INTEGER "]" "." WORD "@" WORD       -> layer
        | OVER_LAYERS "(" WORD "@" WORD ")"             -> over_layers
        | STEPS_TO "(" constant ")"                     -> steps_to

RELATION: "<=" | ">=" | "==" | "!=" | "<" | ">" | "≤" | "≥" | "≠"
NEAR: "≈" | "~="
PLUS: "+"
MINUS: "-" | "−"
TIMES: "*" | "×"
DIVIDE: "/" | "÷"
PERCENT: "%"
NUMBER: /(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?/
INTEGER: /[-−]?[0-9]+/
STRING: /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/s
WORD: /[^\W\d]\w*/
REFERENCE: /{ROW}[^\W\d]\w*/
EARLIER.5: /before\.(?=["'])/
AGGREGATE.5: /(?:mean|min|max)(?=\s*\()/
LAYER.5: /{ROW}layer(?=\s*\[)/
OVER_LAYERS.5: /{ROW}(?:slope|max_layer|min_layer)(?=\s*\()/
STEPS_TO.5: /{ROW}steps_to(?=\s*\()/
_OR.5: /or(?![\w.])/
_AND.5: /and(?![\w.])/
_NOT.5: /not(?![\w.])/
_WITHIN.5: /within(?![\w.])/
FUNCTION.5: /(?:abs|exp|ln)(?=\s*\()/

%ignore /\s+/
"""


ALIASES = {
    "std": "act_std",
    "mean": "act_mean",
    "zeros": "zero_fraction",
    "dead": "dead_fraction",
    "saturated": "saturated_fraction",
    "rank": "effective_rank",
    "gradient": "delta_q",
}
"""Short names of the statistics of a layer."""
_STATISTICS = (*LAYER_STATISTICS, *RUNNING_STATISTICS, *SHIFT_STATISTICS)
_SURELY_PERCENT = 10.0
DEEPEST = 60
"""Maximum nesting depth of a gate, far more than any hand-written gate has."""


@dataclass(frozen=True)
class QuantityTemplate:
    """A quantity whose row is not known yet."""

    token: Token
    """The token of the quantity, which may start with the name of the row."""
    make: Callable[[RowName, int], expression.Quantity]
    """Constructor of the quantity, given its row and its column."""


class GateSyntaxError(Exception):
    """An error in a gate, with its column (counted from 0)."""

    def __init__(self, column: int, problem: str) -> None:
        super().__init__(problem)
        self.column = column


@v_args(inline=True)
class _GateBuilder(Transformer[Token, GateNode]):
    """Builds nodes while lark parses, innermost first, so that deep nesting cannot overflow the stack."""

    def any_of(self, *conditions: GateNode) -> GateNode:
        return conditions[0] if len(conditions) == 1 else _check_depth(expression.Or(conditions))

    def all_of(self, *conditions: GateNode) -> GateNode:
        return conditions[0] if len(conditions) == 1 else _check_depth(expression.And(conditions))

    def opposite(self, condition: GateNode) -> GateNode:
        return _check_depth(expression.Not(condition))

    def chain(self, first: GateNode, *rest: GateNode | Token) -> GateNode:
        sides = [first, *(part for part in rest if isinstance(part, GateNode))]
        signs = [part for part in rest if isinstance(part, Token)]
        links = [
            _check_comparison(expression.Comparison(left, _RELATIONS[sign], right), sign)
            for sign, (left, right) in zip(signs, pairwise(sides), strict=True)
        ]
        return links[0] if len(links) == 1 else _check_depth(expression.And(tuple(links)))

    def near(self, left: GateNode, sign: Token, right: GateNode, margin: expression.Number) -> GateNode:
        return _check_comparison(expression.Approx(left, right, margin.value), sign)

    def binary(self, left: GateNode, sign: Token, right: GateNode) -> GateNode:
        return _check_depth(expression.Binary(_OPERATORS[sign], left, right))

    def minus(self, _sign: Token, inner: GateNode) -> GateNode:
        return _check_depth(expression.Negation(inner))

    def function(self, kind: Token, inner: GateNode) -> GateNode:
        return _check_depth(expression.Function(inner, cast(expression.FunctionName, str(kind))))

    def aggregate(self, kind: Token, inner: GateNode) -> GateNode:
        """Return the node of mean, min or max over runs."""
        column = int(kind.start_pos or 0)
        nodes = list(inner.walk())
        if any(isinstance(node, expression.Aggregate) for node in nodes):
            raise GateSyntaxError(column, f"{kind}() cannot be applied to a mean, min or max")
        if len({quantity.row for quantity in inner.quantities}) != 1:
            raise GateSyntaxError(column, f"{kind}() takes an expression of metrics of one row")
        return _check_depth(
            expression.Aggregate(inner, cast(expression.Aggregation, str(kind)), column=column)
        )

    def constant(self, number: Token, percent: Token | None = None) -> GateNode:
        value = float(number) / (100.0 if percent else 1.0)
        if not math.isfinite(value):
            raise GateSyntaxError(int(number.start_pos or 0), f"{number} is too large")
        return expression.Number(value)

    def quantity(self, *parts: Token | QuantityTemplate) -> GateNode:
        """Return the quantity of a row, with the row name in quotes, as a prefix of the token, or absent."""
        measure, tokens = parts[-1], [part for part in parts if isinstance(part, Token)]
        assert isinstance(measure, QuantityTemplate)
        token = measure.token
        column = int((tokens or [token])[0].start_pos or 0)
        earlier = any(part.type == "EARLIER" for part in tokens)
        quoted = [_unquote(part) for part in tokens if part.type == "STRING"]
        name = quoted[0] if quoted else None
        prefix = str(token).rpartition(".")[0]
        if prefix and name is not None:
            raise GateSyntaxError(
                int(token.start_pos or 0), f"the row is already given as {name!r}; expected a metric"
            )
        if prefix == "before" or prefix.startswith("before."):
            earlier, prefix = True, prefix[len("before.") :]
        return measure.make(expression.RowName(name if name is not None else prefix or None, earlier), column)

    def metric(self, token: Token) -> QuantityTemplate:
        name = str(token).rpartition(".")[2]
        if name not in METRICS and name != DIVERGENCE_RATE:
            raise GateSyntaxError(int(token.end_pos or 0) - len(name), _unknown_metric_message(name))
        return QuantityTemplate(token, lambda row, column: expression.MetricValue(row, name, column=column))

    def layer(self, token: Token, index: Token, statistic: Token, moment: Token) -> QuantityTemplate:
        """Return a statistic of one hidden layer, counted from 1, or from −1 for the last one."""
        number = int(index.replace("−", "-")) if len(index) < 7 else 0
        if not number:
            raise GateSyntaxError(
                int(index.start_pos or 0),
                f"there is no layer {index}: the first hidden layer is 1, the last is -1",
            )
        statistic_at = _parse_statistic(statistic, moment)
        return QuantityTemplate(
            token, lambda row, column: expression.LayerStatistic(row, number, *statistic_at, column=column)
        )

    def over_layers(self, token: Token, statistic: Token, moment: Token) -> QuantityTemplate:
        kind = cast(expression.LayerAggregation, token.rpartition(".")[2])
        statistic_at = _parse_statistic(statistic, moment)
        return QuantityTemplate(
            token, lambda row, column: expression.LayerAggregate(row, kind, *statistic_at, column=column)
        )

    def steps_to(self, token: Token, accuracy: expression.Number) -> QuantityTemplate:
        if not 0.0 < accuracy.value <= 1.0:
            raise GateSyntaxError(
                int(token.end_pos or 0) + 1, "steps_to() takes an accuracy above 0 and up to 1, such as 90 %"
            )
        return QuantityTemplate(
            token, lambda row, column: expression.StepsTo(row, accuracy.value, column=column)
        )


def make_transformer() -> Transformer[Token, GateNode]:
    """Return the transformer that builds nodes while lark parses; it raises GateSyntaxError."""
    return _GateBuilder()


_RELATIONS: dict[str, expression.Relation] = {
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
_OPERATORS: dict[str, expression.Operator] = {
    "+": "+",
    "-": "-",
    "*": "*",
    "/": "/",
    "−": "-",
    "×": "*",
    "÷": "/",
}


def _unquote(token: Token) -> str:
    return re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL)


def _check_depth(node: GateNode) -> GateNode:
    if node.depth > DEEPEST:
        raise GateSyntaxError(0, f"nested more than {DEEPEST} levels deep")
    return node


def _check_comparison(node: expression.Comparison | expression.Approx, sign: Token) -> GateNode:
    """Return the comparison; raise GateSyntaxError if its sides cannot be compared."""
    quantities = node.quantities
    if not quantities:
        raise GateSyntaxError(int(sign.start_pos or 0), "both sides are constants; name a metric")
    for side in node.children:
        for rate in side.per_run_quantities:
            if rate.is_rate and rate is not side:
                problem = "an expression of it has no exact interval"
                raise GateSyntaxError(
                    rate.column, f"{DIVERGENCE_RATE} must be alone on its side of a comparison: {problem}"
                )
    _check_rates(node)
    _check_shares(node, sign)
    return _check_depth(node)


def _check_shares(node: expression.Comparison | expression.Approx, sign: Token) -> None:
    """Raise GateSyntaxError if a share is compared with a number that was surely meant as a percentage.

    Accuracies are shares from 0 to 1. Compared with 95, every run would give the same result.
    """
    left, right = node.children[:2]
    for side, other in ((left, right), (right, left)):
        if not isinstance(side, expression.MetricValue) or not isinstance(other, expression.Number):
            continue
        is_share = side.is_rate or METRICS[side.metric].form == "percent"
        if is_share and _SURELY_PERCENT <= other.value <= 100.0:
            problem = f"{side.metric} is a share from 0 to 1: write {other.value:g} %"
            raise GateSyntaxError(int(sign.start_pos or 0), problem)


def _check_rates(node: expression.Comparison | expression.Approx) -> None:
    rates = [side for side in node.children if isinstance(side, expression.Quantity) and side.is_rate]
    if not rates:
        return
    (rate, *more) = rates
    others = [side for side in node.children if side not in rates]
    if any(side.per_run_quantities for side in others):
        raise GateSyntaxError(
            rate.column, f"{DIVERGENCE_RATE} can only be compared with a constant or another rate"
        )
    if more and isinstance(node, expression.Approx):
        raise GateSyntaxError(
            rate.column,
            "≈ cannot compare two divergence rates, which have no interval of their difference; use < or >",
        )


def _parse_statistic(statistic: Token, moment: Token) -> tuple[str, str]:
    name = ALIASES.get(str(statistic), str(statistic))
    if name not in _STATISTICS:
        problem = _unknown_name("statistic of a layer", name, [*_STATISTICS, *ALIASES])
        raise GateSyntaxError(int(statistic.start_pos or 0), problem)
    if moment not in MOMENTS:
        raise GateSyntaxError(int(moment.start_pos or 0), _unknown_name("moment", str(moment), MOMENTS))
    if (name in SHIFT_STATISTICS) != (moment == TRAIN):
        moments = TRAIN if name in SHIFT_STATISTICS else " or ".join(PROBED)
        raise GateSyntaxError(int(moment.start_pos or 0), f"{name} is measured at {moments}, not at {moment}")
    return name, str(moment)


def _unknown_metric_message(name: str) -> str:
    if name in _STATISTICS or name in ALIASES:
        at = f"{name}@{TRAIN if name in SHIFT_STATISTICS else 'init'}"
        return f"{name} is a statistic of a layer: write layer[-1].{at}, slope({at}) or max_layer({at})"
    from initbench.registry import nearest_name

    guess = nearest_name(name, [*METRICS, DIVERGENCE_RATE])
    hint = (
        f"did you mean {guess!r}?"
        if guess
        else "docs/ci.md lists all metrics; a metric of one row is written row.metric"
    )
    return f"unknown metric {name!r}; {hint}"


def _unknown_name(kind: str, name: str, choices: Iterable[str]) -> str:
    from initbench.registry import unknown_name_message  # imports pydantic, which only errors need

    return unknown_name_message(kind, name, choices)


LONGEST = 2000
"""Maximum number of characters of a gate."""

_EXPECTED = {
    "NUMBER": "a number",
    "REFERENCE": "a metric (or row.metric)",
    "RELATION": "one of < <= > >= == !=",
    "NEAR": "≈",
    "PLUS": "+ − × ÷",
    "_WITHIN": "within",
    "LPAR": "'('",
    "RPAR": "')'",
    "LSQB": "[",
    "RSQB": "]",
    "DOT": ".",
    "INTEGER": "the number of a layer",
    "WORD": "a name",
    "_AND": "and",
    "_OR": "or",
    "_NOT": "not",
    "__ANON_0": "@",
    "AT": "@",
    "$END": "the end",
}
"""Descriptions of terminals for error messages; a terminal that is not listed is not mentioned."""

_MEANT = {
    "=": "; write == for equality",
    "&": "; write `and`",
    "|": "; write `or`",
    "!": "; write `not`",
}


def parse_gate(text: str, option: str = "--fail-if") -> GateNode:
    """Parse a gate.

    Raises:
        UsageError: The text is not a valid gate; the message shows the column.
    """
    if len(text) > LONGEST:
        raise UsageError(f"{option}: a gate has at most {LONGEST} characters; this one has {len(text)}")
    try:
        return parse_condition(text)
    except GateSyntaxError as fault:
        raise UsageError(f"{option}: {with_caret(text, fault.column, str(fault))}") from None


def parse_condition(text: str) -> GateNode:
    """Parse a gate like `parse_gate`, but raise GateSyntaxError for invalid text."""
    try:
        return cast(GateNode, _gate_parser().parse(text))
    except VisitError as error:
        if not isinstance(error.orig_exc, GateSyntaxError):
            raise
        raise error.orig_exc from None
    except UnexpectedInput as error:
        raise GateSyntaxError(*_describe_unexpected(error, text)) from None


def with_caret(text: str, column: int, problem: str) -> str:
    """Return the problem, followed by the gate with a caret under the column (counted from 0)."""
    line = "".join(c if c.isprintable() else " " for c in text)
    start = max(0, column - 60)
    excerpt = ("…" if start else "") + line[start : start + 100] + ("…" if len(line) > start + 100 else "")
    return f"column {column + 1}: {problem}\n  {excerpt}\n  {' ' * (column - start + bool(start))}^"


def _describe_unexpected(error: UnexpectedInput, text: str) -> tuple[int, str]:
    if isinstance(error, UnexpectedToken):
        ended = error.token.type == "$END"
        column = len(text.rstrip()) if ended else int(error.token.start_pos or 0)
        token_text = "the end" if ended else repr(str(error.token))
        return column, f"expected {_join_terminals(error.accepts or error.expected)}, got {token_text}"
    assert isinstance(error, UnexpectedCharacters)
    column = int(error.pos_in_stream or 0)
    character = text[column]
    if character in "\"'":
        return column, "the closing quote is missing"
    return column, f"unexpected character {character!r}" + _MEANT.get(character, "")


def _join_terminals(terminals: Iterable[str]) -> str:
    names = set(terminals)
    descriptions = [words for name, words in _EXPECTED.items() if name in names]
    return (
        " or ".join(
            [", ".join(descriptions[:-1]), descriptions[-1]] if len(descriptions) > 1 else descriptions
        )
        or "something else"
    )


@lru_cache(maxsize=1)
def _gate_parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", transformer=make_transformer(), maybe_placeholders=False)
