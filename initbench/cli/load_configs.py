"""From the arguments of a command to experiment configs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from initbench.errors import UsageError

if TYPE_CHECKING:
    from initbench.config.schema import ExperimentConfig


def load_experiments(arguments: Sequence[str]) -> list[ExperimentConfig]:
    """Load every config file under the overrides; raises ConfigError with all faults of all files."""
    from initbench.config.loading import load_all
    from initbench.config.overrides import split_arguments
    from initbench.config.schema import ExperimentConfig

    files, overrides = split_arguments(list(arguments))
    if not files:
        raise UsageError("name at least one config file, as in: initbench run configs/relu_kaiming.yaml")
    return load_all(files, overrides, ExperimentConfig)


def load_experiment(arguments: Sequence[str], defaults: Mapping[str, object], verb: str) -> ExperimentConfig:
    """Load the one config that a command is about; `defaults` hold for keys that no argument sets."""
    overridden_keys = {argument.partition("=")[0] for argument in arguments if "=" in argument}
    missing = [f"{key}={value}" for key, value in defaults.items() if key not in overridden_keys]
    configs = load_experiments([*arguments, *missing])
    if len(configs) > 1:
        raise UsageError(f"{verb} one config at a time")
    return configs[0]
