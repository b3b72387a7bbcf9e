"""Axes of a sweep, from its file and the command line, and the points that they span."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from initbench.config import grid_points
from initbench.config.overrides import KEY, Override
from initbench.config.sweep_schema import MOST_POINTS, NOT_SWEPT, SweepConfig
from initbench.config.validation_errors import KeyPath, dotted_key
from initbench.config.yaml_reader import Document
from initbench.errors import ConfigIssue


@dataclass(frozen=True)
class AxisValue:
    """Value of a key at a point, and its source."""

    value: Any
    position: str = ""
    """`file:line:column` of a value from a file."""
    text: str = ""
    """Argument of a value from the command line."""


@dataclass(frozen=True)
class ResolvedAxes:
    """Points of a sweep, with the overrides and changes from the command line."""

    points: tuple[Mapping[str, AxisValue], ...]
    plain: tuple[Override, ...]
    """Overrides that apply to every point."""
    overridden_keys: frozenset[str]
    """Keys that the command line sets."""
    is_changed: bool
    """Whether the command line has changed the file's axes."""
    excluded: int
    tune_position: str


def resolve_axes(
    config: SweepConfig, document: Document, file: str, overrides: Sequence[Override]
) -> tuple[ResolvedAxes | None, list[ConfigIssue]]:
    """Return the points of `config` under `overrides`, None if there are faults, and the faults."""
    reader = _SweepAxes(config, document, file, overrides)
    reader.read()
    if reader.faults:
        return None, reader.faults
    spanned = reader.points()
    return (None, reader.faults) if spanned is None else (spanned, [])


@dataclass
class _SweepAxes:
    config: SweepConfig
    document: Document
    file: str
    overrides: Sequence[Override]
    faults: list[ConfigIssue] = field(default_factory=list)
    grid: dict[str, list[AxisValue]] = field(default_factory=dict)
    together: dict[str, list[AxisValue]] = field(default_factory=dict)
    include: list[dict[str, AxisValue]] = field(default_factory=list)
    plain: list[Override] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)

    def read(self) -> None:
        """Collect the axes, those of the file first."""
        self._check_file()
        for name, axes in (("grid", self.config.grid or {}), ("zip", self.config.zip or {})):
            target = self.grid if name == "grid" else self.together
            for key, values in axes.items():
                target[key] = [AxisValue(v, self._position_of((name, key, i))) for i, v in enumerate(values)]
        for i, keys in enumerate(self.config.include or []):
            self.include.append(
                {k: AxisValue(v, self._position_of(("include", i, k))) for k, v in keys.items()}
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

    def points(self) -> ResolvedAxes | None:
        """Return the points that the axes span, without the excluded ones, followed by the included ones."""
        axes = grid_points.axes_of(self.grid, self.together)
        if grid_points.count_points(axes) > MOST_POINTS:
            problem = f"spans {grid_points.count_points(axes):,} points; the limit is {MOST_POINTS:,}"
            self.faults.append(ConfigIssue(self._position_of(("grid",)), "grid", problem))
            return None
        spanned = list(grid_points.expand_axes(axes)) if axes or not self.include else []
        included = [cells for cells in spanned if not self._is_excluded(cells)]
        points = [*included, *self.include]
        if not points:
            self.faults.append(ConfigIssue(self._position_of(("exclude",)), "exclude", "leaves no point"))
            return None
        return ResolvedAxes(
            points=tuple(points),
            plain=tuple(self.plain),
            overridden_keys=frozenset(dotted_key(override.path) for override in self.overrides),
            is_changed=bool(self.changed),
            excluded=len(spanned) - len(included),
            tune_position=self._tune_position(),
        )

    def _apply_override(self, override: Override) -> None:
        """Add a list of values as an axis; a single value replaces an axis or applies to every point."""
        key = dotted_key(override.path)
        if override.is_axis and override.path == ("seeds",):
            self.plain.append(Override(override.path, override.value, override.text))
            return
        axis = self.grid if key in self.grid else self.together if key in self.together else None
        if axis is None and not override.is_axis:
            self.plain.append(override)
            return
        if override.path[0] in NOT_SWEPT:
            self.faults.append(ConfigIssue(override.where, key, "is no axis: a point has it from its sweep"))
            return
        self.changed.add(key)
        values = override.value if override.is_axis else [override.value]
        cells = [AxisValue(value, text=override.text) for value in values]
        if axis is self.together and axis is not None and len(cells) == 1:
            cells *= len(axis[key])
        (self.grid if axis is None else axis)[key] = cells
        if not override.is_axis:
            self.include = [{**extra, key: cells[0]} if key in extra else extra for extra in self.include]

    def _is_excluded(self, cells: Mapping[str, AxisValue]) -> bool:
        keys = {key: cell.value for key, cell in cells.items()}
        return any(grid_points.matches(keys, wanted) for wanted in self.config.exclude or [])

    def _check_file(self) -> None:
        grid, together = self.config.grid or {}, self.config.zip or {}
        lists: list[tuple[KeyPath, Mapping[str, Any]]] = [(("grid",), grid), (("zip",), together)]
        for name in ("include", "exclude"):
            lists += [((name, i), keys) for i, keys in enumerate(getattr(self.config, name) or [])]
        for path, keys in lists:
            for key in keys:
                self.faults += self._key_issues((*path, key), key)
        for key in grid.keys() & together.keys():
            self._add_issue(("zip", key), "stands in grid as well")
        self.faults += self._exclusion_issues({**grid, **together})

    def _key_issues(self, path: KeyPath, key: str) -> Iterator[ConfigIssue]:
        if not KEY.fullmatch(key):
            yield self._issue(path, f"{key!r} is not a key such as train.lr")
        elif key.partition(".")[0] in NOT_SWEPT:
            beside = "; give seeds beside grid" if key == "seeds" else ""
            yield self._issue(path, f"is no axis: a point has it from its sweep{beside}")
        elif self.config.tune is not None and key == self.config.tune.key:
            yield self._issue(path, "is tuned for each point, under tune; leave it out here")

    def _exclusion_issues(self, axes: Mapping[str, Sequence[Any]]) -> Iterator[ConfigIssue]:
        """Yield a fault for each excluded key or value that no axis has: a typo would exclude nothing."""
        for i, wanted in enumerate(self.config.exclude or []):
            for key, value in wanted.items():
                if key not in axes:
                    yield self._issue(("exclude", i, key), "is a key of neither grid nor zip")
                elif not any(grid_points.equal_values(value, axis_value) for axis_value in axes[key]):
                    yield self._issue(
                        ("exclude", i, key), "is none of the values that the key takes", value=True
                    )

    def _add_issue(self, path: KeyPath, problem: str) -> None:
        self.faults.append(self._issue(path, problem))

    def _issue(self, path: KeyPath, problem: str, *, value: bool = False) -> ConfigIssue:
        return ConfigIssue(self._position_of(path, of_key=not value), dotted_key(path), problem)

    def _tune_position(self) -> str:
        return (
            "" if self.config.tune is None else self._position_of(("tune", self.config.tune.key), of_key=True)
        )

    def _position_of(self, path: KeyPath, *, of_key: bool = False) -> str:
        positions = self.document.positions
        for end in range(len(path), 0, -1):
            position = (positions.key if of_key or end < len(path) else positions.value)(path[:end])
            if position is not None:
                return f"{self.file}:{position[0]}:{position[1]}"
        return f"{self.file}:1:1"
