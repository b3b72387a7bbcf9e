"""The list of lessons: what each asks, and how much of it is stored."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from initbench.config.lesson_schema import Lesson
from initbench.render.terminal import print_uncut
from initbench.study.run_lesson import RunCounts

SCHEMA = "initbench.study-list/1"
_HEADINGS = ("claims", "arms", "stored", "missing")
_WIDE = 110
"""Columns from which on the questions stand beside the numbers; in fewer they stand below them."""


def print_list(console: Console, lessons: Sequence[tuple[Lesson, RunCounts]]) -> None:
    """Print each lesson with its question, folded to the console."""
    longest = max(len(lesson.name) for lesson, _ in lessons)
    indent = "  "
    beside = console.width >= _WIDE
    lines = [Text(_head("lesson", _HEADINGS, longest) + ("  question" if beside else ""), "bold")]
    for lesson, stock in lessons:
        numbers = (len(lesson.config.claims), len(lesson.arms), stock.stored, stock.missing)
        head = _head(lesson.name, numbers, longest)
        if beside:
            indent, first = " " * (len(head) + 2), f"{head}  "
        else:
            first = f"{head}\n{indent}"
        folded = textwrap.wrap(lesson.config.question, console.width - len(indent))
        lines.append(Text(first + f"\n{indent}".join(folded)))
    print_uncut(console, Text("\n").join(lines))


def _head(name: str, numbers: Sequence[object], longest: int) -> str:
    """Name and numbers, each under its heading."""
    cells = (f"{number!s:>{len(heading)}}" for number, heading in zip(numbers, _HEADINGS, strict=True))
    return "  ".join([f"{name:<{longest}}", *cells])


def list_document(stored_lessons: Sequence[tuple[Lesson, RunCounts]]) -> dict[str, Any]:
    """The same as plain data."""
    lessons = [
        {
            "name": lesson.name,
            "question": lesson.config.question,
            "source": lesson.config.source,
            "claims": len(lesson.config.claims),
            "arms": [arm.name for arm in lesson.arms],
            "runs": {"stored": stock.stored, "missing": stock.missing},
        }
        for lesson, stock in stored_lessons
    ]
    return {"schema": SCHEMA, "lessons": lessons}
