"""`initbench schema`: print the JSON Schema of configs for editors."""

from __future__ import annotations

import typer

from initbench.cli.options import Plugins


def schema(_plugins: Plugins = None) -> None:
    """Print the JSON Schema of a config file; editors use it to complete and check YAML."""
    from initbench.config.json_schema import json_schema

    typer.echo(json_schema(), nl=False)
