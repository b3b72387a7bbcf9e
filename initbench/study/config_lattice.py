"""The lattice between two experiments: each of the keys in which they differ has one value or the other."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from initbench.config.grid import equal_values, point_label, point_name, short_hash
from initbench.config.loading import validate_data
from initbench.config.schema import ExperimentConfig
from initbench.config.study import LONGEST_NAME, NOT_SWEPT, SkippedVariant, Variant
from initbench.data.dataset import DataOptions
from initbench.errors import UsageError

HEALTHY, SICK = "healthy", "sick"
"""Labels of the ends of a lattice."""
Point = frozenset[int]
"""Numbers of the changes that a point has from the sick config; the others are those of the healthy one."""
_SELECTORS = ("name", "family")
"""Keys whose value determines which other keys a section has."""
_NO_EFFECT = (*NOT_SWEPT, "probe", "data.fallback")
"""Keys that do not change what is trained."""
_TASK_KEYS = ("name", "classes")
"""Keys of `data` that define the task, like the options of a data set itself."""
_BUDGET_KEYS = ("train.steps", "train.epochs")
"""Keys of which one is always null, so that they change together."""
_MISSING = object()
"""Value of a key that a section does not have."""


@dataclass(frozen=True)
class ConfigChange:
    """Keys in which two experiments differ and that change together, such as a component with its options."""

    healthy: Mapping[str, Any]
    """Dotted key → value in the healthy config; _MISSING if its section has no such key."""
    sick: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The first of the keys."""
        return next(iter(self.healthy))

    def values(self, side: str) -> Mapping[str, Any]:
        """Return the values of one of the configs."""
        return self.healthy if side == HEALTHY else self.sick

    def main_value(self, side: str) -> tuple[str, Any]:
        """Return the first key that is set in one of the configs, and its value or that of its component."""
        values = self.values(side)
        key = next((key for key, value in values.items() if value not in (None, _MISSING)), self.key)
        return key, _short_value(values[key])

    def given(self, side: str) -> dict[str, Any]:
        """Return the keys that one of the configs has, with their values."""
        return {key: value for key, value in self.values(side).items() if value is not _MISSING}

    def text(self, side: str) -> str:
        """Return the key with its value in one of the configs, as in `init.scheme=xavier_normal`."""
        key, value = self.main_value(side)
        return f"{key}={_value_text(value)}"

    def apply(self, data: dict[str, Any], side: str) -> None:
        """Set the keys in `data` to their values in one of the configs."""
        for key, value in self.values(side).items():
            *parents, last = key.split(".")
            section = data
            for parent in parents:
                section = section[parent]
            if value is _MISSING:
                section.pop(last, None)
            else:
                section[last] = copy.deepcopy(value)


def _short_value(value: Any) -> Any:
    """Return the name of a component, and any other value as it is."""
    return value["name"] if isinstance(value, dict) and "name" in value else value


def _value_text(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value_text(inner)}" for key, inner in value.items()) + "}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def find_changes(healthy: Mapping[str, Any], sick: Mapping[str, Any]) -> list[ConfigChange]:
    """Return the changes between two resolved experiments, in the order of their keys.

    A component whose name differs is one change with all of its options. If the family of the net differs,
    keys that only one of the families has belong to that change.
    """
    changes = list(_section_changes(healthy, sick, ""))
    budget = [change for change in changes if change.key in _BUDGET_KEYS]
    if len(budget) < 2:
        return changes
    first, second = budget
    joined = ConfigChange({**first.healthy, **second.healthy}, {**first.sick, **second.sick})
    return [joined if change is first else change for change in changes if change is not second]


