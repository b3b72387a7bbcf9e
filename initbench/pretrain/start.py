"""Nets as they are before the first update: drawn, and pre-trained where the config says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from initbench.config.schema import ExperimentConfig
from initbench.data.prepare import Bundle
from initbench.errors import UsageError
from initbench.models.network import Mode, Network
from initbench.pretrain.autoencoder import options_of
from initbench.pretrain.greedy import Pretraining, Stride
from initbench.pretrain.transfer import carry_over
from initbench.pretrain.transfer_source import Origin
from initbench.train.checkpoint import Checkpoint
from initbench.train.start import draw


class _Silent:
    """A Listener that nobody looks at."""

    def pretraining(self, stride: Stride) -> None:
        """Nothing."""

    def pretrained(self, run: int, record: dict[str, Any]) -> None:
        """Nothing."""

    def checkpointed(self, run: int, checkpoint: Checkpoint) -> None:
        """Nothing."""


def pretrains(config: ExperimentConfig) -> bool:
    """Whether the nets are trained layer by layer before their first update."""
    return options_of(config.init.scheme) is not None


def check_inputs(config: ExperimentConfig, data: Bundle) -> None:
    """Raise UsageError, naming the keys, for data that the layers cannot be pre-trained on."""
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


def begin(
    config: ExperimentConfig,
    data: Bundle,
    seeds: Sequence[int],
    mode: Mode,
    device: torch.device,
    origins: Sequence[Origin] = (),
) -> list[Network]:
    """One net for each seed as a run starts from it, on the CPU; each is pre-trained by itself.

    `origins`: what each takes its weights from, where the scheme takes them from elsewhere.
    """
    networks = draw(config, data, seeds)
    carry_over(networks, origins, config.init)
    if pretrains(config):
        check_inputs(config, data)
        for network, seed in zip(networks, seeds, strict=True):
            Pretraining(
                [network],
                [seed],
                config,
                mode,
                data=data,
                device=device,
                listener=_Silent(),
                threads=1,
            ).run()
    return networks
