"""The commands of README and docs work when they are pasted, page by page and in that order.

A page says in a comment above a block what cannot be known from it: `<!-- exits with 1 -->`, which is
meant of its last command, or `<!-- not run: REASON -->`. The commands are those of the page; what they train
is less. The shipped configs are on digits, with 2 seeds, 20 updates and narrow layers, where the command does
not set these keys itself. The shipped sweeps have 2 seeds and 100 updates: too few to trigger their gates.
Lessons have 1 seed and 5 updates, as overrides behind the command. All trains in this process, offline.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from initbench.cli.lazy_group import load_command
from initbench.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md")))]
BLOCK = re.compile(r"((?:^<!-- [^\n]* -->\n+)*)^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = {
    "README.md": 4,
    "docs/ci.md": 1,
    "docs/cluster.md": 4,
    "docs/compare.md": 1,
    "docs/lessons.md": 1,
    "docs/lint.md": 1,
    "docs/own_data.md": 1,
    "docs/own_nets.md": 1,
    "docs/plugins.md": 3,
    "docs/tutorial.md": 2,
}
STEPS, SEEDS, WIDTH = 20, 2, 16
WIDE = ("relu_kaiming", "relu_xavier")
"""Configs that keep their width: pages say what these nets reach in 200 updates."""
SWEEP_STEPS = 100
LESSON_BUDGET = ["seeds=1", "train.steps=5"]


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
            commands = list(_joined(lines))
        elif language in ("console", "text"):
            commands = [line[2:] for line in lines if line.startswith("$ ")]
        else:
            continue
        if commands:
            code = re.search(r"<!-- exits with (\d+) -->", comments)
            yield Block(tuple(commands), int(code[1]) if code else 0, "<!-- not run: " not in comments)


def _joined(lines: list[str]) -> Iterator[str]:
    """The commands of a script, each with the text that it is given (`<<'END'`)."""
    left = iter(lines)
    for line in left:
        end = re.search(r"<<'(\w+)'$", line)
        text = [] if end is None else list(takewhile(lambda one, end=end: one != end[1], left))
        if line.strip():
            yield "\n".join([line, *text])


def _read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def _words(command: str) -> tuple[list[str], str | None]:
    """The arguments of `initbench …`, patterns of files expanded, and the file that its output goes to."""
    words, _, file = shlex.join(shlex.split(command, comments=True)[1:]).partition(" '>' ")
    arguments = [
        name for word in shlex.split(words) for name in sorted(map(str, Path().glob(word))) or [word]
    ]
    return arguments, file or None


def _command(words: list[str]) -> Any:
    """The command that the words begin with, with its options; the program itself where they name none."""
    command: Any = typer.main.get_command(app)
    for word in words:
        command = load_command(getattr(command, "commands", {}).get(word, command))
    return command


def _options(words: list[str]) -> set[str]:
    return {option for parameter in _command(words).params for option in parameter.opts}


def _conditions(words: list[str]) -> list[str]:
    """Options, where the command takes them, that leave out the network and the start of workers."""
    choices = (["--offline"], ["--executor", "inprocess"])
    return [word for choice in choices if choice[0] in _options(words) for word in choice]


def _copy_configs(folder: Path) -> None:
    """The shipped configs on digits and the shipped sweeps, with a smaller budget."""
    shutil.copytree(ROOT / "configs", folder / "configs")
    for path in (folder / "configs").glob("*.yaml"):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        data = config["data"]
        config["data"] = data if data["name"] == "digits" else {"name": "digits"}
        config["train"]["steps"] = min(STEPS, config["train"].get("steps", STEPS))
        config["train"].pop("epochs", None)
        config["seeds"] = SEEDS
        if config["model"]["family"] == "mlp" and config["name"] not in WIDE:
            config["model"]["width"] = WIDTH
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
    for path in (folder / "configs" / "sweeps").glob("*.yaml"):
        sweep = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(sweep["base"], dict):
            sweep["base"]["train"]["steps"] = SWEEP_STEPS
        sweep["seeds"] = SEEDS
        path.write_text(yaml.safe_dump(sweep), encoding="utf-8")


def test_blocks_are_read_with_what_is_said_of_them():
    script = "python - <<'X'\nprint(1)\n\nprint(2)\nX\n"
    text = (
        "<!-- exits with 1 -->\n\n```console\n$ initbench a \\\n    b\nout\n$ initbench c\n```\n"
        f"```yaml\nx: 1\n```\n<!-- not run: slow -->\n```sh\nmake run\n\n{script}initbench d\n```\n"
    )
    assert list(blocks(text)) == [
        Block(("initbench a      b", "initbench c"), 1, True),
        Block(("make run", "python - <<'X'\nprint(1)\n\nprint(2)", "initbench d"), 0, False),
    ]


@pytest.mark.parametrize("page", PAGES)
def test_what_is_not_run_is_marked_and_counted(page: str):
    found = list(blocks(_read(page)))
    assert sum(not block.is_run for block in found) == NOT_RUN.get(page, 0)
    for block in found:
        if block.is_run:
            assert all(command.startswith(("initbench ", "python - <<")) for command in block.commands), block


def unknown_parts(command: str) -> list[str]:
    """Return what a command in running text names but does not exist: the command or its options."""
    words = shlex.split(command.split(" | ")[0])
    names = getattr(_command([]), "commands", {})
    unknown = [word for word in words[1:2] if word not in names and not word.startswith("-")]
    given = [word.partition("=")[0] for word in words if word.startswith("-")]
    return unknown or [option for option in given if option not in {*_options(words[1:]), "-h", "--help"}]


def test_a_command_in_running_text_is_checked():
    assert unknown_parts("initbench compare … --layers | head") == []
    assert unknown_parts("initbench compare --layer --by=x") == ["--layer"]
    assert unknown_parts("initbench compair --layers") == ["compair"]


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_running_text_exist(page: str):
    text = re.sub(r"^```.*?^```$", "", _read(page), flags=re.MULTILINE | re.DOTALL)
    commands = [" ".join(found.split()) for found in re.findall(r"`(initbench [^`]*)`", text)]
    assert {command: parts for command in commands if (parts := unknown_parts(command))} == {}


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
        for command in block.commands if block.is_run else ():
            expected = block.exit_code if command == block.commands[-1] else 0
            code, said = _run(command, initbench)
            if code != expected:
                failures.append(f"{command}\nexit code {code}, not {expected}\n{said[-600:]}")
    assert not failures, "\n\n".join(failures)


def _run(command: str, initbench: Callable[..., Any]) -> tuple[int, str]:
    """Run a command in the current folder; gives its exit code and what it says on stderr."""
    if command.startswith("python - <<"):
        done = subprocess.run(
            [sys.executable, "-"], input=command.partition("\n")[2], capture_output=True, text=True
        )
        return done.returncode, done.stderr
    words, file = _words(command)
    budget = LESSON_BUDGET if words[0] == "lesson" and "ls" not in words else []
    said = initbench(*words, *budget, *_conditions(words))
    if file is not None:
        Path(file).write_text(said.out, encoding="utf-8")
    return said.code, said.err
