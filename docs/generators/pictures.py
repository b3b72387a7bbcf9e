"""Pictures of pages, drawn by `initbench figure` from stored runs, and screenshots of `initbench report`.

A page marks a picture with the name of its file in docs/pictures and the arguments of the command:

    <!-- picture: NAME KIND RUN… -->
    ![title](pictures/NAME.svg)
    <!-- /picture -->

The word `report` in place of the KIND of a figure makes a screenshot of the top of the page, as PNG.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from html import unescape
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from tools.headless_browser import headless_browser

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "pictures"
PAGES = ("README.md", "docs/tutorial.md", "docs/lessons.md")
"""Pages that may show pictures."""
MAX_BYTES = {"README.md": 200_000, "docs/tutorial.md": 120_000, "docs/lessons.md": 60_000}
"""Largest size of a picture of each page."""
MAX_SCREENSHOT_BYTES = 300_000
SCREENSHOT_SIZE = (1160, 1240)
"""Width and height of a screenshot in pixels of the page."""
SCREENSHOT = "report"
"""First argument of the marker of a screenshot."""
_IS_DRAWN = """[...document.querySelectorAll(".plot")].every((plot) =>
  plot.getBoundingClientRect().top > innerHeight || plot.dataset.drawn)"""
"""JavaScript that tells whether the script of the page has drawn all figures in the window."""
_MARKER = re.compile(r"<!-- picture: (\S+) ([^>]+?) -->\n.*?<!-- /picture -->", re.DOTALL)


def commands(page: str) -> dict[str, list[str]]:
    """Return the arguments of `initbench figure` for each picture of a page, by the name of the picture."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return {name: shlex.split(words) for name, words in _MARKER.findall(text)}


def picture_file(name: str, arguments: list[str]) -> Path:
    """Return the file of a picture."""
    return PICTURES / f"{name}{'.png' if arguments[0] == SCREENSHOT else '.svg'}"


def draw(name: str, arguments: list[str], runs_dir: Path) -> Path:
    """Draw a picture from stored runs and return its file.

    Raises:
        RuntimeError: If the command fails.
        NoBrowserError: If a screenshot is to be made, and no browser can be started.
    """
    file = picture_file(name, arguments)
    PICTURES.mkdir(exist_ok=True)
    if arguments[0] != SCREENSHOT:
        _run_command(name, ["figure", *arguments], runs_dir, file)
        return file
    with TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        _run_command(name, arguments, runs_dir, page)
        take_screenshot(page, file)
    return file


def _run_command(name: str, arguments: list[str], runs_dir: Path, output: Path) -> None:
    command = [sys.executable, "-m", "initbench", *arguments]
    options = ["-o", str(output), "--runs-dir", str(runs_dir)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *options], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip()}")


def take_screenshot(page: Path, file: Path) -> None:
    """Write the top of a report page as PNG, when the figures there are drawn."""
    width, height = SCREENSHOT_SIZE
    with headless_browser() as browser:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="light", reduced_motion="reduce"
        )
        tab = context.new_page()
        tab.goto(page.as_uri())
        tab.wait_for_function("document.body.dataset.ready === 'true'")
        tab.wait_for_function(_IS_DRAWN)
        tab.screenshot(path=file)
        context.close()
    with Image.open(file) as image:  # a palette takes a third of the bytes
        image.convert("RGB").quantize(256).save(file, optimize=True)


def block(page: str, name: str, arguments: list[str]) -> str:
    """Return the marker of a picture, with the picture as an image of the page."""
    file = picture_file(name, arguments)
    if arguments[0] == SCREENSHOT:
        title = f"The page of initbench {shlex.join(arguments)}"
    else:
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
