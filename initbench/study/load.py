"""Loader of studies: builds their experiments, and reports each fault with its position.

A lesson declares its experiments by name. A sweep spans them with axes; an experiment whose axes are given
as overrides is a sweep too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from initbench.config.bundled_files import CONFIGS, config_path
from initbench.config.grid import keys_of, point_label, point_name, resolve_grid, short_hash
from initbench.config.loading import read_all, read_document, read_mapping, validate_document
from initbench.config.overrides import KEY, Override, apply_overrides
from initbench.config.schema import ExperimentConfig
from initbench.config.study import (
    BELONGS_TO_STUDY,
    LESSON_NAME,
    LONGEST_NAME,
    RESERVED,
    SWEEP_NAME,
    Lesson,
    LessonConfig,
    SkippedVariant,
    Study,
    Sweep,
    SweepConfig,
    Tune,
    Variant,
)
from initbench.config.validation_errors import KeyPath, dotted_key
from initbench.config.yaml_reader import REFUSED, Document, Positions
from initbench.errors import ConfigError, ConfigIssue, UnknownNameError
from initbench.registry import unknown_name_message
from initbench.study.tuning import tuning_candidates
from initbench.study.validate import find_lesson_problems, find_sweep_problems

LESSONS = CONFIGS / "lessons"
"""Folder of the shipped lessons."""
_MAX_NAMED = 3
_IN_LESSON = "belongs to the lesson; an arm is the experiment lesson.arm"
_NAME = (
    f"a sweep needs a name of up to {LONGEST_NAME} letters, digits, dots, dashes and underscores, beginning"
    " with a letter or digit"
)


def bundled_lessons() -> dict[str, Path]:
    """Return the paths of the shipped lessons by name, in the order of their files."""
    return {_lesson_name(path.name): path for path in sorted(LESSONS.glob("*.yaml"))}


def load_lessons(names: Sequence[str], overrides: Sequence[str] = ()) -> list[Lesson]:
    """Load lessons, given as names of shipped ones or paths of files, and apply `overrides` to their arms.

    Raises:
        UnknownNameError: If a name is neither a shipped lesson nor a path.
        ConfigError: If a file has faults; the error lists those of all files.
    """
    return read_all([_lesson_path(name) for name in names], overrides, _read_lesson)


def load_sweep(
    source: str | Mapping[str, Any], overrides: Sequence[str] = (), *, skip_invalid: bool = False
) -> Sweep:
    """Load the sweep of a file (`-` for standard input) or of a mapping with the keys of a file.

    Overrides of the form `key=v1,v2` are axes.

    With `skip_invalid`, points that cannot be built are skipped, as long as others remain.

    Raises:
        ConfigError: If there are faults; the error lists all of them.
    """
    read = partial(_read_sweep, skip_invalid=skip_invalid)
    if isinstance(source, Mapping):
        return read_mapping(source, overrides, read, axes=True)
    (sweep,) = read_all([source], overrides, read, axes=True)
    return sweep


def read_standalone_sweep(path: str) -> dict[str, Any]:
    """Return the contents of a sweep or experiment file in a form that can be moved to another folder.

    The base of a sweep is included, and paths of files next to a config are absolute.
    """
    file = str(Path(config_path(path)).absolute())
    document, faults = read_document(file, path)
    if document is None:
        raise ConfigError(faults)
    data = dict(document.data)
    if isinstance(data.get("base"), str):
        base, faults = _read_base(replace(document, file=file))
        if base is None:
            raise ConfigError(faults)
        data["base"] = {key: value for key, value in base.data.items() if key not in BELONGS_TO_STUDY}
    return data


def load_mixed(paths: Sequence[str], overrides: Sequence[str]) -> list[ExperimentConfig | Lesson | Sweep]:
    """Load the experiment, lesson or sweep of each file; raises ConfigError with the faults of all files."""
    return read_all(paths, overrides, _read_any)


def _read_any(
    document: Document, overrides: Sequence[Override]
) -> tuple[ExperimentConfig | Lesson | Sweep | None, list[ConfigIssue]]:
    if document.data.get("kind") == "lesson":
        return _read_lesson(document, overrides)
    if document.data.get("kind") == "sweep":
        return _read_sweep(document, overrides)
    return validate_document(ExperimentConfig, document, overrides)


def _lesson_name(file: str) -> str:
    """Return the name of the lesson in a file: the file's name without the number at its start."""
    return re.sub(r"^\d+_", "", Path(file).stem)


