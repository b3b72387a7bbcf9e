"""The commands of README and docs work when they are pasted, page by page and in that order.

A page says in a comment above a block what cannot be known from it: `<!-- exits with 1 -->`, which is
meant of its last command, or `<!-- not run: REASON -->`. The configs are those that are shipped, on digits
and shortened.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from initbench.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md")))]
BLOCK = re.compile(r"((?:^<!-- [^\n]* -->\n+)*)^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = {"README.md": 4, "docs/ci.md": 1, "docs/compare.md": 1, "docs/lessons.md": 1, "docs/tutorial.md": 2}
STEPS, SEEDS, WIDTH = 20, 2, 16


@dataclass(frozen=True)
class Block:
    """A fence of a page with commands in it."""

    commands: tuple[str, ...]
    exit_code: int
    """Of the last command."""
    is_run: bool


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a page that hold commands for a shell."""
    for comments, language, content in BLOCK.findall(text):
        lines = content.replace("\\\n", " ").splitlines()
        if language in ("sh", "bash", "shell"):
            commands = [line for line in lines if line.strip()]
        elif language in ("console", "text"):
            commands = [line[2:] for line in lines if line.startswith("$ ")]
        else:
            continue
        if commands:
            code = re.search(r"<!-- exits with (\d+) -->", comments)
            yield Block(tuple(commands), int(code[1]) if code else 0, "<!-- not run: " not in comments)


def _read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def _words(command: str) -> list[str]:
    """The arguments of `initbench …`, patterns of files expanded, a pipe or redirection left out."""
    words = shlex.split(command, comments=True)[1:]
    end = next((i for i, word in enumerate(words) if word in ("|", ">", "2>", "<")), len(words))
    return [name for word in words[:end] for name in sorted(map(str, Path().glob(word))) or [word]]


def _is_offline(words: list[str]) -> list[str]:
    command: Any = typer.main.get_command(app)
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    takes = any("--offline" in parameter.opts for parameter in command.params)
    return ["--offline"] if takes else []


def _copy_configs(folder: Path) -> None:
    """The shipped configs on digits, shortened; sweeps as well, but for what their gates need."""
    shutil.copytree(ROOT / "configs", folder / "configs")
    for path in (folder / "configs").glob("*.yaml"):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        data = config["data"]
        config["data"] = data if data["name"] == "digits" else {"name": "digits"}
        config["train"]["steps"] = min(STEPS, config["train"].get("steps", STEPS))
        config["train"].pop("epochs", None)
        config["seeds"] = SEEDS
        if config["model"]["family"] == "mlp":
            config["model"]["width"] = WIDTH
        path.write_text(yaml.safe_dump(config), encoding="utf-8")


def test_blocks_are_read_with_what_is_said_of_them():
    text = (
        "<!-- exits with 1 -->\n\n```console\n$ initbench a \\\n    b\nout\n$ initbench c\n```\n"
        "```yaml\nx: 1\n```\n<!-- not run: slow -->\n```sh\nmake run\n\ninitbench d\n```\n"
    )
    assert list(blocks(text)) == [
        Block(("initbench a      b", "initbench c"), 1, True),
        Block(("make run", "initbench d"), 0, False),
    ]


@pytest.mark.parametrize("page", PAGES)
def test_what_is_not_run_is_marked_and_counted(page: str):
    found = list(blocks(_read(page)))
    assert sum(not block.is_run for block in found) == NOT_RUN.get(page, 0)
    for block in found:
        if block.is_run:
            assert any(command.startswith("initbench ") for command in block.commands), block


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.is_run for block in blocks(_read(page)))]
)
def test_the_commands_of_a_page_work_in_order(
    page: str, initbench: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _copy_configs(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for source in re.findall(r"^```python\n(.*?)^```$", _read(page), re.MULTILINE | re.DOTALL):
        if "def make(" in source:
            Path("nets.py").write_text(source, encoding="utf-8")
    failures = []
    for block in blocks(_read(page)):
        commands = [line for line in block.commands if line.startswith("initbench ")] if block.is_run else []
        for command in commands:
            expected = block.exit_code if command == commands[-1] else 0
            words = _words(command)
            said = initbench(*words, *_is_offline(words))
            if said.code != expected:
                failures.append(f"{command}\nexit code {said.code}, not {expected}\n{said.err[-600:]}")
    assert not failures, "\n\n".join(failures)
