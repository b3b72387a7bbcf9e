"""From options to a net with its weights drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from initbench.memory import failed_allocation_size
from initbench.models.init_weights import InitOptions, check_init, initialise
from initbench.models.network import FAMILIES, FamilyOptions, Network
from initbench.models.shape_checks import raise_config_error
from initbench.models.transfer_checks import check_transfer
from initbench.rng import stream_seed


def check(model: FamilyOptions, init: InitOptions, *, input_shape: tuple[int, ...], classes: int) -> int:
    """Check that such a net can be built and drawn for such samples, and return the bytes of its parameters.

    No weight is drawn and nothing large is made: the net that is looked at has shapes and no data.

    Raises:
        ConfigError: If it cannot; names the keys.
    """
    family = FAMILIES[model.family]
    family.check(model, input_shape)
    with torch.device("meta"):
        try:
            network = family.build(model, input_shape, classes)
        except (RuntimeError, OverflowError, TypeError) as error:
            if isinstance(error, RuntimeError) and failed_allocation_size(error) is None:
                raise
            raise_config_error(
                "model", "a weight of this net has more values than can be counted; choose smaller sizes"
            )
        check_transfer(network, model, init)
        check_init(network, init)
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())


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
    torch's global generator is left as it was. The options are ones that `check` lets pass.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, "build"))
        network = FAMILIES[model.family].build(model, input_shape, classes)
    initialise(network, init, seed=seed, batch=batch)
    return network
