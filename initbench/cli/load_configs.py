"""Load experiment configs from the arguments of a command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from initbench.cli.options import runs_root
from initbench.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from initbench.config.schema import ExperimentConfig
    from initbench.data.dataset import DataSource
    from initbench.diagnostics.net_source import ConfigNets


def load_experiments(arguments: Sequence[str]) -> list[ExperimentConfig]:
    """Load every config file with the overrides; raise ConfigError with the issues of all files."""
    from initbench.config.loading import load_all
    from initbench.config.overrides import split_arguments
    from initbench.config.schema import ExperimentConfig

    files, overrides = split_arguments(list(arguments))
    if not files:
        raise UsageError("name at least one config file, as in: initbench run configs/relu_kaiming.yaml")
    return load_all(files, overrides, ExperimentConfig)


def with_own_loss(arguments: Sequence[str], loss: str | None) -> list[str]:
    """Return the arguments with an override that names the loss of --loss-from, unless one names a loss."""
    has_loss = any(argument.partition("=")[0] in ("train.loss", "train.loss.name") for argument in arguments)
    return [*arguments] if loss is None or has_loss else [*arguments, f"train.loss={loss}"]


def load_experiment(arguments: Sequence[str], defaults: Mapping[str, object], verb: str) -> ExperimentConfig:
    """Load the single config of a command; `defaults` apply to keys that no argument sets."""
    configs = load_with_defaults(arguments, defaults)
    if len(configs) > 1:
        raise UsageError(f"{verb} one config at a time")
    return configs[0]


def load_with_defaults(arguments: Sequence[str], defaults: Mapping[str, object]) -> list[ExperimentConfig]:
    """Load every config file with the overrides; `defaults` apply to keys that no argument sets."""
    overridden_keys = {argument.partition("=")[0] for argument in arguments if "=" in argument}
    missing = [f"{key}={value}" for key, value in defaults.items() if key not in overridden_keys]
    return load_experiments([*arguments, *missing])


def untrained_nets(
    config: ExperimentConfig,
    source: DataSource,
    runs_dir: Path | None,
    device: str = "cpu",
    *,
    keep_weights: bool = False,
) -> ConfigNets:
    """Return the nets of a config before training, with their data and the weights that they start from."""
    from initbench.data.locate import resolve_dataset
    from initbench.data.preprocessing import preprocess
    from initbench.diagnostics.net_source import ConfigNets
    from initbench.pretrain.weight_sources import resolve_weight_sources
    from initbench.runner.device import resolve_device
    from initbench.store.store import Store

    torch_device = resolve_device(device)
    origins = resolve_weight_sources(config, Store(runs_root(runs_dir)), source)
    data = preprocess(resolve_dataset(config.data, source), config.data, torch_device)
    return ConfigNets(config, data, origins, keep_weights=keep_weights)
