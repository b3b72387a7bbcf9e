"""From the file of a sweep to its experiments, with everything that is wrong at its place in the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from initbench.config import grid_points
from initbench.config.grid_axes import AxisValue, ResolvedAxes, swept
from initbench.config.loading import read_document, validate_document
from initbench.config.overrides import Override, apply
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
"""(data, labels of the points, whether axes were given beside the file) → what the schema cannot see."""
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
    """The sweep that a document declares under `overrides`, None where it has faults, and these.

    An experiment is a sweep whose axes are among the overrides. With `skip_invalid`, points that cannot be
    built are left out, as long as there are others.
    """
    if document.data.get("kind", "experiment") == "experiment":
        return _of_experiment(document, file, overrides, check, skip_invalid=skip_invalid)
    config, faults = validate_document(SweepConfig, document, file, ())
    base, problems = _base(document, file)
    faults += problems
    if config is None or base is None or faults:
        return None, faults
    return _made(config, document, file, base, overrides, check, skip_invalid)


def _of_experiment(
    document: Document, file: str, overrides: Sequence[Override], check: Check, *, skip_invalid: bool
) -> tuple[Sweep | None, list[ConfigIssue]]:
    if document.faults:
        return None, document.faults
    name = document.data.get("name")
    if not _is_name(name) and not any(one.path == ("name",) for one in overrides):
        return None, [_fault(file, document.positions.value(["name"]), ("name",), _NAME)]
    config = SweepConfig.model_construct(kind="sweep", name=str(name), base=file)
    return _made(config, document, file, _BaseExperiment(document, file), overrides, check, skip_invalid)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= LONGEST_NAME and re.fullmatch(NAME, name) is not None


def _renamed(
    config: SweepConfig, overrides: Sequence[Override]
) -> tuple[SweepConfig, list[Override], list[ConfigIssue]]:
    """The sweep under its name on the command line, the other overrides, and what is wrong with the name."""
    named = [one for one in overrides if one.path == ("name",)]
    rest = [one for one in overrides if one.path != ("name",)]
    faults = [ConfigIssue(one.where, "name", _NAME) for one in named if not _is_name(one.value)]
    return config.model_copy(update={"name": named[-1].value} if named else {}), rest, faults


@dataclass(frozen=True)
class _BaseExperiment:
    """The experiment that all points share."""

    document: Document
    file: str


def _base(document: Document, file: str) -> tuple[_BaseExperiment | None, list[ConfigIssue]]:
    given = document.data.get("base")
    node = document.positions.find(("base",))
    if node is None or not isinstance(given, str | dict) or given == REFUSED:
        return None, []  # is a fault of the schema
    if isinstance(given, dict):
        place = document.positions.key
        faults = [
            _fault(file, place(("base", key)), ("base", key), "belongs to the sweep; leave it out here")
            for key in NOT_SWEPT[:3]
            if key in given
        ]
        return _BaseExperiment(Document(given, Positions(node), []), file), faults
    path = given if file == "<stdin>" else str(Path(file).parent / given)
    found, faults = read_document(path, path)
    if found is None:
        return None, [_fault(file, node.position, ("base",), f"{one.where} {one.problem}") for one in faults]
    return (None, found.faults) if found.faults else (_BaseExperiment(found, path), [])


def _made(
    config: SweepConfig,
    document: Document,
    file: str,
    base: _BaseExperiment,
    overrides: Sequence[Override],
    check: Check,
    skip_invalid: bool,
) -> tuple[Sweep | None, list[ConfigIssue]]:
    config, rest, unfit = _renamed(config, overrides)
    axes, faults = swept(config, document, file, rest)
    if axes is None or faults or unfit:
        return None, unfit + faults
    builder = _SweepBuilder(config, base, axes)
    builder.build()
    labels = builder.labels
    faults = [
        _fault(file, _nearest(document, path), path, said)
        for path, said in check(document.data, labels, axes.is_changed)
    ]
    if builder.invalid and not (skip_invalid and builder.points):
        faults += builder.gathered()
    if faults:
        return None, faults
    return builder.sweep(), []


class _SweepBuilder:
    """Makes the experiment of each point, and gathers what is wrong with them."""

    def __init__(self, config: SweepConfig, base: _BaseExperiment, axes: ResolvedAxes) -> None:
        self.labels: list[str] = []
        self.points: list[Point] = []
        self.invalid: list[SkippedPoint] = []
        self._config, self._base, self._axes = config, base, axes
        self._tune = None if config.tune is None or config.tune.key in axes.given else config.tune
        self._tune_place = axes.place_of_tune
        line, column = base.document.positions.value(("name",)) or (1, 1)
        self._place_of_name = f"{base.file}:{line}:{column}"
        self._same: dict[str, str] = {}
        self._known: dict[str, str] = {}

    def build(self) -> None:
        """Make them all."""
        taken: set[str] = set()
        for cells in self._axes.points:
            keys = {key: cell.value for key, cell in cells.items()}
            label = grid_points.point_label(keys)
            if label in taken:
                label = f"{label}-{grid_points.short_hash(keys)}"
            if label not in taken:  # else it is the same point, written twice
                taken.add(label)
                self.labels.append(label)
                self._add(label, keys, cells)

    def _add(self, label: str, keys: dict[str, Any], cells: Mapping[str, AxisValue]) -> None:
        laid = self._overrides(label, cells)
        config, faults = validate_document(ExperimentConfig, self._base.document, self._base.file, laid)
        candidates: list[ExperimentConfig] = []
        if config is not None and not faults and self._tune is not None:
            data = apply(self._base.document.data, laid)
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
        """The point's keys, whole sections before what lies in them, then what the command line says."""
        laid = [
            Override(tuple(key.split(".")), cell.value, cell.text or key, cell.position)
            for key, cell in sorted(cells.items(), key=lambda item: item[0].count("."))
        ]
        name = grid_points.point_name(self._config.name, label)
        own = [
            Override(("kind",), "experiment", "kind"),
            Override(("name",), name, "name", self._place_of_name),
        ]
        if self._config.seeds is not None:
            own.append(Override(("seeds",), self._config.seeds, "seeds"))
        return [*own, *laid, *self._axes.plain]

    def gathered(self) -> list[ConfigIssue]:
        """Each fault once, with the points that have it where not all do."""
        having: dict[ConfigIssue, list[str]] = {}
        for one in self.invalid:
            for fault in one.faults:
                having.setdefault(fault, []).append(one.label)
        every = len(self.labels) - len(self._same)
        return [
            replace(fault, problem=fault.problem + ("" if len(labels) == every else _in_points(labels)))
            for fault, labels in having.items()
        ]

    def sweep(self) -> Sweep:
        """The sweep of the points that can be built."""
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
    shown = ", ".join(labels[:_MAX_NAMED])
    more = len(labels) - _MAX_NAMED
    return f" (in point{'s' * (len(labels) > 1)} {shown}{f' and {more} more' if more > 0 else ''})"


def _identity(config: ExperimentConfig) -> str:
    """What two points have in common that are one experiment."""
    return config.model_copy(update={"name": "same", "notes": ""}).model_dump_json()


def _nearest(document: Document, path: KeyPath) -> tuple[int, int] | None:
    found = (document.positions.value(path[:end]) for end in range(len(path), 0, -1))
    return next((place for place in found if place is not None), None)


def _fault(file: str, position: tuple[int, int] | None, path: KeyPath, problem: str) -> ConfigIssue:
    line, column = position or (1, 1)
    return ConfigIssue(f"{file}:{line}:{column}", dotted_key(path), problem)
