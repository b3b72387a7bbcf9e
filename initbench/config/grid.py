"""Grid of a sweep: its axes, from the file and the command line, and the points that they span."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from initbench.config.overrides import KEY, Override
from initbench.config.study import MOST_POINTS, NOT_SWEPT, SweepConfig
from initbench.config.validation_errors import KeyPath, dotted_key
from initbench.config.yaml_reader import Document
from initbench.errors import ConfigIssue

LONGEST = 95
"""Maximum length of an experiment's name; `.tune` can still be appended."""
_SAYS_NOTHING = ("none", "auto", "default", "plain")
"""Words that are meaningful only together with their key."""

Keys = Mapping[str, Any]
"""Mapping from dotted key to value."""
Point = Mapping[str, Override]
"""Mapping from dotted key to the override that sets it."""


@dataclass(frozen=True)
class SweepGrid:
    """Points of a sweep, and the overrides that apply to all of them."""

    points: tuple[Point, ...]
    plain: tuple[Override, ...]
    """Overrides that apply to every point."""
    is_changed: bool
    """Whether the command line has changed the file's axes."""
    excluded: int
    """Number of points that the file excludes."""


def resolve_grid(
    config: SweepConfig, document: Document, overrides: Sequence[Override]
) -> tuple[SweepGrid | None, list[ConfigIssue]]:
    """Return the points of `config` under `overrides`, None if there are faults, and the faults."""
    reader = _GridReader(config, document, overrides)
    reader.read()
    grid = None if reader.faults else reader.grid()
    return (None, reader.faults) if reader.faults else (grid, [])


@dataclass
class _GridReader:
    config: SweepConfig
    document: Document
    overrides: Sequence[Override]
    faults: list[ConfigIssue] = field(default_factory=list)
    product: dict[str, list[Override]] = field(default_factory=dict)
    together: dict[str, list[Override]] = field(default_factory=dict)
    include: list[dict[str, Override]] = field(default_factory=list)
    plain: list[Override] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)

    def read(self) -> None:
        """Collect the axes, those of the file first."""
        self._check_file()
        for name, axes, target in (
            ("grid", self.config.grid, self.product),
            ("zip", self.config.zip, self.together),
        ):
            for key, values in axes.items():
                target[key] = [self._from_file((name, key, i), key, value) for i, value in enumerate(values)]
        for i, keys in enumerate(self.config.include):
            self.include.append(
                {key: self._from_file(("include", i, key), key, value) for key, value in keys.items()}
            )
        for override in self.overrides:
            self._apply_override(override)
        lengths = {len(cells) for cells in self.together.values()}
        if len(lengths) > 1:
            lengths_text = ", ".join(f"{key} has {len(cells)}" for key, cells in self.together.items())
            where = next(
                override.where for override in self.overrides if dotted_key(override.path) in self.together
            )
            self.faults.append(
                ConfigIssue(where, "zip", f"needs equally many values for each key: {lengths_text}")
            )

    def grid(self) -> SweepGrid | None:
        """Return the points that the axes span, without the excluded ones, followed by the included ones."""
        axes = axes_of(self.product, self.together)
        if count_points(axes) > MOST_POINTS:
            problem = f"spans {count_points(axes):,} points; the limit is {MOST_POINTS:,}"
            self.faults.append(self._issue(("grid",), problem, of_key=False))
            return None
        spanned = list(expand_axes(axes)) if axes or not self.include else []
        remaining = [point for point in spanned if not self._is_excluded(point)]
        points = (*remaining, *self.include)
        if not points:
            self.faults.append(self._issue(("exclude",), "leaves no point", of_key=False))
            return None
        return SweepGrid(points, tuple(self.plain), bool(self.changed), len(spanned) - len(remaining))

    def _apply_override(self, override: Override) -> None:
        """Add a list of values as an axis; a single value replaces an axis or applies to every point."""
        key = dotted_key(override.path)
        if override.is_axis and override.path == ("seeds",):
            self.plain.append(Override(override.path, override.value, override.text))
            return
        axis = self.product if key in self.product else self.together if key in self.together else None
        if axis is None and not override.is_axis:
            self.plain.append(override)
            return
        if override.path[0] in NOT_SWEPT:
            problem = "cannot be an axis: each point takes it from the sweep"
            self.faults.append(ConfigIssue(override.where, key, problem))
            return
        self.changed.add(key)
        values = override.value if override.is_axis else [override.value]
        cells = [Override(override.path, value, override.text) for value in values]
        if axis is self.together and axis is not None and len(cells) == 1:
            cells *= len(axis[key])
        (self.product if axis is None else axis)[key] = cells
        if not override.is_axis:
            self.include = [{**extra, key: cells[0]} if key in extra else extra for extra in self.include]

    def _is_excluded(self, point: Point) -> bool:
        keys = keys_of(point)
        return any(point_matches(keys, wanted) for wanted in self.config.exclude)

    def _check_file(self) -> None:
        grid, together = self.config.grid, self.config.zip
        lists: list[tuple[KeyPath, Keys]] = [(("grid",), grid), (("zip",), together)]
        lists += [(("include", i), keys) for i, keys in enumerate(self.config.include)]
        lists += [(("exclude", i), keys) for i, keys in enumerate(self.config.exclude)]
        for path, keys in lists:
            for key in keys:
                self.faults += self._key_issues((*path, key), key)
        both = [key for key in together if key in grid]
        self.faults += [self._issue(("zip", key), "is also a key of grid") for key in both]
        self.faults += self._exclusion_issues({**grid, **together})

    def _key_issues(self, path: KeyPath, key: str) -> Iterator[ConfigIssue]:
        if not KEY.fullmatch(key):
            yield self._issue(path, f"{key!r} is not a key such as train.lr")
        elif key.partition(".")[0] in NOT_SWEPT:
            advice = "; set seeds at the top level" if key == "seeds" else ""
            yield self._issue(path, f"cannot be an axis: each point takes it from the sweep{advice}")
        elif self.config.tune is not None and key == self.config.tune.key:
            yield self._issue(path, "is tuned for each point, under tune; leave it out here")

    def _exclusion_issues(self, axes: Mapping[str, Sequence[Any]]) -> Iterator[ConfigIssue]:
        """Yield a fault for each excluded key or value that no axis has: a typo would exclude nothing."""
        for i, wanted in enumerate(self.config.exclude):
            for key, value in wanted.items():
                path = ("exclude", i, key)
                if key not in axes:
                    yield self._issue(path, "is a key of neither grid nor zip")
                elif not any(equal_values(value, axis_value) for axis_value in axes[key]):
                    yield self._issue(path, "is none of the values that the key takes", of_key=False)

    def _from_file(self, path: KeyPath, key: str, value: Any) -> Override:
        return Override(tuple(key.split(".")), value, key, self.document.where(path))

    def _issue(self, path: KeyPath, problem: str, *, of_key: bool = True) -> ConfigIssue:
        return ConfigIssue(self.document.where(path, of_key=of_key), dotted_key(path), problem)


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


def keys_of(point: Point) -> dict[str, Any]:
    """Return the values of a point by key."""
    return {key: override.value for key, override in point.items()}


def point_matches(point: Keys, wanted: Keys) -> bool:
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
