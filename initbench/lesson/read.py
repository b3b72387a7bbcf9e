"""Lessons from files, by name or by path, and files of which nobody knows what they declare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from initbench.config.lesson import Lesson
from initbench.config.load import read_all, validated
from initbench.config.overrides import Override
from initbench.config.read_lesson import name_of, read_lesson
from initbench.config.schema import ExperimentConfig
from initbench.config.strictyaml import Document
from initbench.config.usage import CONFIGS
from initbench.errors import Fault, UnknownNameError
from initbench.lesson.check import problems
from initbench.registry import unknown_name

LESSONS = CONFIGS / "lessons"
"""The shipped lessons, where the package lies in a checkout."""


def shipped() -> dict[str, Path]:
    """The shipped lessons by name, in the order of their files."""
    return {name_of(path.name): path for path in sorted(LESSONS.glob("*.yaml"))} if LESSONS.is_dir() else {}


def load_lessons(names: Sequence[str], overrides: Sequence[str] = ()) -> list[Lesson]:
    """Lessons by the names of shipped ones or the paths of files, their arms under `overrides`.

    Raises UnknownNameError for what is neither, and one ConfigError with the faults of all files.
    """
    return read_all([_path(name) for name in names], overrides, _lesson)


def load_any(paths: Sequence[str], overrides: Sequence[str]) -> list[ExperimentConfig | Lesson]:
    """What each file declares, be it an experiment or a lesson; raises ConfigError with all faults."""
    return read_all(paths, overrides, _any)


def _path(name: str) -> Path | str:
    if name == "-" or "/" in name or name.endswith((".yaml", ".yml")):
        return name
    known = shipped()
    if name_of(name) not in known:
        raise UnknownNameError(unknown_name("lesson", name, known))
    return known[name_of(name)]


def _lesson(
    document: Document, file: str, overrides: Sequence[Override]
) -> tuple[Lesson | None, list[Fault]]:
    if document.data.get("kind", "experiment") == "experiment":
        said = f"is no lesson but an experiment; use: initbench run {file}"
        return None, [Fault(file, "kind", said)]
    return read_lesson(document, file, overrides, problems)


def _any(
    document: Document, file: str, overrides: Sequence[Override]
) -> tuple[ExperimentConfig | Lesson | None, list[Fault]]:
    if document.data.get("kind") == "lesson":
        return _lesson(document, file, overrides)
    return validated(ExperimentConfig, document, file, overrides)
