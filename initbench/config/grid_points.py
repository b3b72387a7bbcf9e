"""From axes to points: which combinations of values there are, and what each is called."""

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
"""Characters of an experiment's name: `.tune` still fits behind it."""
_SAYS_NOTHING = ("none", "auto", "default", "plain")
"""Words that mean something only beside their key."""

Keys = Mapping[str, Any]
"""Dotted key → value."""


@dataclass(frozen=True)
class Axis:
    """Keys that change together: each of `steps` has a value for every one of them."""

    keys: tuple[str, ...]
    steps: tuple[tuple[Any, ...], ...]


def axes_of(grid: Mapping[str, Sequence[Any]], together: Mapping[str, Sequence[Any]]) -> list[Axis]:
    """An axis for each key of the grid, in order, and one for all keys of `zip`, which changes fastest."""
    axes = [Axis((key,), tuple((value,) for value in values)) for key, values in grid.items()]
    if together:
        axes.append(Axis(tuple(together), tuple(zip(*together.values(), strict=True))))
    return axes


def count_points(axes: Iterable[Axis]) -> int:
    """How many points the axes span."""
    return prod(len(axis.steps) for axis in axes)


def expand_axes(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """Every combination of the axes' steps, the last axis changing fastest; one empty point without axes."""
    keys = [key for axis in axes for key in axis.keys]
    for steps in itertools.product(*(axis.steps for axis in axes)):
        yield dict(zip(keys, itertools.chain.from_iterable(steps), strict=True))


def matches(point: Keys, wanted: Keys) -> bool:
    """Whether a point has all of these keys, with these values."""
    return all(key in point and equal_values(point[key], value) for key, value in wanted.items())


def equal_values(first: Any, second: Any) -> bool:
    """Whether two values of a config mean the same: 1 and 1.0 do, 1 and true do not."""
    return bool(_canonical(first) == _canonical(second))


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _canonical(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_canonical(inner) for inner in value]
    return (isinstance(value, bool), value)


def point_label(keys: Keys) -> str:
    """The point in a word of letters, digits, dots, dashes and underscores: `xavier_normal_depth10`.

    It depends on the point alone, so that another value of an axis renames no other point. Words stand for
    themselves, numbers behind the last part of their key. What cannot be spelled so has a hash behind it.
    """
    parts = [_word(key, value) for key, value in keys.items()]
    spelled = [re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-") for part in parts]
    label = "_".join(spelled)
    return label if spelled == parts else f"{label}-{short_hash(keys)}"


def point_name(sweep: str, label: str) -> str:
    """The name of a point's experiment, shortened by a hash where it would be too long."""
    name = f"{sweep}.{label}" if label else sweep
    if len(name) <= LONGEST:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: LONGEST - 9].rstrip('._-')}-{mark}"


def short_hash(keys: Keys) -> str:
    """Six letters that tell points of one label apart."""
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