def _section_changes(
    healthy: Mapping[str, Any], sick: Mapping[str, Any], path: str
) -> Iterator[ConfigChange]:
    selected: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys((*healthy, *sick)):
        dotted = f"{path}{key}"
        values = healthy.get(key, _MISSING), sick.get(key, _MISSING)
        if dotted in _NO_EFFECT or (_MISSING not in values and equal_values(*values)):
            continue
        if key in _SELECTORS or _MISSING in values:
            selected[dotted] = values
        elif not path or _is_section(*values):
            yield from _section_changes(*values, f"{dotted}.")
        else:
            yield ConfigChange({dotted: values[0]}, {dotted: values[1]})
    if selected:
        yield ConfigChange(
            {key: value for key, (value, _) in selected.items()},
            {key: value for key, (_, value) in selected.items()},
        )


def _is_section(healthy: Any, sick: Any) -> bool:
    """Return whether two values are mappings whose keys can be changed one by one."""
    return isinstance(healthy, dict) and isinstance(sick, dict) and healthy.get("name") == sick.get("name")


class ConfigLattice:
    """All experiments between two configs.

    Raises:
        UsageError: The configs are the same experiment, or their data sets differ.
    """

    def __init__(self, healthy: ExperimentConfig, sick: ExperimentConfig, seeds: Sequence[int]) -> None:
        self._ends = {HEALTHY: healthy.with_seeds(*seeds), SICK: sick.with_seeds(*seeds)}
        self._variants: dict[Point, Variant | SkippedVariant] = {}
        self.seeds = tuple(seeds)
        self.changes = tuple(find_changes(healthy.resolved(), sick.resolved()))
        if not self.changes:
            raise UsageError(
                f"{healthy.name} and {sick.name} are the same experiment: no key that changes the training"
                " differs"
            )
        for change in self.changes:
            _require_same_task(change)

    @property
    def everything(self) -> Point:
        """The point of the sick config."""
        return frozenset(range(len(self.changes)))

    @cached_property
    def name(self) -> str:
        """Name of the study of these configs."""
        names = [config.name for config in self._ends.values()]
        name = f"bisect-{'-'.join(dict.fromkeys(names))}"
        if len(name) <= LONGEST_NAME:
            return name
        mark = short_hash({"names": names})
        return f"{name[: LONGEST_NAME - len(mark) - 1].rstrip('._-')}-{mark}"

    def label(self, point: Point) -> str:
        """Return the label of a point: the nearer config, and what it has from the other one."""
        rest = self.everything - point
        nearer, side, changed = (HEALTHY, SICK, point) if len(point) <= len(rest) else (SICK, HEALTHY, rest)
        return " + ".join([nearer, *(self.changes[number].text(side) for number in sorted(changed))])

    def variant(self, point: Point) -> Variant | SkippedVariant:
        """Return the experiment of a point, or the reasons why it cannot be built."""
        if point not in self._variants:
            self._variants[point] = self._build(point)
        return self._variants[point]

    def _build(self, point: Point) -> Variant | SkippedVariant:
        label, keys = self.label(point), self._keys(point)
        if point in (frozenset(), self.everything):
            return Variant(label, self._ends[SICK if point else HEALTHY], keys)
        data = self._ends[HEALTHY].resolved()
        for number in sorted(point):
            self.changes[number].apply(data, SICK)
        main_values = dict(self.changes[number].main_value(SICK) for number in sorted(point))
        data["name"] = point_name(self.name, point_label(main_values))
        config, issues = validate_data(ExperimentConfig, data, lambda *_: "")
        return SkippedVariant(label, tuple(issues)) if config is None else Variant(label, config, keys)

    def _keys(self, point: Point) -> dict[str, Any]:
        """Return the values that a point has from the sick config, by dotted key."""
        changes = (self.changes[number].given(SICK) for number in sorted(point))
        return {key: value for values in changes for key, value in values.items()}


def _require_same_task(change: ConfigChange) -> None:
    """Raise UsageError if a change makes results incomparable."""
    section, _, key = change.key.partition(".")
    if section == "data" and (key in _TASK_KEYS or key.partition(".")[0] not in DataOptions.model_fields):
        texts = " and ".join(change.text(side) for side in (HEALTHY, SICK))
        raise UsageError(
            f"the configs have different data ({texts}), so their results cannot be compared; set the key for"
            f" both, as in {change.text(HEALTHY)}"
        )
