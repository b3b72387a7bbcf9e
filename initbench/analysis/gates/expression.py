"""Expression trees of gates. `str` of a node is text that parses to an equal node."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

Operator = Literal["+", "-", "*", "/"]
Relation = Literal["<", "<=", ">", ">=", "==", "!="]
Aggregation = Literal["mean", "min", "max"]
FunctionName = Literal["abs", "exp", "ln"]
LayerAggregation = Literal["slope", "max_layer", "min_layer"]

_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
_NEGATION, _ATOM = 3, 4
DIVERGENCE_RATE = "divergence_rate"
"""The share of complete runs that diverged; it is not in METRICS, as it belongs to a row and not to a run."""
_PLAIN = re.compile(r"[^\W\d](?:[\w.-]*\w)?")
"""Row names that need no quotes."""


class GateNode:
    """A node of the expression tree of a gate."""

    children: tuple[GateNode, ...] = ()

    @cached_property
    def depth(self) -> int:
        """Number of nodes on the longest path from this node to a leaf.

        It is computed while parsing, bottom up, so no call recurses deeply.
        """
        return 1 + max((child.depth for child in self.children), default=0)

    @property
    def precedence(self) -> int:
        """Binding strength; an operand that binds less tightly is printed in parentheses."""
        return _ATOM

    def walk(self) -> Iterator[GateNode]:
        """Yield the node and all its descendants, depth first."""
        yield self
        for child in self.children:
            yield from child.walk()

    @cached_property
    def quantities(self) -> list[Quantity]:
        """Quantities of runs in this subtree, in order."""
        return [node for node in self.walk() if isinstance(node, Quantity)]

    @cached_property
    def per_run_quantities(self) -> list[Quantity]:
        """Quantities outside of aggregates (mean, min, max), i.e. those with one value per run."""
        if isinstance(self, Aggregate):
            return []
        own_quantities = [self] if isinstance(self, Quantity) else []
        return [
            *own_quantities,
            *(quantity for child in self.children for quantity in child.per_run_quantities),
        ]


@dataclass(frozen=True)
class Number(GateNode):
    """A constant."""

    value: float

    def __str__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True)
class RowName:
    """Reference to a row, in the current or the earlier state."""

    name: str | None
    """Name of the row; None for each row in turn."""
    earlier: bool = False
    """Whether the row is that of the earlier state."""

    def __str__(self) -> str:
        name, prefix = self.name, "before." if self.earlier else ""
        if name is not None and not (_PLAIN.fullmatch(name) and name.partition(".")[0] != "before"):
            name = '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
        return prefix if name is None else f"{prefix}{name}."


@dataclass(frozen=True)
class Quantity(GateNode, ABC):
    """A number that each run of a row has; `column` is its position in the text of the gate."""

    row: RowName
    column: int = field(default=0, compare=False, kw_only=True)

    @property
    @abstractmethod
    def name(self) -> str:
        """Text of the quantity without the row."""

    @property
    def is_rate(self) -> bool:
        """Whether it is a share of the runs instead of a number that each run has."""
        return False

    def __str__(self) -> str:
        return f"{self.row}{self.name}"


@dataclass(frozen=True)
class MetricValue(Quantity):
    """A metric of METRICS, or the divergence rate."""

    metric: str

    @property
    def name(self) -> str:
        """Name of the metric."""
        return self.metric

    @property
    def is_rate(self) -> bool:
        """Whether it is the divergence rate."""
        return self.metric == DIVERGENCE_RATE


@dataclass(frozen=True)
class LayerStatistic(Quantity):
    """A statistic of one hidden layer: 1 is the first, −1 the last."""

    layer: int
    statistic: str
    moment: str

    @property
    def name(self) -> str:
        """Text of the quantity, such as `layer[1].act_std@init`."""
        return f"layer[{self.layer}].{self.statistic}@{self.moment}"


@dataclass(frozen=True)
class LayerAggregate(Quantity):
    """A statistic aggregated over the hidden layers: slope of its logarithm, maximum or minimum."""

    kind: LayerAggregation
    statistic: str
    moment: str

    @property
    def name(self) -> str:
        """Text of the quantity, such as `slope(q@init)`."""
        return f"{self.kind}({self.statistic}@{self.moment})"


@dataclass(frozen=True)
class StepsTo(Quantity):
    """The first evaluated update whose validation accuracy is at least `accuracy`."""

    accuracy: float

    @property
    def name(self) -> str:
        """Text of the quantity, such as `steps_to(0.9)`."""
        return f"steps_to({self.accuracy!r})"


@dataclass(frozen=True)
class Unary(GateNode):
    """A node with one child."""

    inner: GateNode

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", (self.inner,))


@dataclass(frozen=True)
class Negation(Unary):
    """The negative of an expression."""

    @property
    def precedence(self) -> int:
        """Binding strength, higher than that of a product."""
        return _NEGATION

    def __str__(self) -> str:
        return f"-{_parenthesise(self.inner, _NEGATION)}"


@dataclass(frozen=True)
class Function(Unary):
    """A function applied to an expression, run by run; ln is the natural logarithm."""

    kind: FunctionName

    def __str__(self) -> str:
        return f"{self.kind}({self.inner})"


@dataclass(frozen=True)
class Logarithm(Unary):
    """The natural logarithm, inserted to evaluate gates with geometric means; it has no gate syntax."""

    def __str__(self) -> str:
        return f"log({self.inner})"


@dataclass(frozen=True)
class Aggregate(Unary):
    """The mean, minimum or maximum of an expression over the stored runs: a number, not an estimate."""

    kind: Aggregation
    column: int = field(default=0, compare=False, kw_only=True)

    def __str__(self) -> str:
        return f"{self.kind}({self.inner})"


@dataclass(frozen=True)
class Binary(GateNode):
    """Two expressions joined by an arithmetic operator."""

    operator: Operator
    left: GateNode
    right: GateNode

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", (self.left, self.right))

    @property
    def precedence(self) -> int:
        """Binding strength of the operator."""
        return _PRECEDENCE[self.operator]

    def __str__(self) -> str:
        left_text = _parenthesise(self.left, self.precedence)
        return f"{left_text} {self.operator} {_parenthesise(self.right, self.precedence + 1)}"


@dataclass(frozen=True)
class Comparison(GateNode):
    """The condition that `relation` holds between left and right."""

    left: GateNode
    relation: Relation
    right: GateNode

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", (self.left, self.right))

    def __str__(self) -> str:
        return f"{self.left} {self.relation} {self.right}"


@dataclass(frozen=True)
class Approx(GateNode):
    """The condition that left and right differ by at most `margin`."""

    left: GateNode
    right: GateNode
    margin: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", (self.left, self.right))

    def __str__(self) -> str:
        return f"{self.left} ≈ {self.right} within {self.margin!r}"


@dataclass(frozen=True)
class Not(Unary):
    """The negation of a condition."""

    def __str__(self) -> str:
        return f"not ({self.inner})"


@dataclass(frozen=True)
class And(GateNode):
    """The conjunction of conditions; a chain such as `0.8 < x <= 1.2` is parsed to one."""

    children: tuple[GateNode, ...]

    def __str__(self) -> str:
        return " and ".join(f"({child})" for child in self.children)


@dataclass(frozen=True)
class Or(GateNode):
    """The disjunction of conditions."""

    children: tuple[GateNode, ...]

    def __str__(self) -> str:
        return " or ".join(f"({child})" for child in self.children)


def _parenthesise(node: GateNode, least: int) -> str:
    return str(node) if node.precedence >= least else f"({node})"
