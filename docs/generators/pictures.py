"""Pictures of pages, drawn by `initbench figure` from stored runs.

A page marks a picture with the name of its file in docs/pictures and the arguments of the command:

    <!-- picture: NAME KIND RUN… -->
    ![title](pictures/NAME.svg)
    <!-- /picture -->
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from html import unescape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "pictures"
PAGES = ("README.md", "docs/tutorial.md", "docs/lessons.md")
"""Pages that may show pictures."""
MAX_BYTES = {"README.md": 200_000, "docs/tutorial.md": 120_000, "docs/lessons.md": 60_000}
"""Largest size of a picture of each page."""
_MARKER = re.compile(r"<!-- picture: (\S+) ([^>]+?) -->\n.*?<!-- /picture -->", re.DOTALL)


def commands(page: str) -> dict[str, list[str]]:
    """Return the arguments of `initbench figure` for each picture of a page, by the name of the picture."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return {name: shlex.split(words) for name, words in _MARKER.findall(text)}


def draw(name: str, arguments: list[str], runs_dir: Path) -> Path:
    """Draw a picture from stored runs and return its file.

    Raises:
        RuntimeError: If the command fails.
    """
    file = PICTURES / f"{name}.svg"
    PICTURES.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "initbench", "figure", *arguments]
    options = ["-o", str(file), "--runs-dir", str(runs_dir)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *options], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip()}")
    return file


def block(page: str, name: str, arguments: list[str]) -> str:
    """Return the marker of a picture, with the picture as an image of the page."""
    file = PICTURES / f"{name}.svg"
    svg = file.read_text(encoding="utf-8")
    title = unescape(svg.partition("<title>")[2].partition("</title>")[0])
    link = os.path.relpath(file, (ROOT / page).parent)
    return f"<!-- picture: {name} {shlex.join(arguments)} -->\n\n![{title}]({link})\n\n<!-- /picture -->"


def fill(page: str, text: str) -> str:
    """Return the text of a page in which every marker has its picture."""
    return _MARKER.sub(lambda match: block(page, match[1], shlex.split(match[2])), text)


def write(runs_dir: Path, pages: tuple[str, ...] = PAGES) -> list[str]:
    """Draw the pictures of pages, add them to the pages, and return the names of the files drawn."""
    files = []
    for page in pages:
        for name, arguments in commands(page).items():
            files.append(draw(name, arguments, runs_dir).relative_to(ROOT).as_posix())
        path = ROOT / page
        path.write_text(fill(page, path.read_text(encoding="utf-8")), encoding="utf-8")
    return files
