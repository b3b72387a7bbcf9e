"""Products of an input and a weight that are written as functions of two tensors, axis by axis.

Each axis has a letter, as in einsum. Letters that weight and input share and the output lacks are summed
over. Letters that only weight and output have count units. Letters that all three have count groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from initbench.trace.torch_ops import Arguments

PRODUCTS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("matmul", "__matmul__", "linalg_matmul", "mm", "bmm", "mv"), (0, 1)),
    "__rmatmul__": (1, 0),
    **dict.fromkeys(("addmm", "addmv", "baddbmm", "addbmm"), (1, 2)),
    "inner": (0, 1),
    "tensordot": (0, 1),
    "einsum": (1, 2),
}
"""Functions that multiply and sum, with the argument positions of their two factors."""

_NAMES = {"matmul": ("input", "other"), "inner": ("input", "other"), "tensordot": ("a", "b")}
_ADDED = {"addmm": ("mat1", "mat2"), "addmv": ("mat", "vec")}
_BATCHED = ("batch1", "batch2")
_OTHERS = {"mm": ("input", "mat2"), "bmm": ("input", "mat2"), "mv": ("input", "vec")}
_KEYWORDS = {**_NAMES, **_ADDED, **_OTHERS, "baddbmm": _BATCHED, "addbmm": _BATCHED}
_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class ContractionAxes:
    """Axis letters of two factors and of their product."""

    first: str
    second: str
    output: str

    def swapped(self) -> ContractionAxes:
        """Return the axes with the factors in the other order."""
        return ContractionAxes(self.second, self.first, self.output)


@dataclass(frozen=True)
class Contraction:
    """Roles of the axes of a weight in a product, and the axes of the output that the units lie on."""

    shape: tuple[int, ...]
    """Shape of the weight."""
    letters: str
    """Axis letters of the weight, with a blank for an axis along which it repeats itself."""
    groups: str
    units_of_group: str
    columns: str
    """Letters that are summed over."""
    output: str

    @property
    def fan_in(self) -> int:
        """Number of terms in the sum of one output."""
        return self._size(self.columns)

    @property
    def fan_out(self) -> int:
        """Number of outputs that depend on one input: the units of one group."""
        return self._size(self.units_of_group)

    @property
    def rows(self) -> str:
        """Letters of the groups, followed by those of the units."""
        return self.groups + self.units_of_group

    @property
    def units(self) -> int:
        """Number of outputs with weights of their own."""
        return self._size(self.rows)

    def _size(self, letters: str) -> int:
        return math.prod(self.shape[self.letters.index(letter)] for letter in letters)

    def weight_rows(self, weight: Tensor) -> Tensor:
        """Return the weight as (units, fan_in)."""
        return self._arrange(weight, lambda tensor, axis: tensor.select(axis, 0))

    def gradient_rows(self, gradient: Tensor) -> Tensor:
        """Return a gradient of the weight's shape as (units, fan_in), summed over repeated entries."""
        return self._arrange(gradient, lambda tensor, axis: tensor.sum(axis))

    def _arrange(self, tensor: Tensor, reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
        for axis in reversed(range(tensor.ndim)):
            if self.letters[axis] == " ":
                tensor = reduce(tensor, axis)
        letters = self.letters.replace(" ", "")
        order = [letters.index(letter) for letter in self.rows + self.columns]
        return tensor.permute(order).reshape(self.units, self.fan_in)

    def units_second(self, output: Tensor) -> Tensor:
        """Return the output as (samples, units, …)."""
        others = [axis for axis, letter in enumerate(self.output) if letter not in self.rows]
        rows = [self.output.index(letter) for letter in self.rows]
        turned = output.permute([*others[:1], *rows, *others[1:]])
        first = len(others[:1])
        shape = [*turned.shape[:first], self.units, *turned.shape[first + len(rows) :]]
        turned = turned.reshape(shape)
        return turned if first else turned[None]


def contraction_of(x: Tensor, weight: Tensor, x_axes: str, axes: str, output: str) -> Contraction | None:
    """Return the contraction of x and a weight by their letters; None if no unit is a sum over inputs."""
    letters = "".join(
        " " if _repeats(weight, axis, letter, x, x_axes) else letter for axis, letter in enumerate(axes)
    )
    weight_letters = letters.replace(" ", "")
    if len(set(weight_letters)) < len(weight_letters) or len(set(x_axes)) < len(x_axes):
        return None
    broadcast = {
        letter for letter in x_axes if letter in weight_letters and x.shape[x_axes.index(letter)] == 1
    }
    wide = {letter for letter in broadcast if weight.shape[letters.index(letter)] > 1}
    x_only = set(x_axes) - wide
    columns = "".join(letter for letter in weight_letters if letter in x_only and letter not in output)
    shared = "".join(letter for letter in weight_letters if letter in x_only and letter in output)
    units = "".join(letter for letter in weight_letters if letter not in x_only and letter in output)
    if not columns or len(columns) + len(shared) + len(units) < len(weight_letters):
        return None
    return Contraction(tuple(weight.shape), letters, shared, units, columns, output)


def _repeats(weight: Tensor, axis: int, letter: str, x: Tensor, x_axes: str) -> bool:
    """Whether the weight was expanded: it is constant along one of its axes, and the input is not."""
    if letter not in x_axes:
        return False
    size, along = weight.shape[axis], x.shape[x_axes.index(letter)]
    if size == 1:
        return along > 1
    if weight.stride(axis) == 0:
        return True
    is_batch = x_axes.index(letter) == 0 and weight.ndim > 2
    return is_batch and bool((weight.detach() == weight.detach().select(axis, 0).unsqueeze(axis)).all())


def product_factors(name: str, arguments: Arguments) -> tuple[Tensor, Tensor, ContractionAxes] | None:
    """Return the factors of a product and the letters of their axes, or None for calls of another form."""
    if name == "einsum":
        return _einsum(arguments)
    words = _KEYWORDS.get(name, ("", ""))
    first, second = (
        arguments.get(i, arguments.get(word)) for i, word in zip(PRODUCTS[name], words, strict=True)
    )
    if not isinstance(first, Tensor) or not isinstance(second, Tensor) or not (first.ndim and second.ndim):
        return None
    if name == "inner":
        first_axes, second_axes = _letters(first.ndim - 1), _letters(second.ndim - 1, after=first.ndim - 1)
        return first, second, ContractionAxes(first_axes + "Z", second_axes + "Z", first_axes + second_axes)
    if name == "tensordot":
        return _tensordot(first, second, arguments.get("dims", arguments.get(2, 2)))
    axes = _matmul_axes(first.ndim, second.ndim)
    return first, second, ContractionAxes(axes.first, axes.second, "mn") if name == "addbmm" else axes


def _letters(count: int, after: int = 0) -> str:
    return _ALPHABET[after : after + count]


def _matmul_axes(first_ndim: int, second_ndim: int) -> ContractionAxes:
    """Return the axes of a product with the semantics of torch.matmul, from the numbers of dimensions."""
    batch = "ABCDEFGHIJKL"[: max(first_ndim - 2, second_ndim - 2, 0)]
    rows, columns = "m" if first_ndim > 1 else "", "n" if second_ndim > 1 else ""
    first_axes = batch[len(batch) - max(first_ndim - 2, 0) :] + rows + "k"
    second_axes = batch[len(batch) - max(second_ndim - 2, 0) :] + "k" + columns
    return ContractionAxes(first_axes, second_axes, batch + rows + columns)


def _tensordot(first: Tensor, second: Tensor, dims: Any) -> tuple[Tensor, Tensor, ContractionAxes] | None:
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        pairs = [(first.ndim - dims + i, i) for i in range(dims)]
    else:
        firsts, seconds = (
            [first_axes] if isinstance(first_axes, int) else list(first_axes) for first_axes in dims
        )
        pairs = [(a % first.ndim, b % second.ndim) for a, b in zip(firsts, seconds, strict=True)]
    first_axes, second_axes = list(_letters(first.ndim)), list(_letters(second.ndim, after=first.ndim))
    for a, b in pairs:
        second_axes[b] = first_axes[a]
    summed = {first_axes[a] for a, _ in pairs}
    output = [letter for letter in (*first_axes, *second_axes) if letter not in summed]
    return first, second, ContractionAxes("".join(first_axes), "".join(second_axes), "".join(output))


@dataclass(frozen=True)
class EinsumOperands:
    """Factors of an einsum, the letters of their axes, and the letters of the result."""

    operands: list[Tensor]
    letters: list[str]
    output: str


def _einsum(arguments: Arguments) -> tuple[Tensor, Tensor, ContractionAxes] | None:
    einsum = einsum_operands(arguments)
    if einsum is None or len(einsum.operands) != 2:
        return None
    return (
        einsum.operands[0],
        einsum.operands[1],
        ContractionAxes(einsum.letters[0], einsum.letters[1], einsum.output),
    )


def einsum_operands(arguments: Arguments) -> EinsumOperands | None:
    """Return the operands of an einsum with any ellipsis expanded, or None for a call without an equation."""
    equation, operands = arguments.get(0, arguments.get("equation")), list(_operands(arguments))
    if not isinstance(equation, str):
        return None
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(operands):
        return None
    free = [letter for letter in _ALPHABET if letter not in equation]
    spread = max(
        operand.ndim - len(term.replace("...", "")) for operand, term in zip(operands, terms, strict=True)
    )
    dots = free[: max(spread, 0)]
    letters = [
        _expand_ellipsis(term, operand.ndim, dots) for term, operand in zip(terms, operands, strict=True)
    ]
    if not arrow:
        joined = inputs.replace(",", "").replace(".", "")
        output = "..." + "".join(sorted(letter for letter in set(joined) if joined.count(letter) == 1))
    return EinsumOperands(operands, letters, output.replace("...", "".join(dots)))


def _operands(arguments: Arguments) -> Iterator[Tensor]:
    positional: Sequence[Any] = [
        arguments[position] for position in sorted(key for key in arguments if isinstance(key, int))
    ]
    for value in positional[1:]:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from (item for item in value if isinstance(item, Tensor))


def _expand_ellipsis(term: str, dimensions: int, dots: Sequence[str]) -> str:
    """Return the letters of an operand, with its ellipsis expanded."""
    count = dimensions - len(term.replace("...", ""))
    return term.replace("...", "".join(dots[len(dots) - count :]))
