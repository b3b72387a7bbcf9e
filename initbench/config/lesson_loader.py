"""From the file of a lesson to its experiments, with everything that is wrong at its place in the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from initbench.config.lesson_schema import NAME, RESERVED, Arm, Lesson, LessonConfig
from initbench.config.loading import validate_data, validate_document
from initbench.config.overrides import KEY, Override, apply
from initbench.config.schema import ExperimentConfig
from initbench.config.tuning_schema import Tune, tuning_candidates
from initbench.config.validation_errors import KeyPath, dotted_key
from initbench.config.yaml_reader import REFUSED, Document, Position
from initbench.errors import ConfigError, ConfigIssue

Problem = tuple[KeyPath, str]
"""Where in a lesson's file something is wrong, and what."""
Check = Callable[[Mapping[str, Any], Mapping[str, ExperimentConfig | None]], Iterable[Problem]]
"""Looks for what the schema cannot see, in the file's data and in its arms; None stands for a faulty one."""
NOT_IN_ARMS = ("kind", "name", "notes")
"""Keys of an experiment that an arm has from its lesson."""


def read_lesson(
    document: Document, file: str, overrides: Sequence[Override], check: Check
) -> tuple[Lesson | None, list[ConfigIssue]]:
    """The lesson that a document declares, with its arms under `overrides`; None where there are faults."""
    config, faults = validate_document(LessonConfig, document, file, ())
    reader = _LessonReader(document, file, overrides, config)
    arms = reader.arms()
    configs = {name: None if arm is None else arm.config for name, arm in arms.items()}
    problems = check(document.data, configs)
    faults += reader.faults + [reader.fault(path, problem) for path, problem in problems]
    known = tuple(arm for arm in arms.values() if arm is not None)
    if config is None or faults:
        return None, list(dict.fromkeys(faults))
    return Lesson(config, known, reader.tune), []


def name_of(file: str) -> str:
    """The name of the lesson in a file: the file's own, less a number in front that orders the files."""
    return re.sub(r"^\d+_", "", Path(file).stem)


