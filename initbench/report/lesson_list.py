"""The list of lessons: what each asks, and how much of it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from initbench.config.lesson import Lesson
from initbench.lesson.conduct import Stock
from initbench.report.terminal import print_uncut

SCHEMA = "initbench.lesson-list/1"


def print_list(console: Console, found: Sequence[tuple[Lesson, Stock]]) -> None:
    """Print a line for each lesson; questions are folded to what the console leaves them."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "right", "right", "right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_column(overflow="fold")
    headings = ("lesson", "claims", "arms", "stored", "missing", "question")
    table.add_row(*(Text(heading, "bold") for heading in headings))
    for lesson, stock in found:
        numbers = (len(lesson.config.claims), len(lesson.arms), stock.stored, stock.missing)
        table.add_row(lesson.name, *map(str, numbers), lesson.config.question)
    print_uncut(console, table)


def list_document(found: Sequence[tuple[Lesson, Stock]]) -> dict[str, Any]:
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
        for lesson, stock in found
    ]
    return {"schema": SCHEMA, "lessons": lessons}
