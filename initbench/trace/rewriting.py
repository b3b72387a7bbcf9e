"""Rewrite products with several weights, or in an unusual layout, as functions that a tracer supports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from initbench.trace.contraction import einsum_operands
from initbench.trace.provenance import Provenance
from initbench.trace.torch_ops import Arguments

REWRITTEN = frozenset(
    {"einsum", "linalg_multi_dot", "multi_dot", "chain_matmul", "conv_tbc", "linalg_vecdot"}
)
"""Functions that may multiply by several weights, or in a layout that no layer has."""


@dataclass(frozen=True)
class _Factor:
    tensor: Tensor
    letters: str
    is_input: bool
    """Whether the tensor depends on the net's input."""


def rewrite_product(name: str, arguments: Arguments, provenance: Provenance) -> Callable[[], Tensor] | None:
    """Return an equivalent function with one weight at a time, or None if no rewrite is needed."""
    if name == "einsum":
        return _einsum(arguments, provenance)
    if name == "conv_tbc":
        return _convolution(arguments, provenance)
    if name in ("vecdot", "linalg_vecdot"):
        return _dot(arguments, provenance)
    return _chain(arguments, provenance)


def _einsum(arguments: Arguments, provenance: Provenance) -> Callable[[], Tensor] | None:
    einsum = einsum_operands(arguments)
    if einsum is None or len(einsum.operands) < 3 or not _has_weight(einsum.operands, provenance):
        return None
    if any(len(set(letters)) < len(letters) for letters in einsum.letters):  # a diagonal
        return None
    factors = [
        _Factor(tensor, letters, provenance.origin(tensor) is not None)
        for tensor, letters in zip(einsum.operands, einsum.letters, strict=True)
    ]
    return lambda: _contracted(factors, einsum.output)


def _contracted(factors: Sequence[_Factor], output: str) -> Tensor:
    """Return the contraction of all factors, computed two at a time."""
    remaining = [_without_lone_letters(factor, factors, output) for factor in factors]
    while len(remaining) > 1:
        pair = _next_pair(remaining, output)
        remaining = [factor for factor in remaining if not any(factor is member for member in pair)]
        needed = output + "".join(factor.letters for factor in remaining)
        letters = output if not remaining else _needed_letters(pair[0].letters + pair[1].letters, needed)
        equation = f"{pair[0].letters},{pair[1].letters}->{letters}"
        result = torch.einsum(equation, pair[0].tensor, pair[1].tensor)
        remaining.insert(0, _Factor(result, letters, pair[0].is_input or pair[1].is_input))
    return remaining[0].tensor


def _needed_letters(letters: str, needed: str) -> str:
    return "".join(letter for letter in dict.fromkeys(letters) if letter in needed)


def _without_lone_letters(factor: _Factor, factors: Sequence[_Factor], output: str) -> _Factor:
    """Sum a factor over the letters that occur nowhere else."""
    needed = output + "".join(other.letters for other in factors if other is not factor)
    letters = _needed_letters(factor.letters, needed)
    if letters == factor.letters:
        return factor
    summed = [axis for axis, letter in enumerate(factor.letters) if letter not in letters]
    return _Factor(factor.tensor.sum(summed), letters, factor.is_input)


def _next_pair(factors: Sequence[_Factor], output: str) -> tuple[_Factor, _Factor]:
    """Return the two factors to multiply next: an input and a weight that sums over some of its letters.

    Inputs that one weight contracts together, as in a bilinear layer, are multiplied with each other first.
    """
    inputs = [factor for factor in factors if factor.is_input]
    weights = sorted((factor for factor in factors if not factor.is_input), key=lambda f: len(f.letters))
    pair = _bilinear_pair(inputs, weights, output)
    if pair is not None:
        return pair
    pairs = list(product(inputs, weights))
    for factor, weight in pairs:
        others = output + "".join(f.letters for f in factors if f is not factor and f is not weight)
        if any(letter not in others for letter in _shared(factor, weight)):
            return factor, weight
    shared = next((pair for pair in pairs if _shared(*pair)), None)
    return shared or (pairs[0] if pairs else (inputs[0], inputs[1]))


def _bilinear_pair(
    inputs: Sequence[_Factor], weights: Sequence[_Factor], output: str
) -> tuple[_Factor, _Factor] | None:
    for weight in weights if len(inputs) > 1 else ():
        summed = [factor for factor in inputs if any(x not in output for x in _shared(factor, weight))]
        batch_letters = {frozenset(factor.letters) - frozenset(weight.letters) for factor in summed}
        if len(summed) > 1 and len(batch_letters) == 1:
            return summed[0], summed[1]
    return None


def _shared(first: _Factor, second: _Factor) -> str:
    return "".join(letter for letter in first.letters if letter in second.letters)


def _chain(arguments: Arguments, provenance: Provenance) -> Callable[[], Tensor] | None:
    """Return a function that multiplies from the first input, to the right and then to the left."""
    matrices = arguments.get(0, arguments.get("tensors"))
    if isinstance(matrices, Tensor):
        matrices = [arguments[index] for index in sorted(key for key in arguments if isinstance(key, int))]
    if not isinstance(matrices, tuple | list) or not _has_weight(matrices, provenance):
        return None
    start = next(index for index, matrix in enumerate(matrices) if provenance.origin(matrix) is not None)

    def run() -> Tensor:
        result = matrices[start]
        for matrix in matrices[start + 1 :]:
            result = result @ matrix
        for matrix in matrices[:start][::-1]:
            result = matrix @ result
        return result  # type: ignore[no-any-return]

    return run


def _convolution(arguments: Arguments, provenance: Provenance) -> Callable[[], Tensor] | None:
    """Return a function that computes conv_tbc, x (T, B, in) and weight (T, in, out), by conv1d."""
    words = ("input", "weight", "bias", "pad")
    x, weight, bias, pad = (
        arguments.get(position, arguments.get(word)) for position, word in enumerate(words)
    )
    if (
        not isinstance(x, Tensor)
        or not isinstance(weight, Tensor)
        or not _has_weight((x, weight), provenance)
    ):
        return None

    def run() -> Tensor:
        turned = F.conv1d(x.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad or 0)
        return turned.permute(2, 0, 1)

    return run


def _dot(arguments: Arguments, provenance: Provenance) -> Callable[[], Tensor] | None:
    """Return a function that sums an elementwise product over an axis."""
    first, second = arguments.get(0, arguments.get("x")), arguments.get(1, arguments.get("y"))
    if (
        not isinstance(first, Tensor)
        or not isinstance(second, Tensor)
        or not _has_weight((first, second), provenance)
    ):
        return None
    if first.is_complex() or second.is_complex():
        return None
    return lambda: (first * second).sum(arguments.get("dim", -1))


def _has_weight(factors: Iterable[Any], provenance: Provenance) -> bool:
    """Whether the factors include both a weight and a tensor that depends on the input."""
    several = list(factors)
    return any(provenance.origin(x) is not None for x in several) and any(
        provenance.parameters_of(x) for x in several
    )
