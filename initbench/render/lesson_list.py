"""List of lessons with their questions and their numbers of stored and missing runs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from initbench.render.terminal import print_uncut
from initbench.study.run_study import LessonResult

SCHEMA = "initbench.study-list/1"
_HEADINGS = ("claims", "arms", "stored", "missing")
_WIDE = 110
"""Console width from which the questions are printed to the right of the numbers, not below them."""


def print_list(console: Console, results: Sequence[LessonResult]) -> None:
    """Print each lesson with its question, wrapped to the console width."""
    longest = max(len(result.study.name) for result in results)
    indent = "  "
    is_wide = console.width >= _WIDE
    lines = [Text(_head("lesson", _HEADINGS, longest) + ("  question" if is_wide else ""), "bold")]
    for result in results:
        lesson, stored = result.study, result.complete
        numbers = (len(lesson.config.claims), len(lesson.variants), stored, result.total - stored)
        head = _head(lesson.name, numbers, longest)
        if is_wide:
            indent, first = " " * (len(head) + 2), f"{head}  "
        else:
            first = f"{head}\n{indent}"
        folded = textwrap.wrap(lesson.config.question, console.width - len(indent))
        lines.append(Text(first + f"\n{indent}".join(folded)))
    print_uncut(console, Text("\n").join(lines))


def _head(name: str, numbers: Sequence[object], longest: int) -> str:
    """Return name and numbers, aligned with the headings."""
    cells = (f"{number!s:>{len(heading)}}" for number, heading in zip(numbers, _HEADINGS, strict=True))
    return "  ".join([f"{name:<{longest}}", *cells])


def list_document(results: Sequence[LessonResult]) -> dict[str, Any]:
    """Return the list as plain data."""
    lessons = [
        {
            "name": result.study.name,
            "question": result.study.config.question,
            "source": result.study.config.source,
            "claims": len(result.study.config.claims),
            "arms": [arm.label for arm in result.study.variants],
            "runs": {"stored": result.complete, "missing": result.total - result.complete},
        }
        for result in results
    ]
    return {"schema": SCHEMA, "lessons": lessons}
