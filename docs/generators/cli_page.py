"""Render docs/cli.md: every command with its arguments and options, from the application itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from docs.generators.markdown import NOTHING, code, generated, page, table
from initbench.cli.lazy_group import load_command
from initbench.cli.main import app

_INTRO = """\
Data go to stdout, progress and messages to stderr. Piped output is plain and never truncated;
`NO_COLOR` and `FORCE_COLOR` are honoured. `--json` prints one strict JSON document: a number that
is not finite is the string `"NaN"`, `"Infinity"` or `"-Infinity"`. Its keys are described in
[how it works](how-it-works.md#json)."""

_EXIT_CODES = (
    ("0", "success; a diverged run is a result, not an error"),
    ("1", "a run failed, or a gate was triggered: `--fail-if`, `--fail-on`, `--strict`, a sweep's gates"),
    ("2", "wrong usage or an invalid config"),
    (
        "3",
        "the data, the store, the device or the memory is not available, or stdout cannot be written"
        " (unless the code is already 1 or 2)",
    ),
    ("4", "a bug in initbench"),
    ("130", "interrupted (Ctrl-C)"),
    ("143", "terminated"),
)
_VARIABLES = (
    ("INITBENCH_RUNS", "directory of stored runs, if `--runs-dir` is not given"),
    ("INITBENCH_DATA", "data directory, if `--data-dir` is not given; the default is the XDG cache folder"),
    ("INITBENCH_PLUGINS", "[plug-ins](plugins.md) in addition to those of `--plugin`, separated by commas"),
)
_SHELL = ("--install-completion", "--show-completion", "--help")


def render(_current: str) -> str:
    """Render the whole page."""
    root = typer.main.get_command(app)
    parts = ["# Commands", generated("the command line itself"), _INTRO]
    parts += ["## initbench", str(root.help), _options(root)]
    for path, command in commands(root):
        parts += _command(path, command)
    parts += ["## Exit codes", table(("code", "meaning"), _EXIT_CODES)]
    parts += ["## Environment", table(("variable", "meaning"), [(code(k), v) for k, v in _VARIABLES])]
    return page(*parts)


def commands(group: Any, path: tuple[str, ...] = ("initbench",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command of `group`, nested groups included, with the words that call it."""
    for name, entry in group.commands.items():
        command = load_command(entry)
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))


def _command(path: tuple[str, ...], command: Any) -> list[str]:
    heading = f"## {' '.join(path)}"
    if hasattr(command, "commands"):
        return [heading, str(command.help or "")]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    words = [*path, "[OPTIONS]", *(_metavar(p) for p in arguments)]
    usage = f"```text\n{' '.join(words)}\n```"
    named = [[code(_metavar(p)), _help(p)] for p in arguments]
    listed = table(("argument", "meaning"), named) if any(text for _, text in named) else ""
    return [heading, _paragraphs(command.help or ""), usage, listed, _options(command)]


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))


def _metavar(argument: Any) -> str:
    if argument.metavar:
        return str(argument.metavar)
    name = str(argument.name).upper()
    return name if argument.required else f"[{name}]"


def _options(command: Any) -> str:
    rows = [
        [", ".join(_spelled(p)), _default(p), _help(p)]
        for p in command.params
        if p.param_type_name == "option" and not p.hidden and p.opts[0] not in _SHELL
    ]
    return table(("option", "default", "meaning"), rows) if rows else ""


def _spelled(option: Any) -> list[str]:
    value = "" if option.is_flag else f" {option.metavar or str(option.name).upper()}"
    long_first = sorted(option.opts, key=lambda name: not name.startswith("--"))
    return [code(name + value) for name in long_first]


def _default(option: Any) -> str:
    return NOTHING if option.is_flag or option.default is None else code(option.default)


def _help(parameter: Any) -> str:
    variable = f" Environment: `{parameter.envvar}`." if parameter.envvar else ""
    return " ".join(str(parameter.help or "").split()) + variable
