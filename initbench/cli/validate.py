"""`initbench validate`: check configs without running them."""

from __future__ import annotations

import typer

from initbench.cli.custom_data import DataFrom, use_data
from initbench.cli.custom_model import TrainedModelOption, use_model
from initbench.cli.options import ConfigArguments, Plugins
from initbench.errors import UsageError


def validate(
    arguments: ConfigArguments,
    model: TrainedModelOption = None,
    data_from: DataFrom = None,
    _plugins: Plugins = None,
) -> None:
    """Check configs, lessons and sweeps; list every issue as file:line:column: key: problem."""
    from initbench.config.overrides import split_arguments
    from initbench.study.load import load_mixed

    files, overrides = split_arguments(use_data(data_from, use_model(model, arguments)))
    if not files:
        raise UsageError("name at least one config file, as in: initbench validate configs/relu_kaiming.yaml")
    for config in load_mixed(files, overrides):
        typer.echo(f"{config.name}: ok")
