"""Products of an input and a weight that are written as functions of two tensors, axis by axis.

An axis is a letter, as einsum writes it. What the weight shares with the input and the output lacks is summed
over; what only the weight and the output have counts its units; what all three have counts groups.
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
"""Functions that multiply and sum, and the places of their two factors."""

_NAMES = {"matmul": ("input", "other"), "inner": ("input", "other"), "tensordot": ("a", "b")}
_ADDED = {"addmm": ("mat1", "mat2"), "addmv": ("mat", "vec")}
_BATCHED = ("batch1", "batch2")
_OTHERS = {"mm": ("input", "mat2"), "bmm": ("input", "mat2"), "mv": ("input", "vec")}
_KEYWORDS = {**_NAMES, **_ADDED, **_OTHERS, "baddbmm": _BATCHED, "addbmm": _BATCHED}
_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class ContractionAxes:
    """The letters of two factors and of their product."""

    left: str
    right: str
    output: str

    def turned(self) -> ContractionAxes:
        """The same with the factors in the other order."""
        return ContractionAxes(self.right, self.left, self.output)


@dataclass(frozen=True)
class Contraction:
    """How a weight enters a product: which of its axes, and of those of the output, tell units apart."""

    shape: tuple[int, ...]
    """Of the weight."""
    letters: str
    """Of the weight; a blank where it repeats itself along an axis."""
    groups: str
    units_of_group: str
    columns: str
    """Letters that are summed over."""
    output: str

    @property
    def fan_in(self) -> int:
        """Terms in the sum of one output."""
        return self._size(self.columns)

    @property
    def fan_out(self) -> int:
        """Outputs that one input enters: the units of one group."""
        return self._size(self.units_of_group)

    @property
    def rows(self) -> str:
        """Letters of groups, then of units."""
        return self.groups + self.units_of_group

    @property
    def units(self) -> int:
        """Outputs that differ in their weights."""
        return self._size(self.rows)

    def _size(self, letters: str) -> int:
        return math.prod(self.shape[self.letters.index(letter)] for letter in letters)

    def weight_rows(self, weight: Tensor) -> Tensor:
        """The weight as (units, fan_in)."""
        return self._arranged(weight, lambda tensor, axis: tensor.select(axis, 0))

    def gradient_rows(self, gradient: Tensor) -> Tensor:
        """A gradient of the weight's shape as (units, fan_in): summed where the weight repeats itself."""
        return self._arranged(gradient, lambda tensor, axis: tensor.sum(axis))

    def _arranged(self, tensor: Tensor, reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
        for axis in reversed(range(tensor.ndim)):
            if self.letters[axis] == " ":
                tensor = reduce(tensor, axis)
        letters = self.letters.replace(" ", "")
        order = [letters.index(letter) for letter in self.rows + self.columns]
        return tensor.permute(order).reshape(self.units, self.fan_in)

    def units_second(self, output: Tensor) -> Tensor:
        """The output as (samples, units, …)."""
        others = [axis for axis, letter in enumerate(self.output) if letter not in self.rows]
        rows = [self.output.index(letter) for letter in self.rows]
        turned = output.permute([*others[:1], *rows, *others[1:]])
        first = len(others[:1])
        shape = [*turned.shape[:first], self.units, *turned.shape[first + len(rows) :]]
        turned = turned.reshape(shape)
        return turned if first else turned[None]


def contraction_of(x: Tensor, weight: Tensor, x_axes: str, axes: str, output: str) -> Contraction | None:
    """The product of x with a weight by their letters; None where no unit is a sum over inputs."""
    letters = "".join(
        " " if _repeats(weight, place, letter, x, x_axes) else letter for place, letter in enumerate(axes)
    )
    held = letters.replace(" ", "")
    if len(set(held)) < len(held) or len(set(x_axes)) < len(x_axes):
        return None
    broadcast = {letter for letter in x_axes if letter in held and x.shape[x_axes.index(letter)] == 1}
    wide = {letter for letter in broadcast if weight.shape[letters.index(letter)] > 1}
    own = set(x_axes) - wide
    columns = "".join(letter for letter in held if letter in own and letter not in output)
    shared = "".join(letter for letter in held if letter in own and letter in output)
    units = "".join(letter for letter in held if letter not in own and letter in output)
    if not columns or len(columns) + len(shared) + len(units) < len(held):
        return None
    return Contraction(tuple(weight.shape), letters, shared, units, columns, output)


def _repeats(weight: Tensor, place: int, letter: str, x: Tensor, x_axes: str) -> bool:
    """Whether the weight is the same all along one of its axes, though the input is not: it was expanded."""
    if letter not in x_axes:
        return False
    size, along = weight.shape[place], x.shape[x_axes.index(letter)]
    if size == 1:
        return along > 1
    if weight.stride(place) == 0:
        return True
    is_batch = x_axes.index(letter) == 0 and weight.ndim > 2
    return is_batch and bool((weight.detach() == weight.detach().select(place, 0).unsqueeze(place)).all())


def factors_of(name: str, given: Arguments) -> tuple[Tensor, Tensor, ContractionAxes] | None:
    """The two factors of a product and the letters of their axes; None for what is not written as one."""
    if name == "einsum":
        return _einsum(given)
    words = _KEYWORDS.get(name, ("", ""))
    left, right = (given.get(i, given.get(word)) for i, word in zip(PRODUCTS[name], words, strict=True))
    if not isinstance(left, Tensor) or not isinstance(right, Tensor) or not (left.ndim and right.ndim):
        return None
    if name == "inner":
        one, other = _letters(left.ndim - 1), _letters(right.ndim - 1, after=left.ndim - 1)
        return left, right, ContractionAxes(one + "Z", other + "Z", one + other)
    if name == "tensordot":
        return _tensordot(left, right, given.get("dims", given.get(2, 2)))
    axes = _matmul(left.ndim, right.ndim)
    return left, right, ContractionAxes(axes.left, axes.right, "mn") if name == "addbmm" else axes


def _letters(count: int, after: int = 0) -> str:
    return _ALPHABET[after : after + count]


def _matmul(left: int, right: int) -> ContractionAxes:
    """Of a tensor product as torch.matmul has it, by the dimensions of its factors."""
    batch = "ABCDEFGHIJKL"[: max(left - 2, right - 2, 0)]
    rows, columns = "m" if left > 1 else "", "n" if right > 1 else ""
    one = batch[len(batch) - max(left - 2, 0) :] + rows + "k"
    other = batch[len(batch) - max(right - 2, 0) :] + "k" + columns
    return ContractionAxes(one, other, batch + rows + columns)


def _tensordot(left: Tensor, right: Tensor, dims: Any) -> tuple[Tensor, Tensor, ContractionAxes] | None:
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        pairs = [(left.ndim - dims + i, i) for i in range(dims)]
    else:
        firsts, seconds = ([one] if isinstance(one, int) else list(one) for one in dims)
        pairs = [(a % left.ndim, b % right.ndim) for a, b in zip(firsts, seconds, strict=True)]
    one, other = list(_letters(left.ndim)), list(_letters(right.ndim, after=left.ndim))
    for a, b in pairs:
        other[b] = one[a]
    summed = {one[a] for a, _ in pairs}
    output = [letter for letter in (*one, *other) if letter not in summed]
    return left, right, ContractionAxes("".join(one), "".join(other), "".join(output))


@dataclass(frozen=True)
class SpeltOperands:
    """The factors of an einsum, the letters of their axes, and those of the result."""

    operands: list[Tensor]
    letters: list[str]
    output: str


def _einsum(given: Arguments) -> tuple[Tensor, Tensor, ContractionAxes] | None:
    spelt = spelt_operands(given)
    if spelt is None or len(spelt.operands) != 2:
        return None
    return (
        spelt.operands[0],
        spelt.operands[1],
        ContractionAxes(spelt.letters[0], spelt.letters[1], spelt.output),
    )


def spelt_operands(given: Arguments) -> SpeltOperands | None:
    """Return what an einsum multiplies, an ellipsis written out; None where its equation is not given."""
    equation, operands = given.get(0, given.get("equation")), list(_operands(given))
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
    spelt = [_spelt(term, operand.ndim, dots) for term, operand in zip(terms, operands, strict=True)]
    if not arrow:
        joined = inputs.replace(",", "").replace(".", "")
        output = "..." + "".join(sorted(letter for letter in set(joined) if joined.count(letter) == 1))
    return SpeltOperands(operands, spelt, output.replace("...", "".join(dots)))


def _operands(given: Arguments) -> Iterator[Tensor]:
    places: Sequence[Any] = [given[place] for place in sorted(key for key in given if isinstance(key, int))]
    for value in places[1:]:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from (item for item in value if isinstance(item, Tensor))


def _spelt(term: str, dimensions: int, dots: Sequence[str]) -> str:
    """An operand's letters, with those that its ellipsis stands for."""
    count = dimensions - len(term.replace("...", ""))
    return term.replace("...", "".join(dots[len(dots) - count :]))