def _lesson_path(name: str) -> Path | str:
    if name == "-" or "/" in name or name.endswith((".yaml", ".yml")):
        return name
    lessons = bundled_lessons()
    if _lesson_name(name) not in lessons:
        raise UnknownNameError(unknown_name_message("lesson", name, lessons))
    return lessons[_lesson_name(name)]


def _read_lesson(
    document: Document, overrides: Sequence[Override]
) -> tuple[Lesson | None, list[ConfigIssue]]:
    kind = document.data.get("kind", "experiment")
    if kind in ("experiment", "sweep"):
        command, article = ("run", "an") if kind == "experiment" else ("sweep", "a")
        problem = f"is no lesson but {article} {kind}; use: initbench {command} {document.file}"
        return None, [ConfigIssue(document.file, "kind", problem)]
    config, faults = validate_document(LessonConfig, document, ())
    tune = _active_tune(config, overrides)
    base, arms = document.data.get("base", {}), document.data.get("arms")
    if not isinstance(base, dict) or not isinstance(arms, dict):
        base, arms = {}, {}  # reported by the schema
    arms = {label: keys or {} for label, keys in arms.items() if keys is None or isinstance(keys, dict)}
    faults += _lesson_issues(document, base, arms, tune)
    shared = {key: value for key, value in base.items() if key not in BELONGS_TO_STUDY}
    builder = _Builder(replace(document, data=shared, faults=[]), ("base",), overrides, tune, document)
    for label, keys in arms.items():
        name = f"{config.name if config else 'lesson'}.{label}"
        builder.add(label, name, keys, list(_arm_overrides(document, label, keys, tune)))
    configs: dict[str, ExperimentConfig | None] = dict.fromkeys(arms)
    configs |= {variant.label: variant.config for variant in builder.variants}
    faults += builder.faults("arm")
    faults += _issues_at(document, find_lesson_problems(document.data, configs))
    if config is None or faults:
        return None, faults
    return Study(config, tuple(builder.variants), tune), []


def _lesson_issues(
    document: Document, base: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]], tune: Tune | None
) -> Iterator[ConfigIssue]:
    """Yield the faults of the names and keys of a lesson that its schema cannot see."""
    name, expected_name = document.data.get("name"), _lesson_name(document.file)
    if isinstance(name, str) and document.file != "<stdin>" and expected_name != name:
        yield ConfigIssue(document.where(("name",)), "name", f"must be that of the file, {expected_name!r}")
    problems: list[tuple[KeyPath, str]] = [
        (("base", key), _IN_LESSON) for key in BELONGS_TO_STUDY if key in base
    ]
    for label, keys in arms.items():
        if label in RESERVED:
            problems.append((("arms", label), f"{label!r} is taken"))
        elif not re.fullmatch(LESSON_NAME, label):
            problem = "a name of an arm begins with a letter and has letters, digits and _ alone"
            problems.append((("arms", label), problem))
        for key in keys:
            if (key_problem := _arm_key_problem(key, tune)) is not None:
                problems.append((("arms", label, key), key_problem))
    for path, problem in problems:
        yield ConfigIssue(document.where(path, of_key=True), dotted_key(path), problem)


def _arm_key_problem(key: str, tune: Tune | None) -> str | None:
    """Return why an arm cannot set `key`, None if it can."""
    if not KEY.fullmatch(key):
        return f"{key!r} is not a key such as train.lr"
    if key.partition(".")[0] in BELONGS_TO_STUDY:
        return _IN_LESSON
    if tune is not None and key == tune.key:
        return "is tuned for each arm, under tune; leave it out here"
    return None


