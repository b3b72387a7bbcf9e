"""Loader of lesson files: builds the experiments, and reports each fault with its position."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from initbench.config.lesson_schema import NAME, RESERVED, Arm, Lesson, LessonConfig
from initbench.config.loading import validate_data, validate_document
from initbench.config.overrides import KEY, Override, apply_overrides
from initbench.config.schema import ExperimentConfig
from initbench.config.tuning_schema import Tune, tuning_candidates
from initbench.config.validation_errors import KeyPath, dotted_key
from initbench.config.yaml_reader import REFUSED, Document, Position
from initbench.errors import ConfigError, ConfigIssue

Problem = tuple[KeyPath, str]
"""Path of a fault in a lesson's file, and its description."""
Check = Callable[[Mapping[str, Any], Mapping[str, ExperimentConfig | None]], Iterable[Problem]]
"""Function that checks the file's data and arms beyond the schema; a faulty arm is None."""
NOT_IN_ARMS = ("kind", "name", "notes")
"""Keys of an experiment that an arm inherits from its lesson."""


def read_lesson(
    document: Document, file: str, overrides: Sequence[Override], check: Check
) -> tuple[Lesson | None, list[ConfigIssue]]:
    """Read the lesson of a document with `overrides` applied to its arms; None if there are faults."""
    config, faults = validate_document(LessonConfig, document, file, ())
    reader = _LessonReader(document, file, overrides, config)
    arms = reader.arms()
    configs = {name: None if arm is None else arm.config for name, arm in arms.items()}
    problems = check(document.data, configs)
    faults += reader.faults + [reader.fault(path, problem) for path, problem in problems]
    valid_arms = tuple(arm for arm in arms.values() if arm is not None)
    if config is None or faults:
        return None, list(dict.fromkeys(faults))
    return Lesson(config, valid_arms, reader.tune), []


def lesson_name(file: str) -> str:
    """Return the name of the lesson in a file: the file's name without the number at its start."""
    return re.sub(r"^\d+_", "", Path(file).stem)


