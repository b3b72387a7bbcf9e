"""Write docs/lessons.md from stored runs: `python -m docs.lessons RUNS_DIR [LESSON...]`.

RUNS_DIR holds the runs of `initbench lesson --all --runs-dir RUNS_DIR`. If runs are missing, nothing is
written and the lessons are listed. With names of lessons, only their sections are rewritten.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

from docs.generators import lessons_page
from initbench.data.dataset import DataSource
from initbench.data.locate import data_root
from initbench.errors import InitbenchError
from initbench.runner.plan import RunContext
from initbench.store.store import Store
from initbench.study.load_lesson import bundled_lessons, load_lessons
from initbench.study.results import load_stored_runs
from initbench.study.run_lesson import count_runs, run_lesson

PAGE = Path(__file__).resolve().parent / "lessons.md"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m docs.lessons", description=__doc__.splitlines()[0])
    parser.add_argument("runs", metavar="RUNS_DIR", type=Path)
    parser.add_argument("lessons", metavar="LESSON", nargs="*", help="default: all")
    arguments = parser.parse_args()
    source = DataSource(
        root=data_root(None), offline=True, notify=lambda message: print(message, file=sys.stderr)
    )
    context = RunContext(store=Store(arguments.runs), source=source, device=torch.device("cpu"))
    get = partial(load_stored_runs, context=context)
    lessons = load_lessons(arguments.lessons or list(bundled_lessons()))
    missing = {lesson.name: count for lesson in lessons if (count := count_runs(lesson, get).missing)}
    if missing:
        print(
            "\n".join(f"{name}: {count} runs are missing" for name, count in missing.items()), file=sys.stderr
        )
        return 1
    try:
        results = [run_lesson(lesson, get) for lesson in lessons]
    except InitbenchError as error:
        print(error, file=sys.stderr)
        return 1
    current = PAGE.read_text(encoding="utf-8") if arguments.lessons and PAGE.exists() else ""
    PAGE.write_text(lessons_page.render(results, current, list(bundled_lessons())), encoding="utf-8")
    print(f"wrote {PAGE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
