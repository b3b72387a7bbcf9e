"""Write docs/lessons.md and its pictures from stored runs: `python -m docs.lessons RUNS_DIR [LESSON...]`.

RUNS_DIR holds the runs of `initbench lesson --all --runs-dir RUNS_DIR`. If runs are missing, nothing is
written and the lessons are listed. With names of lessons, only their sections are rewritten.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from docs.generators import lessons_page, pictures
from initbench.data.dataset import DataSource
from initbench.data.locate import data_root
from initbench.errors import InitbenchError
from initbench.runner.plan import RunContext
from initbench.store.store import Store
from initbench.study.load import bundled_lessons, load_lessons
from initbench.study.run_study import load_stored_study

PAGE = Path(__file__).resolve().parent / "lessons.md"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m docs.lessons", description=__doc__.splitlines()[0])
    parser.add_argument("runs", metavar="RUNS_DIR", type=Path)
    parser.add_argument("lessons", metavar="LESSON", nargs="*", help="default: all")
    options = parser.parse_args()
    source = DataSource(
        root=data_root(None), offline=True, notify=lambda message: print(message, file=sys.stderr)
    )
    context = RunContext(store=Store(options.runs), source=source, device=torch.device("cpu"))
    lessons = load_lessons(options.lessons or list(bundled_lessons()))
    results = [load_stored_study(lesson, context, skip_unavailable=True) for lesson in lessons]
    missing = {each.study.name: count for each in results if (count := each.total - each.complete)}
    if missing:
        print(
            "\n".join(f"{name}: {count} runs are missing" for name, count in missing.items()), file=sys.stderr
        )
        return 1
    for lesson in lessons:
        if arguments := lessons_page.PICTURES.get(lesson.name):
            pictures.draw(lessons_page.picture_name(lesson.name), arguments, options.runs)
    current = PAGE.read_text(encoding="utf-8") if options.lessons and PAGE.exists() else ""
    try:
        page = lessons_page.render(results, current, list(bundled_lessons()))
    except InitbenchError as error:
        print(error, file=sys.stderr)
        return 1
    PAGE.write_text(page, encoding="utf-8")
    print(f"wrote {PAGE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