class _LessonReader:
    """Makes the arms of one file, and gathers what is wrong with them."""

    def __init__(
        self, document: Document, file: str, overrides: Sequence[Override], config: LessonConfig | None
    ) -> None:
        self.faults: list[ConfigIssue] = []
        self._document, self._file, self._overrides = document, file, overrides
        self._name = config.name if config else "lesson"
        given = {dotted_key(override.path) for override in overrides}
        self.tune = None if config is None or config.tune is None else _unless_given(config.tune, given)
        if isinstance(name := document.data.get("name"), str):
            self._check_name(name)

    def fault(self, path: KeyPath, problem: str) -> ConfigIssue:
        """A fault of the value at `path` in the file."""
        return ConfigIssue(self.place(path), dotted_key(path), problem)

    def place(self, path: KeyPath, *, of_key: bool = False) -> str:
        """Where the value at `path`, or the nearest above it that the file has, stands."""
        positions = self._document.positions
        found: Position | None = None
        for end in range(len(path), 0, -1):
            find = positions.key if of_key or end < len(path) else positions.value
            found = find(path[:end])
            if found is not None:
                break
        line, column = found or (1, 1)
        return f"{self._file}:{line}:{column}"

    def value(self, path: KeyPath) -> Any:
        """What the file has at `path`; None for nothing."""
        node = self._document.positions.find(path)
        return None if node is None else node.value

    def arms(self) -> dict[str, Arm | None]:
        """By name, in order; None for one that cannot be made."""
        base, arms = self._document.data.get("base", {}), self._document.data.get("arms")
        if not isinstance(base, dict) or not isinstance(arms, dict):
            return {}
        for key in NOT_IN_ARMS:
            if key in base:
                self._refuse_key(("base", key), "belongs to the lesson; an arm is the experiment lesson.arm")
        base = {key: value for key, value in base.items() if key not in NOT_IN_ARMS}
        laid = {name: self._laid(name, keys) for name, keys in arms.items() if keys is None or _is_map(keys)}
        found = {name: self._found(name, base, own) for name, own in laid.items()}
        self._gather([faults for _, faults in found.values()], list(found))
        return {name: arm for name, (arm, _) in found.items()}

    def _check_name(self, name: str) -> None:
        own = name_of(self._file)
        if self._file != "<stdin>" and own != name:
            self.faults.append(self.fault(("name",), f"must be that of the file, {own!r}"))

    def _refuse_key(self, path: KeyPath, problem: str) -> None:
        self.faults.append(ConfigIssue(self.place(path, of_key=True), dotted_key(path), problem))

    def _laid(self, name: str, keys: Mapping[str, Any] | None) -> list[Override]:
        """The arm's keys as overrides at their places."""
        if not re.fullmatch(NAME, name) or name in RESERVED:
            problem = "a name of an arm begins with a letter and has letters, digits and _ alone"
            self._refuse_key(("arms", name), f"{name!r} is taken" if name in RESERVED else problem)
        found = []
        for key, value in (keys or {}).items():
            path = ("arms", name, key)
            if not KEY.fullmatch(key):
                self._refuse_key(path, f"{key!r} is not a key such as train.lr")
            elif key.partition(".")[0] in NOT_IN_ARMS:
                self._refuse_key(path, "belongs to the lesson; an arm is the experiment lesson.arm")
            elif self.tune is not None and key == self.tune.key:
                self._refuse_key(path, "is tuned for each arm, under tune; leave it out here")
            elif value != REFUSED:
                found.append(Override(tuple(key.split(".")), value, key, self.place(path, of_key=True)))
        return found

    def _found(
        self, name: str, base: dict[str, Any], laid: Sequence[Override]
    ) -> tuple[Arm | None, list[ConfigIssue]]:
        """The arm, None where it has faults, and these."""
        places = _ArmPositions(self, name, laid, self._overrides)
        data: dict[str, Any] = {"name": f"{self._name}.{name}", **base}
        faults: list[ConfigIssue] = []
        for override in (*laid, *self._overrides):
            try:
                data = apply(data, [override])
            except ConfigError as error:
                faults += [replace(fault, key=places.key(override.path)) for fault in error.issues]
        config, found = validate_data(ExperimentConfig, data, places.where)
        faults += [replace(fault, key=places.key(tuple(fault.key.split(".")))) for fault in found]
        if config is None or faults:
            return None, faults
        candidates: list[ExperimentConfig] = []
        if self.tune is not None:
            place = self.place(("tune", self.tune.key), of_key=True)
            candidates, problems = tuning_candidates(self.tune, config, data, place)
            faults += problems
        return (None if faults else Arm(name, config, tuple(candidates))), faults

    def _gather(self, faults: Sequence[Sequence[ConfigIssue]], names: Sequence[str]) -> None:
        """Keep each fault once; one outside of an arm that not every arm has names those that do."""
        for fault in dict.fromkeys(fault for own in faults for fault in own):
            having = [name for name, own in zip(names, faults, strict=True) if fault in own]
            everywhere = len(having) == len(names) or fault.key.startswith("arms.")
            said = "" if everywhere else f" (in arm{'s' * (len(having) > 1)} {', '.join(having)})"
            self.faults.append(replace(fault, problem=fault.problem + said))


@dataclass(frozen=True)
class _ArmPositions:
    """Where the keys of one arm's experiment come from: the command line, the arm, or the base."""

    reader: _LessonReader
    arm: str
    laid: Sequence[Override]
    given: Sequence[Override]

    def where(self, path: KeyPath, of_key: bool) -> str:
        """The place of a fault, as `explain` asks for it."""
        given = self._by(self.given, path)
        return given.where if given else self.reader.place(self._in_file(path), of_key=of_key)

    def key(self, path: Sequence[str]) -> str:
        """The dotted key of a fault."""
        return dotted_key(path if self._by(self.given, tuple(path)) else self._in_file(tuple(path)))

    def _by(self, overrides: Sequence[Override], path: KeyPath) -> Override | None:
        """The last override that set the value at `path`, or made the mapping in which it is missing."""
        word = isinstance(self.reader.value(("base", *path)), str)
        for override in reversed(overrides):
            below = override.path[: len(path)] == path
            if path[: len(override.path)] == override.path or (below and word):
                return override
        for end in range(len(path), 0, -1):
            if self.reader.value(("base", *path[:end])) is not None:
                return None
            made = [override for override in overrides if override.path[:end] == path[:end]]
            if made:
                return made[-1]
        return None

    def _in_file(self, path: KeyPath) -> KeyPath:
        override = self._by(self.laid, path)
        if override is None:
            return ("base", *(part for part in path if part != ""))
        return ("arms", self.arm, override.text, *path[len(override.path) :])


def _unless_given(tune: Tune, given: set[str]) -> Tune | None:
    return None if tune.key in given else tune


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)
