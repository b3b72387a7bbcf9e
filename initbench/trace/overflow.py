"""Find the operation of a pass that first produces non-finite numbers, and the layer before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from initbench.trace.contraction import PRODUCTS
from initbench.trace.torch_ops import WEIGHTED, plain_name

_IGNORED = frozenset({"isfinite", "isnan", "isinf", "register_hook"})
_OPERATORS = {
    "__truediv__": "division",
    "__rtruediv__": "division",
    "__itruediv__": "division",
    "div": "division",
    "true_divide": "division",
    "reciprocal": "division",
    "__pow__": "pow",
    "__rpow__": "pow",
    "__ipow__": "pow",
    "__mul__": "mul",
    "__rmul__": "mul",
    "__imul__": "mul",
    "__add__": "add",
    "__radd__": "add",
    "__iadd__": "add",
    "__sub__": "sub",
    "__rsub__": "sub",
    "__isub__": "sub",
    "__matmul__": "matmul",
    "__rmatmul__": "matmul",
}
"""Readable names of Python's operators."""


@dataclass(frozen=True)
class Overflow:
    """An operation that received finite numbers and returned non-finite ones."""

    operation: str
    layer: str | None
    """Name of the last weight layer before the operation; None before the first layer."""
    is_product: bool
    """Whether the operation multiplies by a weight."""
    in_loss: bool
    bad: int
    """Number of entries that are not finite."""
    entries: int
    not_a_number: bool
    """Whether any of the entries is NaN."""
    low: float
    high: float
    """Upper end of the range of the finite numbers in the input tensors."""


class OverflowFinder(TorchFunctionMode):
    """Torch function mode that records which operation makes the numbers of a pass non-finite.

    Args:
        names: Qualified names of the parameters, by the `id` of the tensors that the pass uses for them.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self._names = names
        self._layer: str | None = None
        self._in_loss = False
        self._causes: dict[int, Overflow] = {}
        self._alive: list[Tensor] = []
        """Tensors that are kept alive so that their `id` stays unique."""

    def begin_loss(self) -> None:
        """Mark the end of the module; all later operations belong to the loss."""
        self._in_loss = True

    def cause_of(self, x: Tensor) -> Overflow | None:
        """Return the operation that made x non-finite, or None for a finite x."""
        return self._causes.get(id(x))

    @property
    def first(self) -> Overflow | None:
        """First recorded operation, which may be intended, as in an attention mask."""
        return next(iter(self._causes.values()), None)

    def __torch_function__(
        self, func: Callable[..., Any], _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func` and check whether its result is finite."""
        keywords = kwargs or {}
        name = plain_name(func)
        if name in _IGNORED:
            return func(*args, **keywords)
        inputs = [x for x in _leaves([args, keywords]) if isinstance(x, Tensor)]
        scalars = [x for x in _leaves([args, keywords]) if isinstance(x, float)]
        bad_before = [x for x in inputs if _bad(x)]
        nan_before = any(bool(x.isnan().any()) for x in bad_before) or any(map(math.isnan, scalars))
        spans = [] if bad_before else [_span(x) for x in inputs if x.is_floating_point() and x.numel()]
        result = func(*args, **keywords)
        self._enter_layer(inputs)
        for output in _leaves([result]):
            if isinstance(output, Tensor) and _bad(output):
                self._trace(name, output, bad_before, nan_before, scalars, spans)
        return result

    def _enter_layer(self, inputs: Iterable[Tensor]) -> None:
        for x in inputs:
            name = self._names.get(id(x))
            if name is not None and x.ndim > 1:
                self._layer = name.removesuffix(".weight")

    def _trace(
        self,
        name: str,
        output: Tensor,
        bad_before: list[Tensor],
        nan_before: bool,
        scalars: list[float],
        spans: list[tuple[float, float]],
    ) -> None:
        inherited = next((self._causes[id(x)] for x in bad_before if id(x) in self._causes), None)
        is_given = bool(bad_before) or any(abs(x) == float("inf") for x in scalars)
        is_new_nan = bool(output.isnan().any()) and not nan_before
        self._alive.append(output)
        if inherited is not None:
            self._causes[id(output)] = inherited
        elif not is_given or is_new_nan:
            bad = int((~torch.isfinite(output)).sum())
            self._causes[id(output)] = Overflow(
                operation=_OPERATORS.get(name, name),
                layer=self._layer,
                is_product=name in WEIGHTED or name in PRODUCTS or name in ("einsum", "tensordot"),
                in_loss=self._in_loss,
                bad=bad,
                entries=output.numel(),
                not_a_number=bool(output.isnan().any()),
                low=min((low for low, _ in spans), default=0.0),
                high=max((high for _, high in spans), default=0.0),
            )


def _bad(x: Tensor) -> bool:
    return (x.is_floating_point() or x.is_complex()) and not bool(torch.isfinite(x.detach()).all())


def _span(x: Tensor) -> tuple[float, float]:
    return float(x.detach().min()), float(x.detach().max())


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, dict):
            yield from _leaves(value.values())
        elif isinstance(value, tuple | list):
            yield from _leaves(value)
        else:
            yield value
