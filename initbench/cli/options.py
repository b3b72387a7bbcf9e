"""Arguments and options shared by several commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from initbench.cli.completion import complete_conditions, complete_config, complete_runs

RunsDir = Annotated[
    Path | None,
    typer.Option(
        "--runs-dir",
        envvar="INITBENCH_RUNS",
        metavar="DIR",
        help="Directory of stored runs; default: ./runs.",
        file_okay=False,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="INITBENCH_DATA",
        metavar="DIR",
        help="Data root in torchvision's layout; default: the cache directory.",
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
        help="A config file, which --model can replace, then overrides.",
        autocompletion=complete_config,
    ),
]
RunPatterns = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN|NAME|GLOB",
        help="Run ids or prefixes of them, experiments, sweeps, globs.",
        autocompletion=complete_runs,
    ),
]


def _request_plugins(names: list[str] | None) -> list[str] | None:
    from initbench import plugins

    plugins.request_plugins(names or [])
    return names


Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="MODULE|FILE",
        help="Module or .py file that adds components (docs/plugins.md); repeatable, also INITBENCH_PLUGINS.",
        callback=_request_plugins,
        is_eager=True,
    ),
]
"""Names that are requested before the other arguments are read, so that commands ignore the value."""


def _request_loss(path: str | None) -> str | None:
    from initbench import plugins

    return None if path is None else plugins.request_loss(path)


LossFrom = Annotated[
    str | None,
    typer.Option(
        "--loss-from",
        metavar="MODULE:FUNCTION",
        help="Your own loss: f(outputs, targets) that returns the mean loss of a batch (docs/own_data.md).",
        callback=_request_loss,
        is_eager=True,
    ),
]
"""Name of the loss function, which becomes the default of `train.loss`."""
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="KEY=VALUE",
        help="Only runs that match; KEY!=VALUE excludes, * is a wildcard.",
        autocompletion=complete_conditions,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Notes = Annotated[
    bool, typer.Option("--notes", help="Print all notes below the tables instead of one summary line.")
]
AllLayers = Annotated[bool, typer.Option("--all-layers", help="Show every layer of a deep net.")]


def add_command(app: typer.Typer, name: str | None, command: Callable[..., None]) -> None:
    """Register `command` in `app`, with its first docstring line untruncated in the list of commands."""
    app.command(name, short_help=str(command.__doc__).partition("\n")[0])(command)


def runs_root(explicit: Path | None) -> Path:
    """Return the directory of stored runs; default: `runs` in the working directory."""
    return explicit if explicit is not None else Path("runs")
