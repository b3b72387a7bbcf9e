"""`initbench new`: write a first config to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from initbench.errors import UsageError


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the experiment; the file is NAME.yaml.")
    ],
) -> None:
    """Write NAME.yaml, a commented config that trains within a minute; never overwrite a file."""
    from initbench.config.template import first_config

    path = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    text = first_config(path.stem)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} already exists; choose another name") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from None
    typer.echo(f"wrote {path}; start it with: initbench run {path}")
