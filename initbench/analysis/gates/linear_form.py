"""Transformation and evaluation of expressions: sums are split by row, products become sums of logarithms.

An expression is *bound* after `substitute_aggregates` has replaced each mean, min and max by its number.
"""

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
"""Statistics of a layer that are positive and differ between nets by factors."""


def has_geometric_mean(left: GateNode, right: GateNode) -> bool:
    """Return whether two sides are compared by their ratio.

    They are if both are products of positive constants and of metrics with a geometric mean.
    """
    return _are_products(left, right, _is_log)


def are_scales(left: GateNode, right: GateNode) -> bool:
    """Return whether two sides are products of positive constants and of statistics in SCALES."""
    return _are_products(left, right, _is_scale)


def log_ratio(left: GateNode, right: GateNode) -> GateNode:
    """Return ln(left / right) of two products as a difference of sums."""
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
    """Return the logarithm of a product as a sum."""
    if isinstance(node, Binary):
        left, right = log_of_product(node.left), log_of_product(node.right)
        return Binary("+", left, right) if node.operator == "*" else Binary("-", left, right)
    return Number(math.log(node.value)) if isinstance(node, Number) else Logarithm(node)


def split_by_row(node: GateNode, of: Callable[[Quantity], str]) -> dict[str, GateNode] | None:
    """Split an expression into a sum of one expression per row, or return None if it is not such a sum.

    Args:
        node: The expression.
        of: Returns the row of a quantity, or of a block of rows that belong together.

    Returns:
        The terms by row; constants are added to the first row. None if rows are multiplied, for example.
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
    """Return the terms of a sum; a constant factor of several rows is distributed over their terms."""
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
    """Return the expression with each mean, min and max replaced by its number."""
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
"""One number per run; None for a run without a value."""


def evaluate_column(node: GateNode, read: Callable[[Quantity], Column], size: int) -> Column:
    """Return the values of a bound expression for `size` runs.

    Args:
        node: The expression.
        read: Returns the values of a quantity, one per run.
        size: Number of runs.

    Returns:
        One number per run: None if the run lacks a quantity, NaN if the value cannot be computed (division by
        0, logarithm of 0, overflow).
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
    """Return the number of a bound expression without quantities; NaN if it cannot be computed."""
    (value,) = evaluate_column(node, lambda _quantity: [None], 1)
    assert value is not None
    return value


def as_affine(node: GateNode) -> tuple[float, float] | None:
    """Return (a, b) if a bound expression is a · x + b, x a quantity or its logarithm; otherwise None."""
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
