"""Hidden layer shared by several model families: weights, norm and activation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from initbench.components.activation import ACTIVATIONS
from initbench.components.norm import NORMS
from initbench.models.linear import Linear
from initbench.models.network import FamilyOptions, LayerSite


def channels_before_activation(options: FamilyOptions, width: int) -> int:
    """Return the number of channels between the weights and the activation of a layer of `width` units."""
    return ACTIVATIONS[options.activation.name].features_in(width, options.activation)


def channels_after_activation(options: FamilyOptions, width: int) -> int:
    """Return the number of output channels of a layer of `width` units."""
    return ACTIVATIONS[options.activation.name].features_out(width, options.activation)


def norm_first(options: FamilyOptions) -> bool:
    """Return whether the norm layer precedes the activation."""
    return options.norm_placement == "before_activation"


def normed_units(options: FamilyOptions, width: int) -> int:
    """Return the number of channels of the norm layer in a layer of `width` units."""
    return (channels_before_activation if norm_first(options) else channels_after_activation)(options, width)


def norm_layer(options: FamilyOptions, width: int) -> nn.Module | None:
    """Return the norm layer for a layer of `width` units; None if the norm inserts no module.

    It computes in float32 after a product in bf16: sums over a batch need more than its eight bits.
    """
    norm = NORMS[options.norm.name].build(normed_units(options, width), options.norm)
    if norm is not None:
        norm.register_forward_pre_hook(_widen_bf16)
    return norm


def _widen_bf16(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.float() if x.dtype is torch.bfloat16 else x for x in inputs)


def activation_layer(options: FamilyOptions, width: int) -> nn.Module:
    """Return a new activation module for a layer of `width` units."""
    return ACTIVATIONS[options.activation.name].build(
        options.activation, channels_before_activation(options, width)
    )


def linear(options: FamilyOptions, inputs: int, width: int) -> nn.Module:
    """Return the weights of a fully connected layer of `width` units.

    The module maps (B, inputs) to (B, channels_before_activation).
    """
    layer = Linear(inputs, channels_before_activation(options, width), bias=has_bias(options, width))
    return NORMS[options.norm.name].wrap(layer, options.norm)


def convolution(options: FamilyOptions, inputs: int, width: int, kernel: int, stride: int = 1) -> nn.Module:
    """Return a convolution for a layer of `width` units, padded with zeros; `kernel` is odd.

    The module maps (B, inputs, H, W) to (B, channels_before_activation, ⌈H/stride⌉, ⌈W/stride⌉).
    """
    layer = nn.Conv2d(
        inputs,
        channels_before_activation(options, width),
        kernel,
        stride,
        padding=kernel // 2,
        bias=has_bias(options, width),
    )
    return NORMS[options.norm.name].wrap(layer, options.norm)


def has_bias(options: FamilyOptions, width: int) -> bool:
    """Return whether the weights have a bias: not before a norm layer, which cancels it and has a shift."""
    return options.bias and not (norm_first(options) and norm_layer(options, width) is not None)


class HiddenLayer(nn.Module):
    """The weights `op`, then norm and activation in the order of the options. (B, C, …) → (B, C', …).

    `closing` is for the last layer of a residual branch: the activation then follows the addition, possibly
    with a norm layer after it, and neither is part of this layer. `before_op` and `before_activation` are
    empty slots for learned shifts.
    """

    def __init__(self, options: FamilyOptions, op: nn.Module, width: int, *, closing: bool = False) -> None:
        super().__init__()
        self._norm_first = norm_first(options)
        self.before_op: nn.Module = nn.Identity()
        self.op = op
        norm = norm_layer(options, width) if self._norm_first or not closing else None
        self.norm = norm or nn.Identity()
        self.before_activation: nn.Module = nn.Identity()
        self.activation = nn.Identity() if closing else activation_layer(options, width)

    def site(self, activation: nn.Module | None) -> LayerSite:
        """Return the site of the weights; `activation` is the activation that follows them."""
        return LayerSite(self.op, self.norm if self._norm_first else self.op, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        h = self.op(self.before_op(x))
        if self._norm_first:
            return self.activation(self.before_activation(self.norm(h)))  # type: ignore[no-any-return]
        return self.norm(self.activation(self.before_activation(h)))  # type: ignore[no-any-return]
