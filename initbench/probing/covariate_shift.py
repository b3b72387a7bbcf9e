"""Internal covariate shift: how a layer's inputs drift, and its gradient turns, as those below move.

The notion is Ioffe & Szegedy's (2015): the distribution of a layer's inputs changes as the layers below
learn. Its gradient form is definition 2.1 of Santurkar et al. (2018): with the batch and the update of
step t, G_i = ∇_{W_i} L(W_1ᵗ, …, W_Kᵗ) and G′_i = ∇_{W_i} L(W_1ᵗ⁺¹, …, W_{i−1}ᵗ⁺¹, W_iᵗ, …, W_Kᵗ).
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
"""mean.i and std.i of the units of the input of weight layer i, with leading axes of runs or none."""


def parameter_layers(network: Network) -> dict[str, int]:
    """By parameter, the index of the weight layer that it moves with (`models.frozen.members`).

    A norm's scale and shift go with the weights in front of them.
    """
    return {name: member.index for member in layer_tensors(network) for name in member.tensors}


def weights_of(network: Network, parameters: Tensors) -> dict[int, list[str]]:
    """By index of a weight layer, the names of its W_i: the parameters of its module, biases included."""
    return {
        layer.index: [name for name in parameters if name.startswith(f"{layer.name}.")]
        for layer in network.weight_layers()
    }


def input_moments(network: Network, parameters: Tensors, buffers: Tensors, x: Tensor) -> Moments:
    """Mean and standard deviation (units,) of every weight layer's input over x (B, …) and its positions.

    The pass is in the mode that the net is in, and writes to `buffers`.
    """
    moments: Moments = {}
    with _inputs(network.weight_layers(), moments), torch.no_grad():
        functional_call(network, {**parameters, **buffers}, (x,))
    return moments


@contextmanager
def _inputs(layers: Sequence[WeightLayer], moments: Moments) -> Iterator[None]:
    def moments_hook(index: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        """A hook that finds the moments of what goes into layer `index`."""

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
    """How far the means m_u and the standard deviations s_u of a layer's input units u have moved.

    √(Σ_u (m_u − m_u′)² / Σ_u s_u′²) and √(Σ_u (s_u − s_u′)² / Σ_u s_u′²), ′ being the former moment: in
    standard deviations of the former input, pooled over units, so that dead ones divide by nothing. None
    where that was constant.
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
    """‖G‖, ‖G′ − G‖/‖G‖ and the cosine of G and G′, each given as the gradients of a layer's parameters.

    None where a norm that is divided by is 0. Sums are in float64, since gradients may be tiny.
    """
    g = torch.cat([part.double().flatten() for part in old_gradients])
    other = torch.cat([part.double().flatten() for part in new_gradients])
    square, products, others = float(g.square().sum()), float((g * other).sum()), float(other.square().sum())
    moved = float((other - g).square().sum())
    shift = math.sqrt(moved / square) if square else None
    cosine = products / math.sqrt(square * others) if square * others else None
    return math.sqrt(square), shift, cosine
