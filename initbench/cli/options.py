"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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


def runs_root(explicit: Path | None) -> Path:
    """The directory of stored runs: the one given, else `runs` in the working directory."""
    return explicit if explicit is not None else Path("runs")
