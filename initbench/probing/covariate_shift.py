"""Internal covariate shift: changes of a layer's inputs and gradient by updates of the layers below.

Ioffe & Szegedy (2015) introduced the term: the distribution of a layer's inputs changes while the layers
below learn. The form for gradients is definition 2.1 of Santurkar et al. (2018): with the batch and the
update of step t, G_i = ∇_{W_i} L(W_1ᵗ, …, W_Kᵗ) and
G′_i = ∇_{W_i} L(W_1ᵗ⁺¹, …, W_{i−1}ᵗ⁺¹, W_iᵗ, …, W_Kᵗ).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from initbench.models.freezing import layer_tensors
from initbench.models.network import Network, WeightLayer

Tensors = Mapping[str, Tensor]
Moments = dict[str, Tensor]
"""`mean.i` and `std.i` of the input units of weight layer i, with or without a leading axis of runs."""


def parameter_layers(network: Network) -> dict[str, int]:
    """Return the index of the weight layer that each parameter belongs to (see `models.freezing`).

    Scale and shift of a norm belong to the weight layer before the norm.
    """
    return {name: member.index for member in layer_tensors(network) for name in member.tensors}


def weights_of(network: Network, parameters: Tensors) -> dict[int, list[str]]:
    """Return the parameter names of each weight layer, biases included, by index of the layer."""
    return {
        layer.index: [name for name in parameters if name.startswith(f"{layer.name}.")]
        for layer in network.weight_layers()
    }


def input_moments(network: Network, parameters: Tensors, buffers: Tensors, x: Tensor) -> Moments:
    """Return mean and standard deviation (units,) of every weight layer's input over samples and positions.

    The pass runs in the current mode of the net and writes to `buffers`.
    """
    moments: Moments = {}
    with _inputs(network.weight_layers(), moments), torch.no_grad():
        functional_call(network, {**parameters, **buffers}, (x,))
    return moments


@contextmanager
def _inputs(layers: Sequence[WeightLayer], moments: Moments) -> Iterator[None]:
    def moments_hook(index: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        """Return a hook that records the moments of the input of layer `index`."""

        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            units = inputs[0].detach().double().movedim(1, -1)  # (B, …, units)
            axes = list(range(units.ndim - 1))
            mean = units.mean(axes)
            moments[f"mean.{index}"] = mean
            moments[f"std.{index}"] = (units - mean).square().mean(axes).sqrt()

        return hook

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.module.register_forward_pre_hook(moments_hook(layer.index)).remove)
        yield


def input_drift(old: Moments, new: Moments, index: int) -> tuple[float | None, float | None]:
    """Return the changes of the means m_u and standard deviations s_u of a layer's input units u.

    Returns:
        √(Σ_u (m_u − m_u′)² / Σ_u s_u′²) and √(Σ_u (s_u − s_u′)² / Σ_u s_u′²), where ′ marks the old moments.
        The unit is the standard deviation of the old input, pooled over units, so that dead units cause no
        division by zero. Both are None if the old input was constant.
    """
    mean, std = old[f"mean.{index}"], old[f"std.{index}"]
    scale = float(std.square().sum())
    if scale == 0.0:
        return None, None
    moved = new[f"mean.{index}"] - mean, new[f"std.{index}"] - std
    mean_drift, std_drift = (math.sqrt(float(part.square().sum()) / scale) for part in moved)
    return mean_drift, std_drift


def gradient_shift(
    old_gradients: Sequence[Tensor], new_gradients: Sequence[Tensor]
) -> tuple[float, float | None, float | None]:
    """Return ‖G‖, ‖G′ − G‖/‖G‖ and the cosine of G and G′.

    Args:
        old_gradients: G, as one tensor for each parameter of the layer.
        new_gradients: G′, in the same order.

    Returns:
        The three numbers, computed in float64 because gradients may be tiny. A number is None if its
        denominator is 0.
    """
    g = torch.cat([part.double().flatten() for part in old_gradients])
    other = torch.cat([part.double().flatten() for part in new_gradients])
    square, products, others = float(g.square().sum()), float((g * other).sum()), float(other.square().sum())
    moved = float((other - g).square().sum())
    shift = math.sqrt(moved / square) if square else None
    cosine = products / math.sqrt(square * others) if square * others else None
    return math.sqrt(square), shift, cosine