def _arm_overrides(
    document: Document, label: str, keys: Mapping[str, Any], tune: Tune | None
) -> Iterator[Override]:
    """Yield the valid keys of an arm as overrides with their positions."""
    for key, value in keys.items():
        if value != REFUSED and _arm_key_problem(key, tune) is None:
            source = ("arms", label, key)
            position = document.where(source, of_key=True)
            yield Override(tuple(key.split(".")), value, key, position, source=source)


def _read_sweep(
    document: Document, overrides: Sequence[Override], *, skip_invalid: bool = False
) -> tuple[Sweep | None, list[ConfigIssue]]:
    kind = document.data.get("kind", "experiment")
    if kind == "lesson":
        problem = f"is no sweep but a lesson; use: initbench lesson {document.file}"
        return None, [ConfigIssue(document.where(("kind",)), "kind", problem)]
    config: SweepConfig | None
    base: Document | None
    if kind == "experiment":
        name = document.data.get("name")
        if document.faults:
            return None, document.faults
        if not _is_sweep_name(name) and not any(override.path == ("name",) for override in overrides):
            return None, [ConfigIssue(document.where(("name",)), "name", _NAME)]
        config = SweepConfig.model_construct(kind="sweep", name=str(name), base=document.file)
        base = document
    else:
        config, faults = validate_document(SweepConfig, document, ())
        base, base_faults = _read_base(document)
        if config is None or base is None or faults or base_faults:
            return None, faults + base_faults
    return _build_sweep(config, document, base, overrides, skip_invalid=skip_invalid)


def _is_sweep_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= LONGEST_NAME and re.fullmatch(SWEEP_NAME, name) is not None


def _read_base(document: Document) -> tuple[Document | None, list[ConfigIssue]]:
    """Return the experiment that all points share, None if it cannot be read, and its faults."""
    base, file = document.data.get("base"), document.file
    node = document.positions.find(("base",))
    if node is None or not isinstance(base, str | dict) or base == REFUSED:
        return None, []  # reported by the schema
    if isinstance(base, dict):
        problem = "belongs to the sweep; leave it out here"
        paths = [("base", key) for key in BELONGS_TO_STUDY if key in base]
        faults = [ConfigIssue(document.where(at, of_key=True), dotted_key(at), problem) for at in paths]
        return Document(base, Positions(node), [], file), faults
    path = base if file == "<stdin>" else str(Path(file).parent / base)
    base_document, faults = read_document(path, path)
    if base_document is None:
        where = document.where(("base",))
        return None, [ConfigIssue(where, "base", f"{fault.where} {fault.problem}") for fault in faults]
    return base_document, base_document.faults


def _build_sweep(
    config: SweepConfig,
    document: Document,
    base: Document,
    overrides: Sequence[Override],
    *,
    skip_invalid: bool,
) -> tuple[Sweep | None, list[ConfigIssue]]:
    names = [override for override in overrides if override.path == ("name",)]
    unfit = [ConfigIssue(name.where, "name", _NAME) for name in names if not _is_sweep_name(name.value)]
    grid, faults = resolve_grid(config, document, [each for each in overrides if each not in names])
    if grid is None or faults or unfit:
        return None, unfit + faults
    if names:
        config = config.model_copy(update={"name": names[-1].value})
    shared = [Override(("kind",), "experiment", "kind")]
    if config.seeds is not None:
        shared.append(Override(("seeds",), config.seeds, "seeds"))
    tune = _active_tune(config, overrides)
    builder = _Builder(base, (), grid.plain, tune, document)
    labels: dict[str, None] = {}
    for point in grid.points:
        keys = keys_of(point)
        label = point_label(keys)
        if label in labels:
            label = f"{label}-{short_hash(keys)}"
        if label not in labels:  # otherwise the same point is written twice
            labels[label] = None
            changes = sorted(point.values(), key=lambda override: len(override.path))  # outer keys first
            builder.add(label, point_name(config.name, label), keys, [*shared, *changes])
    faults = _issues_at(
        document, find_sweep_problems(document.data, None if grid.is_changed else list(labels))
    )
    if not (skip_invalid and builder.variants):
        faults += builder.faults("point")
    if faults:
        return None, faults
    variants, same = _without_copies(builder.variants)
    return Study(config, variants, tune, tuple(builder.invalid), same, grid.excluded), []


