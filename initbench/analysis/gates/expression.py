"""What a gate says, as a tree; `str` of a node is text that is read as the same node again."""

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
"""The share of complete runs that diverged; no entry of METRICS, since it is 0 or 1 in a run."""
_PLAIN = re.compile(r"[^\W\d](?:[\w.-]*\w)?")
"""Names of rows that need no quotes."""


class GateNode:
    """Anything in a gate."""

    children: tuple[GateNode, ...] = ()

    @cached_property
    def depth(self) -> int:
        """How many nodes stand one in another; reading bottom up, a step each."""
        return 1 + max((child.depth for child in self.children), default=0)

    @property
    def precedence(self) -> int:
        """How tightly it holds together: what holds less is put in parentheses."""
        return _ATOM

    def walk(self) -> Iterator[GateNode]:
        """The node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    @cached_property
    def quantities(self) -> list[Quantity]:
        """Everything that is read off runs, in order."""
        return [node for node in self.walk() if isinstance(node, Quantity)]

    @cached_property
    def per_run_quantities(self) -> list[Quantity]:
        """Those that differ from run to run: outside of means, minima and maxima."""
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
    """Which row, and in which state."""

    name: str | None
    """None for every row in turn."""
    earlier: bool = False
    """Whether the earlier state of that row is meant."""

    def __str__(self) -> str:
        name, prefix = self.name, "before." if self.earlier else ""
        if name is not None and not (_PLAIN.fullmatch(name) and name.partition(".")[0] != "before"):
            name = '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
        return prefix if name is None else f"{prefix}{name}."


@dataclass(frozen=True)
class Quantity(GateNode, ABC):
    """One number of each run; `column` is where it stands in the text."""

    row: RowName
    column: int = field(default=0, compare=False, kw_only=True)

    @property
    @abstractmethod
    def name(self) -> str:
        """What is read off a run, without the row."""

    @property
    def is_rate(self) -> bool:
        """Whether it is a share of runs instead of a number that each has."""
        return False

    def __str__(self) -> str:
        return f"{self.row}{self.name}"


@dataclass(frozen=True)
class MetricValue(Quantity):
    """An entry of METRICS, or the rate of divergence."""

    metric: str

    @property
    def name(self) -> str:
        """Its name in METRICS."""
        return self.metric

    @property
    def is_rate(self) -> bool:
        """Whether it is the one that METRICS has not."""
        return self.metric == DIVERGENCE_RATE


@dataclass(frozen=True)
class LayerStatistic(Quantity):
    """A statistic of one hidden layer: 1 is the first, −1 the last."""

    layer: int
    statistic: str
    moment: str

    @property
    def name(self) -> str:
        """As it is written."""
        return f"layer[{self.layer}].{self.statistic}@{self.moment}"


@dataclass(frozen=True)
class LayerAggregate(Quantity):
    """Over the hidden layers: the least-squares slope of ln(statistic), its greatest, or its least value."""

    kind: LayerAggregation
    statistic: str
    moment: str

    @property
    def name(self) -> str:
        """As it is written."""
        return f"{self.kind}({self.statistic}@{self.moment})"


@dataclass(frozen=True)
class StepsTo(Quantity):
    """The first evaluated update whose validation accuracy is at least `accuracy`."""

    accuracy: float

    @property
    def name(self) -> str:
        """As it is written."""
        return f"steps_to({self.accuracy!r})"


@dataclass(frozen=True)
class Unary(GateNode):
    """A node around one other."""

    inner: GateNode

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", (self.inner,))


@dataclass(frozen=True)
class Negation(Unary):
    """Minus an expression."""

    @property
    def precedence(self) -> int:
        """Tighter than a product."""
        return _NEGATION

    def __str__(self) -> str:
        return f"-{_parenthesise(self.inner, _NEGATION)}"


@dataclass(frozen=True)
class Function(Unary):
    """A function of an expression, run by run; ln is the natural logarithm."""

    kind: FunctionName

    def __str__(self) -> str:
        return f"{self.kind}({self.inner})"


@dataclass(frozen=True)
class Logarithm(Unary):
    """The natural logarithm, which only the evaluation of geometric means makes; it cannot be written."""

    def __str__(self) -> str:
        return f"log({self.inner})"


@dataclass(frozen=True)
class Aggregate(Unary):
    """The mean, the least or the greatest of an expression over the runs there are: an exact number."""

    kind: Aggregation
    column: int = field(default=0, compare=False, kw_only=True)

    def __str__(self) -> str:
        return f"{self.kind}({self.inner})"


@dataclass(frozen=True)
class Binary(GateNode):
    """Two expressions and what joins them."""

    operator: Operator
    left: GateNode
    right: GateNode

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", (self.left, self.right))

    @property
    def precedence(self) -> int:
        """A product's or a sum's."""
        return _PRECEDENCE[self.operator]

    def __str__(self) -> str:
        left_text = _parenthesise(self.left, self.precedence)
        return f"{left_text} {self.operator} {_parenthesise(self.right, self.precedence + 1)}"


@dataclass(frozen=True)
class Comparison(GateNode):
    """left ~ right."""

    left: GateNode
    relation: Relation
    right: GateNode

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", (self.left, self.right))

    def __str__(self) -> str:
        return f"{self.left} {self.relation} {self.right}"


@dataclass(frozen=True)
class Approx(GateNode):
    """left and right differ by no more than `margin`."""

    left: GateNode
    right: GateNode
    margin: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", (self.left, self.right))

    def __str__(self) -> str:
        return f"{self.left} ≈ {self.right} within {self.margin!r}"


@dataclass(frozen=True)
class Not(Unary):
    """The opposite of a condition."""

    def __str__(self) -> str:
        return f"not ({self.inner})"


@dataclass(frozen=True)
class And(GateNode):
    """Every condition; a chained range is one too."""

    children: tuple[GateNode, ...]

    def __str__(self) -> str:
        return " and ".join(f"({child})" for child in self.children)


@dataclass(frozen=True)
class Or(GateNode):
    """At least one condition."""

    children: tuple[GateNode, ...]

    def __str__(self) -> str:
        return " or ".join(f"({child})" for child in self.children)


def _parenthesise(node: GateNode, least: int) -> str:
    return str(node) if node.precedence >= least else f"({node})"
