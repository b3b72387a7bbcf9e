"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from initbench.cli.completion import complete_config, complete_runs

RunsDir = Annotated[
    Path | None,
    typer.Option(
        "--runs-dir",
        envvar="INITBENCH_RUNS",
        metavar="DIR",
        help="Where runs are stored; ./runs when not given.",
        file_okay=False,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="INITBENCH_DATA",
        metavar="DIR",
        help="Data root, laid out as torchvision expects it; the cache when not given.",
    ),
]
ConfigArguments = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE|KEY=VALUE",
        help="Config files, then overrides such as model.depth=50 init.scheme=lsuv seeds=5.",
        autocompletion=complete_config,
        show_default=False,
    ),
]
TargetArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILE|KEY=VALUE",
        help="A config file, then overrides; with --model, overrides alone.",
        autocompletion=complete_config,
    ),
]
RunPatterns = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN|NAME|GLOB",
        help="Run ids or their beginnings, experiments, sweeps, globs.",
        autocompletion=complete_runs,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Notes = Annotated[
    bool, typer.Option("--notes", help="Print all notes below the tables, not one line for them.")
]
AllLayers = Annotated[bool, typer.Option("--all-layers", help="Show every layer of a deep net.")]


def add_command(app: typer.Typer, name: str | None, command: Callable[..., None]) -> None:
    """Make `command` a command of `app`; its summary stands in the list of commands without being cut."""
    app.command(name, short_help=str(command.__doc__).partition("\n")[0])(command)


def runs_root(explicit: Path | None) -> Path:
    """The directory of stored runs: the one given, else `runs` in the working directory."""
    return explicit if explicit is not None else Path("runs")
