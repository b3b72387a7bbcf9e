"""Cosine norm: the cosine, or the correlation, of weight and input instead of their product."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from initbench.components.norm import NORMS, Norm, ShapeIssue
from initbench.components.norms.affine import EpsOptions


class CosineNormOptions(EpsOptions):
    """Options of cosine norm."""

    eps: float = Field(default=1e-6, gt=0.0)
    """Constant added to the squared lengths of weight and input before the square root."""
    centered: bool = False
    """Subtract the means of weight and input first, which gives Pearson's correlation."""


def _unit_rows(rows: Tensor, options: CosineNormOptions) -> Tensor:
    rows = rows.float() if rows.dtype is torch.bfloat16 else rows  # its lengths are sums
    if options.centered:
        rows = rows - rows.mean(1, keepdim=True)
    return rows * torch.rsqrt(rows.square().sum(1, keepdim=True) + options.eps)


class CosineLinear(nn.Linear):
    """Linear layer with y = cos(w, x) + b for each unit. (B, in) → (B, out)."""

    def __init__(self, layer: nn.Linear, options: CosineNormOptions) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None)
        self.weight, self.bias, self._options = layer.weight, layer.bias, options

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        product = (_unit_rows(self.weight, self._options) @ _unit_rows(x, self._options).mT).mT
        return product if self.bias is None else product + self.bias


class CosineConv2d(nn.Conv2d):
    """Convolution with y = cos(w, patch) + b, padding included. (B, C, H, W) → (B, C', H', W')."""

    def __init__(self, layer: nn.Conv2d, options: CosineNormOptions) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            stride=layer.stride,  # type: ignore[arg-type]
            padding=layer.padding,  # type: ignore[arg-type]
            dilation=layer.dilation,  # type: ignore[arg-type]
            groups=layer.groups,
            bias=layer.bias is not None,
            padding_mode=layer.padding_mode,
        )
        self.weight, self.bias, self._options = layer.weight, layer.bias, options

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        weight = _unit_rows(self.weight.flatten(1), self._options).view(self.weight.shape)
        lengths = torch.rsqrt(self._patch_squares(x) + self._options.eps)  # (B, groups, H', W')
        product: Tensor = self._conv_forward(x, weight, None)
        by_group = product.reshape(len(x), self.groups, -1, *product.shape[2:])
        y = (by_group * lengths.unsqueeze(2)).flatten(1, 2)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)

    def _patch_squares(self, x: Tensor) -> Tensor:
        """Return the sum of squares of each group's patches, or their variation about the mean if centered.

        (B, C, H, W) → (B, groups, H', W').
        """
        grouped = x.reshape(len(x), self.groups, -1, *x.shape[2:])
        ones = self.weight.new_ones(self.groups, 1, *self.kernel_size)
        squares: Tensor = self._conv_forward(grouped.square().sum(2), ones, None)
        if not self._options.centered:
            return squares
        sums: Tensor = self._conv_forward(grouped.sum(2), ones, None)
        return (squares - sums.square() / self.weight[0].numel()).clamp(min=0.0)


def _wrap(layer: nn.Module, options: CosineNormOptions) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return CosineLinear(layer, options)
    if isinstance(layer, nn.Conv2d):
        return CosineConv2d(layer, options)
    raise TypeError(f"cosine norm is for nn.Linear and nn.Conv2d, not {type(layer).__name__}")


def _cosine_problem(shape: tuple[int, ...], _options: CosineNormOptions) -> ShapeIssue | None:
    if shape != (1,):
        return None
    return "", "the cosine of a single weight and a single input is their sign alone"


NORMS.add(
    Norm(
        name="cosine",
        aliases=("cosine_norm", "cosine_normalization", "cosine_normalisation"),
        summary="Each pre-activation is the cosine of weight and input, independent of both scales.",
        formula="y = w·x/(‖w‖·‖x‖) + b",
        source="Luo et al. 2017",
        options=CosineNormOptions,
        acts_on="weights",
        axes=("I", "H", "W"),
        wrap=_wrap,
        problem=_cosine_problem,
        scale_free=True,
    )
)
