"""Write docs/results.md: each study rewrites only the section between its two marker comments."""

from __future__ import annotations

from pathlib import Path

import torch

from docs.generators.markdown import between

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
_HEAD = """# Results

Studies of initbench itself. Each section is written by the command that it names.
"""


def write_section(name: str, content: str) -> None:
    """Replace the section `name` of the page with `content`; append the section if the page has none."""
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else _HEAD
    if begin not in text:
        text = f"{text.rstrip()}\n\n{begin}\n{end}\n"
    PAGE.write_text(between(text, begin, end, content.strip()), encoding="utf-8")


def written_by(module: str) -> str:
    """Return the sentence that names the command and the version of torch."""
    version = torch.__version__.partition("+")[0]
    return f"Written by `python -m benchmarks.{module}` with torch {version} on the CPU."