def _without_copies(variants: Sequence[Variant]) -> tuple[tuple[Variant, ...], dict[str, str]]:
    """Return the first of equal experiments, and for each of the others the label of the first."""
    first: dict[str, Variant] = {}
    same: dict[str, str] = {}
    for variant in variants:
        identity = variant.config.model_copy(update={"name": "same", "notes": ""}).model_dump_json()
        original = first.setdefault(identity, variant)
        if original is not variant:
            same[variant.label] = original.label
    return tuple(first.values()), same


def _active_tune(config: LessonConfig | SweepConfig | None, overrides: Sequence[Override]) -> Tune | None:
    """Return the tuning of a study, None if the command line sets the tuned key."""
    tune = None if config is None else config.tune
    overridden_keys = {dotted_key(override.path) for override in overrides}
    return None if tune is None or tune.key in overridden_keys else tune


def _issues_at(document: Document, problems: Iterator[tuple[KeyPath, str]]) -> list[ConfigIssue]:
    return [ConfigIssue(document.where(path), dotted_key(path), problem) for path, problem in problems]


class _Builder:
    """Builder of the variants of a study, which also collects their faults."""

    def __init__(
        self,
        base: Document,
        root: KeyPath,
        overrides: Sequence[Override],
        tune: Tune | None,
        document: Document,
    ) -> None:
        self.variants: list[Variant] = []
        self.invalid: list[SkippedVariant] = []
        self._base, self._root, self._overrides, self._tune = base, root, overrides, tune
        self._tune_position = "" if tune is None else document.where(("tune", tune.key), of_key=True)

    def add(self, label: str, name: str, keys: Mapping[str, Any], changes: Sequence[Override]) -> None:
        """Build the base with its name, the changes and the overrides of the command line, in this order."""
        overrides = [Override(("name",), name, "name"), *changes, *self._overrides]
        config, faults = validate_document(ExperimentConfig, self._base, overrides, self._root)
        candidates: list[ExperimentConfig] = []
        if config is not None and self._tune is not None:
            data = apply_overrides(self._base.data, overrides)
            candidates, faults = tuning_candidates(self._tune, config, data, self._tune_position)
        if config is None or faults:
            self.invalid.append(SkippedVariant(label, tuple(faults)))
        else:
            self.variants.append(Variant(label, config, dict(keys), tuple(candidates)))

    def faults(self, noun: str) -> list[ConfigIssue]:
        """Return each fault once; if not all variants have it, it names those that do.

        A fault of the keys of one arm does not, as its key names the arm.
        """
        labels_by_fault: dict[ConfigIssue, list[str]] = {}
        for variant in self.invalid:
            for fault in dict.fromkeys(variant.faults):
                labels_by_fault.setdefault(fault, []).append(variant.label)
        count = len(self.variants) + len(self.invalid)
        return [
            fault
            if len(labels) == count or fault.key.startswith("arms.")
            else replace(fault, problem=fault.problem + _suffix(noun, labels))
            for fault, labels in labels_by_fault.items()
        ]


def _suffix(noun: str, labels: Sequence[str]) -> str:
    names = ", ".join(labels[:_MAX_NAMED])
    more = len(labels) - _MAX_NAMED
    return f" (in {noun}{'s' * (len(labels) > 1)} {names}{f' and {more} more' if more > 0 else ''})"
