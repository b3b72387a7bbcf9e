"""Write the generated pages, or check whether they are fresh.

    python -m docs.generate                       write the pages generated from code
    python -m docs.generate --check               list stale pages; exit 1 if there are any
    python -m docs.generate --measured RUNS_DIR   write the tables and outputs generated from stored runs
    python -m docs.generate --pictures RUNS_DIR   draw the pictures of README and tutorial from stored runs

`--check` does not cover the last two commands. `--measured` needs the runs of every config in configs/ on
mnist and on digits (see `docs.generators.measured`), `--pictures` those that the markers of the pages name
(see `docs.generators.pictures`). `python -m docs.lessons` draws the pictures of the lessons.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from docs.generators import (
    catalogue_page,
    cli_page,
    config_page,
    diagnosis_page,
    export_page,
    lint_page,
    measured,
    pictures,
)

ROOT = Path(__file__).resolve().parent.parent
Render = Callable[[str], str]


def _schema(_current: str) -> str:
    from initbench.config.json_schema import json_schema

    return json_schema()


def _defaults(_current: str) -> str:
    from initbench.config.defaults import defaults_json

    return defaults_json()


PAGES: dict[str, Render] = {
    "docs/config.schema.json": _schema,
    "initbench/analysis/defaults.json": _defaults,
    "docs/config.md": config_page.render,
    "docs/cli.md": cli_page.render,
    "docs/catalogue.md": catalogue_page.render,
    "docs/diagnosis.md": diagnosis_page.render,
    "docs/lint.md": lint_page.render,
    "docs/export.md": export_page.render,
}
MEASURED = ("README.md", "docs/tutorial.md", "docs/compare.md")


def stale(pages: dict[str, Render] | None = None) -> list[str]:
    """Return the names of the pages that differ from the generated text."""
    return [name for name, render in (pages or PAGES).items() if _read(name) != render(_read(name))]


def write(pages: dict[str, Render] | None = None) -> list[str]:
    """Write the pages that differ and return their names."""
    changed = stale(pages)
    for name in changed:
        path = ROOT / name
        path.write_text((pages or PAGES)[name](_read(name)), encoding="utf-8")
    return changed


def _read(name: str) -> str:
    path = ROOT / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is stale")
    parser.add_argument(
        "--measured",
        metavar="RUNS_DIR",
        type=Path,
        help="write the tables and outputs generated from stored runs",
    )
    parser.add_argument(
        "--pictures",
        metavar="RUNS_DIR",
        type=Path,
        help="draw the pictures of the pages from stored runs",
    )
    arguments = parser.parse_args()
    if arguments.pictures:
        for name in pictures.write(arguments.pictures, pages=("README.md", "docs/tutorial.md")):
            print(f"wrote {name}")
        return 0
    if arguments.check:
        names = stale()
        for name in names:
            print(f"{name} is stale; run: make docs", file=sys.stderr)
        return 1 if names else 0
    pages = PAGES
    if arguments.measured:
        render = measured.renderer(arguments.measured, ROOT / "configs")
        pages = dict.fromkeys(MEASURED, render)
    for name in write(pages):
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
