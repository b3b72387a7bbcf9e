"""Check options and build a net with initialised weights from them."""

from __future__ import annotations

import torch
from torch import Tensor

from initbench.components.target import SampleShape
from initbench.errors import UsageError
from initbench.machine import failed_allocation_size
from initbench.models.custom_network import CustomNetwork
from initbench.models.init_weights import InitOptions, check_init, initialise
from initbench.models.network import FAMILIES, FamilyOptions, Network
from initbench.models.shape_checks import raise_config_error
from initbench.models.transfer_checks import check_transfer
from initbench.rng import global_stream


def check(model: FamilyOptions, init: InitOptions, *, form: SampleShape) -> int:
    """Check that the net can be built and initialised, and return the size of its parameters in bytes.

    No weight is drawn and nothing large is allocated: the net is built on the meta device.

    Raises:
        ConfigError: If the net cannot be built; names the keys.
    """
    FAMILIES[model.family].check(model, form.shape)
    with torch.device("meta"):
        try:
            network = build_outline(model, form)
        except (RuntimeError, OverflowError, TypeError) as error:
            if isinstance(error, RuntimeError) and failed_allocation_size(error) is None:
                raise
            raise_config_error(
                "model", "a weight of this net has more values than can be counted; choose smaller sizes"
            )
        check_transfer(network, model, init)
        if isinstance(network, CustomNetwork):
            _check_custom_init(network, init)
        else:
            check_init(network, init)
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())


def build_outline(model: FamilyOptions, form: SampleShape) -> Network:
    """Return a net without numbers, on the device meta; a net of the user is on the CPU.

    Raises:
        ConfigError: If the net cannot be built.
    """
    with torch.device("meta"), global_stream(0, "outline"):
        return FAMILIES[model.family].build(model, form)


def build(
    model: FamilyOptions,
    init: InitOptions,
    *,
    form: SampleShape,
    seed: int,
    batch: Tensor,
) -> Network:
    """Return a net on the CPU whose parameters depend on the options and the seed only.

    The options must have passed `check`. torch's global generator is not changed.

    Args:
        model: Options of the model family.
        init: Options of the init.
        form: Form of the samples.
        seed: Seed of the run.
        batch: First batch of the run, (B, *form.shape).
    """
    with global_stream(seed, "build"):
        network = FAMILIES[model.family].build(model, form)
        if isinstance(network, CustomNetwork):
            network.initialise(init, seed=seed, batch=batch)
        else:
            initialise(network, init, seed=seed, batch=batch)
    return network


def _check_custom_init(network: CustomNetwork, init: InitOptions) -> None:
    try:
        with torch.device("cpu"):
            network.layer_rules(init)
    except UsageError as error:
        raise_config_error("init.scheme", str(error).removeprefix("init.scheme: "))
