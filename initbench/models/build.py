"""From options to a net with its weights drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from initbench.models.initialise import InitOptions, initialise
from initbench.models.network import FAMILIES, FamilyOptions, Network
from initbench.streams import stream_seed


def check(model: FamilyOptions, input_shape: tuple[int, ...]) -> None:
    """Raise ConfigError, naming the keys, where no such net can be built on samples of that shape."""
    FAMILIES[model.family].check(model, input_shape)


def build(
    model: FamilyOptions,
    init: InitOptions,
    *,
    input_shape: tuple[int, ...],
    classes: int,
    seed: int,
    batch: Tensor,
) -> Network:
    """A net on the CPU whose parameters depend on (options, seed) alone.

    input_shape: (C, H, W) or (D,); batch: (B, *input_shape), the first batch of the run.
    torch's global generator is left as it was. Raises ConfigError where no such net can be built on
    samples of that shape.
    """
    check(model, input_shape)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, "build"))
        network = FAMILIES[model.family].build(model, input_shape, classes)
    initialise(network, init, seed=seed, batch=batch)
    return network
