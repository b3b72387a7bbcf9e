"""The pictures of the pages: each exists, is small, is shown, and is drawn by a command that exists."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer

from benchmarks.synthetic_runs import SyntheticRow, write_runs
from initbench.cli.lazy_group import load_command
from initbench.cli.main import app, run_command

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    for name in [name for name in sys.modules if name == "docs" or name.startswith("docs.")]:
        monkeypatch.delitem(sys.modules, name)
    from docs.generators import pictures

    return pictures


def shown_by(page: Path) -> set[Path]:
    """Return the local pictures of a page."""
    links = IMAGE.findall(page.read_text(encoding="utf-8"))
    return {(page.parent / link).resolve() for link in links if "://" not in link}


def test_every_picture_that_a_page_shows_exists() -> None:
    shown = {page: shown_by(page) for page in PAGES}
    assert shown[ROOT / "README.md"] and shown[ROOT / "docs/lessons.md"]
    missing = [f"{page.name}: {file}" for page, files in shown.items() for file in files if not file.exists()]
    assert missing == []


def test_no_picture_lies_around() -> None:
    shown = set().union(*map(shown_by, PAGES))
    assert set((ROOT / "docs/pictures").iterdir()) <= shown


def test_a_marker_stands_with_its_picture(pictures: Any) -> None:
    for page in pictures.PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert pictures.fill(page, text) == text
        names = [pictures.picture_file(*picture).name for picture in pictures.commands(page).items()]
        in_folder = [file.name for file in shown_by(ROOT / page) if file.parent.name == "pictures"]
        assert sorted(names) == sorted(in_folder), f"{page}: a picture stands without a marker"


def test_the_command_of_a_picture_exists(pictures: Any) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for page in pictures.PAGES:
        for name, arguments in pictures.commands(page).items():
            is_screenshot = arguments[0] == pictures.SCREENSHOT
            command = load_command(commands["report" if is_screenshot else "figure"])
            context = command.make_context("", list(arguments[is_screenshot:]))
            assert context.params["patterns"], name
            assert is_screenshot or context.params["kind"], name


def test_pictures_are_small_and_have_a_description(pictures: Any) -> None:
    for page in pictures.PAGES:
        for name, arguments in pictures.commands(page).items():
            file = pictures.picture_file(name, arguments)
            if file.suffix == ".png":
                assert file.stat().st_size <= pictures.MAX_SCREENSHOT_BYTES, name
                continue
            assert file.stat().st_size <= pictures.MAX_BYTES[page], name
            root = ElementTree.parse(file).getroot()
            assert root.findtext(f"{SVG}title") and "Nets: " in (root.findtext(f"{SVG}desc") or ""), name


def test_the_first_picture_of_the_readme_is_a_page(pictures: Any) -> None:
    _, arguments = next(iter(pictures.commands("README.md").items()))
    assert arguments[:3] == ["report", "relu_kaiming", "relu_xavier"]


def test_a_screenshot_shows_the_top_of_the_page(pictures: Any, tmp_path: Path) -> None:
    runs, file = tmp_path / "runs", tmp_path / "page.png"
    write_runs(runs, [SyntheticRow("healthy", 1.0), SyntheticRow("vanishing", 0.5)], depth=6, probes=3)
    page = tmp_path / "page.html"
    assert run_command(["report", "--runs-dir", str(runs), "-o", str(page)]) == 0
    try:
        pictures.take_screenshot(page, file)
    except Exception as error:
        if type(error).__name__ != "NoBrowserError":  # the module of the class is imported again
            raise
        pytest.skip(str(error))
    header = file.read_bytes()[:24]
    size = int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
    assert header.startswith(b"\x89PNG") and size == pictures.SCREENSHOT_SIZE


def test_a_picture_without_its_runs_is_an_error(pictures: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^x: initbench: .*absent"):
        pictures.draw("x", ["depth-q", "absent"], tmp_path)
    assert not (pictures.PICTURES / "x.svg").exists()
