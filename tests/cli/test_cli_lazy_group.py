"""The list of commands imports no command, and says what each command says itself."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import typer

from initbench.cli.lazy_group import LazyCommand, load_command
from initbench.cli.main import app

ROOT: Any = typer.main.get_command(app)


@pytest.mark.parametrize("command", ROOT.commands.values(), ids=lambda command: str(command.name))
def test_the_summary_of_a_command_is_its_first_line(command: LazyCommand) -> None:
    loaded = load_command(command)
    assert loaded.name == command.name
    assert " ".join(loaded.help.split("\n\n")[0].split()).startswith(str(command.short_help))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["mistyped"]])
def test_no_command_is_imported_to_list_them(arguments: list[str]) -> None:
    script = (
        "import sys; from initbench.cli.main import run_command; run_command(sys.argv[1:]);"
        "print(*[name for name in sys.modules if name.startswith('initbench.')], sep='\\n')"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    modules = {line for line in result.stdout.splitlines() if line.startswith("initbench.")}
    assert modules <= {
        "initbench.cli",
        "initbench.cli.lazy_group",
        "initbench.cli.main",
        "initbench.cli.output_streams",
        "initbench.errors",
        "initbench.interrupts",
        "initbench.machine",
        "initbench.render",
        "initbench.render.ascii_text",
    }
