"""`initbench validate`: check configs without running them."""

from __future__ import annotations

import typer

from initbench.cli.options import ConfigArguments


def validate(arguments: ConfigArguments) -> None:
    """Check config files; every fault is listed as file:line:column: key: problem."""
    from initbench.cli.configs import load_experiments

    for config in load_experiments(arguments):
        typer.echo(f"{config.name}: ok")
