"""Points of a grid: the combinations of axis values, and their labels."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

LONGEST = 95
"""Maximum length of an experiment's name; `.tune` can still be appended."""
_SAYS_NOTHING = ("none", "auto", "default", "plain")
"""Words that are meaningful only together with their key."""

Keys = Mapping[str, Any]
"""Mapping from dotted key to value."""


@dataclass(frozen=True)
class Axis:
    """Keys that change together; each of `steps` has one value per key."""

    keys: tuple[str, ...]
    steps: tuple[tuple[Any, ...], ...]


def axes_of(grid: Mapping[str, Sequence[Any]], together: Mapping[str, Sequence[Any]]) -> list[Axis]:
    """Return one axis per key of the grid, in order, then one for all keys of `zip` (changes fastest)."""
    axes = [Axis((key,), tuple((value,) for value in values)) for key, values in grid.items()]
    if together:
        axes.append(Axis(tuple(together), tuple(zip(*together.values(), strict=True))))
    return axes


def count_points(axes: Iterable[Axis]) -> int:
    """Count the points that the axes span."""
    return prod(len(axis.steps) for axis in axes)


def expand_axes(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """Yield all combinations of the axes' steps, last axis fastest; one empty point without axes."""
    keys = [key for axis in axes for key in axis.keys]
    for steps in itertools.product(*(axis.steps for axis in axes)):
        yield dict(zip(keys, itertools.chain.from_iterable(steps), strict=True))


def matches(point: Keys, wanted: Keys) -> bool:
    """Return whether a point has all keys of `wanted` with the same values."""
    return all(key in point and equal_values(point[key], value) for key, value in wanted.items())


def equal_values(first: Any, second: Any) -> bool:
    """Return whether two config values are equal: 1 and 1.0 are, 1 and true are not."""
    return bool(_canonical(first) == _canonical(second))


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _canonical(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_canonical(inner) for inner in value]
    return (isinstance(value, bool), value)


def point_label(keys: Keys) -> str:
    """Return a label of letters, digits, dots, dashes and underscores, such as `xavier_normal_depth10`.

    The label depends on the point alone, so adding a value to an axis renames no other point. Words appear
    alone, numbers after the last part of their key. If other characters had to be replaced, a hash follows.
    """
    parts = [_word(key, value) for key, value in keys.items()]
    spelled = [re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-") for part in parts]
    label = "_".join(spelled)
    return label if spelled == parts else f"{label}-{short_hash(keys)}"


def point_name(sweep: str, label: str) -> str:
    """Return the name of a point's experiment; names that are too long are cut and end in a hash."""
    name = f"{sweep}.{label}" if label else sweep
    if len(name) <= LONGEST:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: LONGEST - 9].rstrip('._-')}-{mark}"


def short_hash(keys: Keys) -> str:
    """Return six hex digits that distinguish points with the same label."""
    text = json.dumps(keys, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]


def _word(key: str, value: Any) -> str:
    last = key.rpartition(".")[2]
    if isinstance(value, str):
        return f"{last}_{value}" if value in _SAYS_NOTHING or not value else value
    if value is None or isinstance(value, bool):
        return f"{last}_{json.dumps(value)}"
    if isinstance(value, dict):
        return "_".join(_word(inner, value[inner]) for inner in value) or f"{last}_empty"
    if isinstance(value, list):
        return last + "-".join(_word("", inner).strip("_") for inner in value)
    return f"{last}{value!r}"