class _LessonReader:
    """Builder of the arms of one file, which also collects their faults."""

    def __init__(
        self, document: Document, file: str, overrides: Sequence[Override], config: LessonConfig | None
    ) -> None:
        self.faults: list[ConfigIssue] = []
        self._document, self._file, self._overrides = document, file, overrides
        self._name = config.name if config else "lesson"
        overridden_keys = {dotted_key(override.path) for override in overrides}
        self.tune = (
            None
            if config is None or config.tune is None
            else _unless_overridden(config.tune, overridden_keys)
        )
        if isinstance(name := document.data.get("name"), str):
            self._check_name(name)

    def fault(self, path: KeyPath, problem: str) -> ConfigIssue:
        """Return a fault of the value at `path` in the file."""
        return ConfigIssue(self.position_of(path), dotted_key(path), problem)

    def position_of(self, path: KeyPath, *, of_key: bool = False) -> str:
        """Return the position of the value at `path`, or of its nearest parent in the file."""
        positions = self._document.positions
        position: Position | None = None
        for end in range(len(path), 0, -1):
            find = positions.key if of_key or end < len(path) else positions.value
            position = find(path[:end])
            if position is not None:
                break
        line, column = position or (1, 1)
        return f"{self._file}:{line}:{column}"

    def value(self, path: KeyPath) -> Any:
        """Return the value at `path` in the file; None if it has none."""
        node = self._document.positions.find(path)
        return None if node is None else node.value

    def arms(self) -> dict[str, Arm | None]:
        """Return the arms by name, in order; None for an arm that cannot be built."""
        base, arms = self._document.data.get("base", {}), self._document.data.get("arms")
        if not isinstance(base, dict) or not isinstance(arms, dict):
            return {}
        for key in NOT_IN_ARMS:
            if key in base:
                self._add_key_fault(
                    ("base", key), "belongs to the lesson; an arm is the experiment lesson.arm"
                )
        base = {key: value for key, value in base.items() if key not in NOT_IN_ARMS}
        overrides = {
            name: self._arm_overrides(name, keys)
            for name, keys in arms.items()
            if keys is None or _is_map(keys)
        }
        results = {
            name: self._build_arm(name, base, arm_overrides) for name, arm_overrides in overrides.items()
        }
        self._merge_faults([faults for _, faults in results.values()], list(results))
        return {name: arm for name, (arm, _) in results.items()}

    def _check_name(self, name: str) -> None:
        expected_name = lesson_name(self._file)
        if self._file != "<stdin>" and expected_name != name:
            self.faults.append(self.fault(("name",), f"must be that of the file, {expected_name!r}"))

    def _add_key_fault(self, path: KeyPath, problem: str) -> None:
        self.faults.append(ConfigIssue(self.position_of(path, of_key=True), dotted_key(path), problem))

    def _arm_overrides(self, name: str, keys: Mapping[str, Any] | None) -> list[Override]:
        """Return the arm's keys as overrides with their positions."""
        if not re.fullmatch(NAME, name) or name in RESERVED:
            problem = "a name of an arm begins with a letter and has letters, digits and _ alone"
            self._add_key_fault(("arms", name), f"{name!r} is taken" if name in RESERVED else problem)
        overrides = []
        for key, value in (keys or {}).items():
            path = ("arms", name, key)
            if not KEY.fullmatch(key):
                self._add_key_fault(path, f"{key!r} is not a key such as train.lr")
            elif key.partition(".")[0] in NOT_IN_ARMS:
                self._add_key_fault(path, "belongs to the lesson; an arm is the experiment lesson.arm")
            elif self.tune is not None and key == self.tune.key:
                self._add_key_fault(path, "is tuned for each arm, under tune; leave it out here")
            elif value != REFUSED:
                overrides.append(
                    Override(tuple(key.split(".")), value, key, self.position_of(path, of_key=True))
                )
        return overrides

    def _build_arm(
        self, name: str, base: dict[str, Any], overrides: Sequence[Override]
    ) -> tuple[Arm | None, list[ConfigIssue]]:
        """Build an arm; None if it has faults, which are returned with it."""
        positions = _ArmPositions(self, name, overrides, self._overrides)
        data: dict[str, Any] = {"name": f"{self._name}.{name}", **base}
        faults: list[ConfigIssue] = []
        for override in (*overrides, *self._overrides):
            try:
                data = apply_overrides(data, [override])
            except ConfigError as error:
                faults += [replace(fault, key=positions.key(override.path)) for fault in error.issues]
        config, issues = validate_data(ExperimentConfig, data, positions.where)
        faults += [replace(fault, key=positions.key(tuple(fault.key.split(".")))) for fault in issues]
        if config is None or faults:
            return None, faults
        candidates: list[ExperimentConfig] = []
        if self.tune is not None:
            tune_position = self.position_of(("tune", self.tune.key), of_key=True)
            candidates, problems = tuning_candidates(self.tune, config, data, tune_position)
            faults += problems
        return (None if faults else Arm(name, config, tuple(candidates))), faults

    def _merge_faults(self, faults: Sequence[Sequence[ConfigIssue]], names: Sequence[str]) -> None:
        """Add each fault once; a fault of the base or command line names its arms unless all arms have it."""
        for fault in dict.fromkeys(fault for arm_faults in faults for fault in arm_faults):
            affected = [name for name, arm_faults in zip(names, faults, strict=True) if fault in arm_faults]
            everywhere = len(affected) == len(names) or fault.key.startswith("arms.")
            suffix = "" if everywhere else f" (in arm{'s' * (len(affected) > 1)} {', '.join(affected)})"
            self.faults.append(replace(fault, problem=fault.problem + suffix))


@dataclass(frozen=True)
class _ArmPositions:
    """Sources of the keys of one arm's experiment: the command line, the arm, or the base."""

    reader: _LessonReader
    arm: str
    laid: Sequence[Override]
    overrides: Sequence[Override]

    def where(self, path: KeyPath, of_key: bool) -> str:
        """Return the position of a fault, as `to_issues` expects it."""
        override = self._setting_override(self.overrides, path)
        return override.where if override else self.reader.position_of(self._in_file(path), of_key=of_key)

    def key(self, path: Sequence[str]) -> str:
        """Return the dotted key of a fault."""
        return dotted_key(
            path if self._setting_override(self.overrides, tuple(path)) else self._in_file(tuple(path))
        )

    def _setting_override(self, overrides: Sequence[Override], path: KeyPath) -> Override | None:
        """Return the last override that set the value at `path`, or created the mapping that lacks it."""
        word = isinstance(self.reader.value(("base", *path)), str)
        for override in reversed(overrides):
            below = override.path[: len(path)] == path
            if path[: len(override.path)] == override.path or (below and word):
                return override
        for end in range(len(path), 0, -1):
            if self.reader.value(("base", *path[:end])) is not None:
                return None
            setting = [override for override in overrides if override.path[:end] == path[:end]]
            if setting:
                return setting[-1]
        return None

    def _in_file(self, path: KeyPath) -> KeyPath:
        override = self._setting_override(self.laid, path)
        if override is None:
            return ("base", *(part for part in path if part != ""))
        return ("arms", self.arm, override.text, *path[len(override.path) :])


def _unless_overridden(tune: Tune, overridden_keys: set[str]) -> Tune | None:
    return None if tune.key in overridden_keys else tune


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)
