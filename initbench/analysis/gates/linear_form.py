"""Expressions taken apart: by rows where they are sums, and to logarithms where means are geometric."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence

from initbench.analysis.gates.expression import (
    Aggregate,
    Binary,
    Function,
    GateNode,
    LayerAggregate,
    LayerStatistic,
    Logarithm,
    MetricValue,
    Negation,
    Number,
    Quantity,
)
from initbench.analysis.metrics import METRICS

SCALES = ("q", "act_std", "delta_q", "weight_std", "weight_gradient", "running_var_ratio")
"""Statistics of a layer that are positive and go from net to net by factors."""


def has_geometric_mean(left: GateNode, right: GateNode) -> bool:
    """Whether two sides are compared by their ratio: products of positive constants and log metrics."""
    return _are_products(left, right, _is_log)


def are_scales(left: GateNode, right: GateNode) -> bool:
    """Whether two sides are products of positive constants and of statistics that are scales."""
    return _are_products(left, right, _is_scale)


def log_ratio(left: GateNode, right: GateNode) -> GateNode:
    """ln(left / right) of two products, as a difference."""
    return Binary("-", log_of_product(left), log_of_product(right))


def _are_products(left: GateNode, right: GateNode, of: Callable[[GateNode], bool]) -> bool:
    return (
        any(map(of, [*left.per_run_quantities, *right.per_run_quantities]))
        and _is_product(left, of)
        and _is_product(right, of)
    )


def _is_log(node: GateNode) -> bool:
    return isinstance(node, MetricValue) and node.metric in METRICS and METRICS[node.metric].log


def _is_scale(node: GateNode) -> bool:
    if isinstance(node, LayerStatistic | LayerAggregate):
        return node.statistic in SCALES and not (isinstance(node, LayerAggregate) and node.kind == "slope")
    return isinstance(node, MetricValue) and node.metric.startswith("act_std_")


def _is_product(node: GateNode, of: Callable[[GateNode], bool]) -> bool:
    if isinstance(node, Binary) and node.operator in "*/":
        return _is_product(node.left, of) and _is_product(node.right, of)
    return of(node) or (isinstance(node, Number) and node.value > 0.0)


def log_of_product(node: GateNode) -> GateNode:
    """ln of a product, as a sum."""
    if isinstance(node, Binary):
        left, right = log_of_product(node.left), log_of_product(node.right)
        return Binary("+", left, right) if node.operator == "*" else Binary("-", left, right)
    return Number(math.log(node.value)) if isinstance(node, Number) else Logarithm(node)


def split_by_row(node: GateNode, of: Callable[[Quantity], str]) -> dict[str, GateNode] | None:
    """An expression as a sum of one expression for each row; None where rows are multiplied or the like.

    `of` names the row of a quantity. Constants go to the first row.
    """
    parts: dict[str, GateNode] = {}
    constant: list[GateNode] = []
    for term in _sum_terms(node, of):
        rows = {of(quantity) for quantity in term.per_run_quantities}
        if len(rows) > 1:
            return None
        if not rows:
            constant.append(term)
        else:
            (row,) = rows
            parts[row] = Binary("+", parts[row], term) if row in parts else term
    for term in constant:
        first = next(iter(parts))
        parts[first] = Binary("+", parts[first], term)
    return parts


def _sum_terms(node: GateNode, of: Callable[[Quantity], str]) -> list[GateNode]:
    """The terms of a sum, with constant factors multiplied out where they stand before several rows."""
    if len({of(quantity) for quantity in node.per_run_quantities}) <= 1:
        return [node]
    if isinstance(node, Negation):
        return [Negation(term) for term in _sum_terms(node.inner, of)]
    return _binary_sum_terms(node, of) if isinstance(node, Binary) else [node]


def _binary_sum_terms(node: Binary, of: Callable[[Quantity], str]) -> list[GateNode]:
    left, right = node.left, node.right
    if node.operator in "+-":
        second = _sum_terms(right, of)
        return _sum_terms(left, of) + (
            [Negation(term) for term in second] if node.operator == "-" else second
        )
    if not right.per_run_quantities:
        return [Binary(node.operator, term, right) for term in _sum_terms(left, of)]
    if node.operator == "*" and not left.per_run_quantities:
        return [Binary("*", left, term) for term in _sum_terms(right, of)]
    return [node]


def substitute_aggregates(node: GateNode, value_of: Callable[[Aggregate], float]) -> GateNode:
    """The expression with the number of each mean, min and max in its place."""
    if isinstance(node, Aggregate):
        return Number(value_of(node))
    if isinstance(node, Binary):
        return Binary(
            node.operator,
            substitute_aggregates(node.left, value_of),
            substitute_aggregates(node.right, value_of),
        )
    if isinstance(node, Negation):
        return Negation(substitute_aggregates(node.inner, value_of))
    if isinstance(node, Function):
        return Function(substitute_aggregates(node.inner, value_of), node.kind)
    return node


Column = list[float | None]
"""A number of each run."""


def evaluate_column(node: GateNode, read: Callable[[Quantity], Column], size: int) -> Column:
    """The numbers of a bound expression for `size` runs, of those of its quantities; None where one has none.

    What cannot be computed (a quotient by 0, a logarithm of 0, an overflow) is NaN.
    """
    if isinstance(node, Number):
        return [node.value] * size
    if isinstance(node, Quantity):
        return read(node)
    columns = [evaluate_column(child, read, size) for child in node.children]
    return [_evaluate_node(node, numbers) for numbers in zip(*columns, strict=True)]


def _evaluate_node(node: GateNode, numbers: Sequence[float | None]) -> float | None:
    operand_values = [number for number in numbers if number is not None]
    if len(operand_values) < len(numbers):
        return None
    try:
        return _apply_operation(node, operand_values)
    except (ZeroDivisionError, OverflowError, ValueError):
        return math.nan


def _apply_operation(node: GateNode, values: Sequence[float]) -> float:
    if isinstance(node, Negation):
        return -values[0]
    if isinstance(node, Function):
        return _FUNCTIONS[node.kind](values[0])
    if isinstance(node, Logarithm):
        return math.log(values[0])
    assert isinstance(node, Binary)
    return _OPERATIONS[node.operator](values[0], values[1])


_OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


_FUNCTIONS: dict[str, Callable[[float], float]] = {"abs": abs, "exp": math.exp, "ln": math.log}


def constant_value(node: GateNode) -> float:
    """The number of a bound expression without quantities; NaN where it cannot be computed."""
    (value,) = evaluate_column(node, lambda _quantity: [None], 1)
    assert value is not None
    return value


def as_affine(node: GateNode) -> tuple[float, float] | None:
    """a and b where a bound expression is a · x + b, x one quantity or its logarithm; else None."""
    if not node.per_run_quantities:
        return 0.0, constant_value(node)
    if isinstance(node, Quantity | Logarithm):
        return 1.0, 0.0
    if len(node.per_run_quantities) > 1 or isinstance(node, Function):
        return None
    sides = [side for child in node.children if (side := as_affine(child)) is not None]
    if len(sides) < len(node.children):
        return None
    if isinstance(node, Negation):
        return -sides[0][0], -sides[0][1]
    assert isinstance(node, Binary)
    return _combine_affine(node.operator, *sides)


def _combine_affine(
    sign: str, left: tuple[float, float], right: tuple[float, float]
) -> tuple[float, float] | None:
    (a, b), (c, d) = left, right
    if sign == "+":
        return a + c, b + d
    if sign == "-":
        return a - c, b - d
    if sign == "*":
        return (a * d, b * d) if not c else (b * c, b * d)
    return (a / d, b / d) if not c and d else None
