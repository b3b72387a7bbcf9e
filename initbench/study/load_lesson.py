"""Loaders of lessons, by name or by path, and of files that may declare any kind of config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from initbench.config.bundled_files import CONFIGS
from initbench.config.lesson_loader import lesson_name, read_lesson
from initbench.config.lesson_schema import Lesson
from initbench.config.loading import read_all, validate_document
from initbench.config.overrides import Override
from initbench.config.schema import ExperimentConfig
from initbench.config.sweep_loader import read_sweep
from initbench.config.sweep_schema import Sweep
from initbench.config.yaml_reader import Document
from initbench.errors import ConfigIssue, UnknownNameError
from initbench.registry import unknown_name_message
from initbench.study.validate_lesson import find_lesson_issues
from initbench.study.validate_sweep import find_sweep_issues as sweep_problems

LESSONS = CONFIGS / "lessons"
"""Folder of the shipped lessons."""


def bundled_lessons() -> dict[str, Path]:
    """Return the paths of the shipped lessons by name, in the order of their files."""
    return (
        {lesson_name(path.name): path for path in sorted(LESSONS.glob("*.yaml"))} if LESSONS.is_dir() else {}
    )


def load_lessons(names: Sequence[str], overrides: Sequence[str] = ()) -> list[Lesson]:
    """Load lessons, given as names of shipped ones or paths of files, and apply `overrides` to their arms.

    Raises:
        UnknownNameError: If a name is neither a shipped lesson nor a path.
        ConfigError: If a file has faults; the error lists those of all files.
    """
    return read_all([_path(name) for name in names], overrides, _read_lesson)


def load_mixed(paths: Sequence[str], overrides: Sequence[str]) -> list[ExperimentConfig | Lesson | Sweep]:
    """Load the experiment, lesson or sweep of each file; raises ConfigError with the faults of all files."""
    return read_all(paths, overrides, _read_any)


def _path(name: str) -> Path | str:
    if name == "-" or "/" in name or name.endswith((".yaml", ".yml")):
        return name
    lessons = bundled_lessons()
    if lesson_name(name) not in lessons:
        raise UnknownNameError(unknown_name_message("lesson", name, lessons))
    return lessons[lesson_name(name)]


def _read_lesson(
    document: Document, file: str, overrides: Sequence[Override]
) -> tuple[Lesson | None, list[ConfigIssue]]:
    kind = document.data.get("kind", "experiment")
    if kind in ("experiment", "sweep"):
        command = "run" if kind == "experiment" else "sweep"
        problem = (
            f"is no lesson but {'an' if command == 'run' else 'a'} {kind}; use: initbench {command} {file}"
        )
        return None, [ConfigIssue(file, "kind", problem)]
    return read_lesson(document, file, overrides, find_lesson_issues)


def _read_any(
    document: Document, file: str, overrides: Sequence[Override]
) -> tuple[ExperimentConfig | Lesson | Sweep | None, list[ConfigIssue]]:
    if document.data.get("kind") == "lesson":
        return _read_lesson(document, file, overrides)
    if document.data.get("kind") == "sweep":
        return read_sweep(document, file, overrides, sweep_problems)
    return validate_document(ExperimentConfig, document, file, overrides)
