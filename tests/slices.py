"""Slices of large products of parameters that are fast and still meet every pair of values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest


def pairwise_fast(first: Sequence[Any], second: Sequence[Any], third: Sequence[Any]) -> list[Any]:
    """Return all combinations, of which those outside a covering slice are marked slow.

    In the slice each pair of a first and a second value occurs once, with the third value number i + j modulo
    their count. So every pair with a third value occurs as well, as `third` is the shortest.
    """
    assert len(third) <= min(len(first), len(second))
    return [
        pytest.param(a, b, c, marks=() if k == (i + j) % len(third) else pytest.mark.slow)
        for i, a in enumerate(first)
        for j, b in enumerate(second)
        for k, c in enumerate(third)
    ]


def each_once_fast(first: Sequence[Any], *others: Sequence[Any]) -> list[Any]:
    """Return all combinations; in the fast tests each value of `first` occurs once, with others in turn."""
    turns = list(itertools.product(*others))
    return [
        pytest.param(value, *turn, marks=() if place == number % len(turns) else pytest.mark.slow)
        for number, value in enumerate(first)
        for place, turn in enumerate(turns)
    ]
