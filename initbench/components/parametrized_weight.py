"""Functions that read and write the weight of a layer, which may be a parameter or parametrized."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized


def parametrization_of(module: nn.Module) -> ParametrizationList | None:
    """Return the parametrization that computes the weight of `module`; None if it is a parameter."""
    if not is_parametrized(module, "weight"):
        return None
    return cast("ParametrizationList", module.get_submodule("parametrizations.weight"))


def weight_of(module: nn.Module) -> Tensor:
    """Return the weight (out, in, …) that `module` multiplies by, without changing any buffer."""
    computed = parametrization_of(module)
    if computed is None:
        return module.get_parameter("weight")
    training = computed.training
    computed.eval()
    try:
        return cast("Tensor", computed())
    finally:
        computed.train(training)


@torch.no_grad()
def assign_weight(module: nn.Module, weight: Tensor) -> None:
    """Set the weight to a copy of `weight`; if it is parametrized, set the underlying parameters."""
    if parametrization_of(module) is None:
        module.get_parameter("weight").copy_(weight)
    else:
        module.weight = weight.clone()
