"""Networks before the first update: drawn, and pre-trained if the config asks for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from initbench.config.schema import ExperimentConfig
from initbench.data.preprocessing import PreparedData
from initbench.errors import UsageError
from initbench.models.network import Mode, Network
from initbench.pretrain.autoencoder import options_of
from initbench.pretrain.layerwise import Pretraining
from initbench.pretrain.transfer import load_pretrained
from initbench.pretrain.weight_sources import WeightSource
from initbench.train.loop import TrainingSetup
from initbench.train.network_builder import build_networks


def is_layerwise_pretrained(config: ExperimentConfig) -> bool:
    """Return whether the nets are trained layer by layer before their first update."""
    return options_of(config.init.scheme) is not None


def check_pretraining_inputs(config: ExperimentConfig, data: PreparedData) -> None:
    """Raise UsageError, which names the keys, if layers cannot be pre-trained on the data."""
    options = options_of(config.init.scheme)
    if options is None:
        return
    x = data.pretraining_x
    if options.batch_size is not None and options.batch_size > len(x):
        raise UsageError(
            f"init.scheme.batch_size must be from 1 to the number of training samples, {len(x):,};"
            f" found {options.batch_size:,}"
        )
    low, high = float(x.min()), float(x.max())
    if options.loss == "bce" and (low < 0.0 or high > 1.0):
        raise UsageError(
            f"init.scheme.loss=bce needs inputs between 0 and 1, and these go from {low:.3g} to {high:.3g}:"
            " set data.normalize=none (pixels are then 0 to 1), or init.scheme.loss=mse"
        )


def initial_networks(
    config: ExperimentConfig,
    data: PreparedData,
    seeds: Sequence[int],
    mode: Mode,
    device: torch.device,
    origins: Sequence[WeightSource] = (),
) -> list[Network]:
    """Return one net for each seed before its first update, on the CPU; each is pre-trained alone.

    `origins`: weight source of each net; empty if the scheme loads no weights.
    """
    networks = build_networks(config, data, seeds)
    load_pretrained(networks, origins, config.init)
    if is_layerwise_pretrained(config):
        check_pretraining_inputs(config, data)
        for network, seed in zip(networks, seeds, strict=True):
            setup = TrainingSetup(
                networks=[network], seeds=[seed], config=config, mode=mode, data=data, device=device
            )
            Pretraining(setup, emit=lambda _event: None).run()
    return networks
