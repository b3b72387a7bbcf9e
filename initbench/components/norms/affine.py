"""Options and base class of norm layers with a scale and a shift for each channel."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from initbench.registry import Options


class EpsOptions(Options):
    """Options that all norms with a division share."""

    eps: float = Field(default=1e-5, gt=0.0)
    """Constant added under the square root in the denominator."""


class AffineOptions(EpsOptions):
    """Options that all norms with a scale and a shift share."""

    affine: bool = True
    """Learn a scale and a shift for each feature."""
    eps: float = Field(default=1e-5, gt=0.0)
    """Constant added to the variance before the square root."""


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Return `values` (C,) as (1, C, 1, …), to broadcast over x (N, C, …)."""
    return values.view(1, -1, *[1] * (x.ndim - 2))


class ChannelAffine(nn.Module):
    """Learned scale (initially 1) and shift (initially 0) for each channel; None if switched off."""

    def __init__(self, num_features: int, *, scale: bool, shift: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features)) if scale else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if shift else None

    def scale_and_shift(self, x: Tensor) -> Tensor:
        """Return γ x + β, channel by channel. (N, C, …) → (N, C, …)."""
        if self.weight is not None:
            x = x * per_channel(self.weight, x)
        return x if self.bias is None else x + per_channel(self.bias, x)
