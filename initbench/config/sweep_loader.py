"""Loader of sweep files: builds the experiments, and reports each fault with its position."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from initbench.config import grid_points
from initbench.config.grid_axes import AxisValue, ResolvedAxes, resolve_axes
from initbench.config.loading import read_document, validate_document
from initbench.config.overrides import Override, apply_overrides
from initbench.config.schema import ExperimentConfig
from initbench.config.sweep_schema import (
    LONGEST_NAME,
    NAME,
    NOT_SWEPT,
    Point,
    SkippedPoint,
    Sweep,
    SweepConfig,
)
from initbench.config.tuning_schema import tuning_candidates
from initbench.config.validation_errors import KeyPath, dotted_key
from initbench.config.yaml_reader import REFUSED, Document, Positions
from initbench.errors import ConfigIssue

Check = Callable[[Mapping[str, Any], Sequence[str], bool], Iterable[tuple[KeyPath, str]]]
"""Function (data, point labels, whether overrides changed the axes) → faults that the schema cannot see."""
_MAX_NAMED = 3
_NAME = (
    f"a sweep needs a name of up to {LONGEST_NAME} letters, digits, dots, dashes and underscores, beginning"
    " with a letter or digit"
)


def read_sweep(
    document: Document,
    file: str,
    overrides: Sequence[Override],
    check: Check,
    *,
    skip_invalid: bool = False,
) -> tuple[Sweep | None, list[ConfigIssue]]:
    """Read the sweep of a document under `overrides`, None if it has faults, and the faults.

    An experiment is a sweep whose axes are among the overrides. With `skip_invalid`, points that cannot be
    built are skipped, as long as others remain.
    """
    if document.data.get("kind", "experiment") == "experiment":
        return _read_experiment(document, file, overrides, check, skip_invalid=skip_invalid)
    config, faults = validate_document(SweepConfig, document, file, ())
    base, problems = _read_base(document, file)
    faults += problems
    if config is None or base is None or faults:
        return None, faults
    return _build_sweep(config, document, file, base, overrides, check, skip_invalid)


def _read_experiment(
    document: Document, file: str, overrides: Sequence[Override], check: Check, *, skip_invalid: bool
) -> tuple[Sweep | None, list[ConfigIssue]]:
    if document.faults:
        return None, document.faults
    name = document.data.get("name")
    if not _is_name(name) and not any(override.path == ("name",) for override in overrides):
        return None, [_issue(file, document.positions.value(["name"]), ("name",), _NAME)]
    config = SweepConfig.model_construct(kind="sweep", name=str(name), base=file)
    return _build_sweep(
        config, document, file, _BaseExperiment(document, file), overrides, check, skip_invalid
    )


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= LONGEST_NAME and re.fullmatch(NAME, name) is not None


def _renamed(
    config: SweepConfig, overrides: Sequence[Override]
) -> tuple[SweepConfig, list[Override], list[ConfigIssue]]:
    """Return the sweep with any name from the command line, the other overrides, and faults of the name."""
    name_overrides = [override for override in overrides if override.path == ("name",)]
    rest = [override for override in overrides if override.path != ("name",)]
    faults = [
        ConfigIssue(override.where, "name", _NAME)
        for override in name_overrides
        if not _is_name(override.value)
    ]
    return (
        config.model_copy(update={"name": name_overrides[-1].value} if name_overrides else {}),
        rest,
        faults,
    )


@dataclass(frozen=True)
class _BaseExperiment:
    """Experiment that all points share."""

    document: Document
    file: str


def _read_base(document: Document, file: str) -> tuple[_BaseExperiment | None, list[ConfigIssue]]:
    base = document.data.get("base")
    node = document.positions.find(("base",))
    if node is None or not isinstance(base, str | dict) or base == REFUSED:
        return None, []  # reported by the schema
    if isinstance(base, dict):
        key_position = document.positions.key
        faults = [
            _issue(
                file, key_position(("base", key)), ("base", key), "belongs to the sweep; leave it out here"
            )
            for key in NOT_SWEPT[:3]
            if key in base
        ]
        return _BaseExperiment(Document(base, Positions(node), []), file), faults
    path = base if file == "<stdin>" else str(Path(file).parent / base)
    base_document, faults = read_document(path, path)
    if base_document is None:
        return None, [
            _issue(file, node.position, ("base",), f"{fault.where} {fault.problem}") for fault in faults
        ]
    return (
        (None, base_document.faults) if base_document.faults else (_BaseExperiment(base_document, path), [])
    )


def _build_sweep(
    config: SweepConfig,
    document: Document,
    file: str,
    base: _BaseExperiment,
    overrides: Sequence[Override],
    check: Check,
    skip_invalid: bool,
) -> tuple[Sweep | None, list[ConfigIssue]]:
    config, rest, unfit = _renamed(config, overrides)
    axes, faults = resolve_axes(config, document, file, rest)
    if axes is None or faults or unfit:
        return None, unfit + faults
    builder = _SweepBuilder(config, base, axes)
    builder.build()
    labels = builder.labels
    faults = [
        _issue(file, _nearest_position(document, path), path, problem)
        for path, problem in check(document.data, labels, axes.is_changed)
    ]
    if builder.invalid and not (skip_invalid and builder.points):
        faults += builder.merged_faults()
    if faults:
        return None, faults
    return builder.sweep(), []


class _SweepBuilder:
    """Builder of the experiment of each point, which also collects their faults."""

    def __init__(self, config: SweepConfig, base: _BaseExperiment, axes: ResolvedAxes) -> None:
        self.labels: list[str] = []
        self.points: list[Point] = []
        self.invalid: list[SkippedPoint] = []
        self._config, self._base, self._axes = config, base, axes
        self._tune = None if config.tune is None or config.tune.key in axes.overridden_keys else config.tune
        self._tune_place = axes.tune_position
        line, column = base.document.positions.value(("name",)) or (1, 1)
        self._place_of_name = f"{base.file}:{line}:{column}"
        self._same: dict[str, str] = {}
        self._known: dict[str, str] = {}

    def build(self) -> None:
        """Build the experiments of all points."""
        labels: set[str] = set()
        for cells in self._axes.points:
            keys = {key: cell.value for key, cell in cells.items()}
            label = grid_points.point_label(keys)
            if label in labels:
                label = f"{label}-{grid_points.short_hash(keys)}"
            if label not in labels:  # otherwise the same point is written twice
                labels.add(label)
                self.labels.append(label)
                self._add_point(label, keys, cells)

    def _add_point(self, label: str, keys: dict[str, Any], cells: Mapping[str, AxisValue]) -> None:
        overrides = self._overrides(label, cells)
        config, faults = validate_document(ExperimentConfig, self._base.document, self._base.file, overrides)
        candidates: list[ExperimentConfig] = []
        if config is not None and not faults and self._tune is not None:
            data = apply_overrides(self._base.document.data, overrides)
            candidates, faults = tuning_candidates(self._tune, config, data, self._tune_place)
        if config is None or faults:
            self.invalid.append(SkippedPoint(label, tuple(faults)))
            return
        first = self._known.setdefault(_identity(config), label)
        if first != label:
            self._same[label] = first
            return
        self.points.append(Point(label, keys, config, tuple(candidates)))

    def _overrides(self, label: str, cells: Mapping[str, AxisValue]) -> list[Override]:
        """Return the point's overrides: name and seeds, its keys (outer keys first), the command line's."""
        point_overrides = [
            Override(tuple(key.split(".")), cell.value, cell.text or key, cell.position)
            for key, cell in sorted(cells.items(), key=lambda item: item[0].count("."))
        ]
        name = grid_points.point_name(self._config.name, label)
        sweep_overrides = [
            Override(("kind",), "experiment", "kind"),
            Override(("name",), name, "name", self._place_of_name),
        ]
        if self._config.seeds is not None:
            sweep_overrides.append(Override(("seeds",), self._config.seeds, "seeds"))
        return [*sweep_overrides, *point_overrides, *self._axes.plain]

    def merged_faults(self) -> list[ConfigIssue]:
        """Return each fault once; if not all points have it, it names those that do."""
        labels_by_fault: dict[ConfigIssue, list[str]] = {}
        for point in self.invalid:
            for fault in point.faults:
                labels_by_fault.setdefault(fault, []).append(point.label)
        point_count = len(self.labels) - len(self._same)
        return [
            replace(fault, problem=fault.problem + ("" if len(labels) == point_count else _in_points(labels)))
            for fault, labels in labels_by_fault.items()
        ]

    def sweep(self) -> Sweep:
        """Return the sweep of the points that can be built."""
        config = self._config
        return Sweep(
            name=config.name,
            points=tuple(self.points),
            tune=self._tune,
            gates=tuple(config.gates) if config.gates else (),
            notes=config.notes or "",
            skipped=tuple(self.invalid),
            same=self._same,
            excluded=self._axes.excluded,
        )


def _in_points(labels: Sequence[str]) -> str:
    names = ", ".join(labels[:_MAX_NAMED])
    more = len(labels) - _MAX_NAMED
    return f" (in point{'s' * (len(labels) > 1)} {names}{f' and {more} more' if more > 0 else ''})"


def _identity(config: ExperimentConfig) -> str:
    """Return a text that is equal for points that are the same experiment."""
    return config.model_copy(update={"name": "same", "notes": ""}).model_dump_json()


def _nearest_position(document: Document, path: KeyPath) -> tuple[int, int] | None:
    positions = (document.positions.value(path[:end]) for end in range(len(path), 0, -1))
    return next((position for position in positions if position is not None), None)


def _issue(file: str, position: tuple[int, int] | None, path: KeyPath, problem: str) -> ConfigIssue:
    line, column = position or (1, 1)
    return ConfigIssue(f"{file}:{line}:{column}", dotted_key(path), problem)
