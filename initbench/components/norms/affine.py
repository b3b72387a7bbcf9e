"""What norm layers with a scale and a shift for each channel share."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from initbench.registry import Options


class EpsOptions(Options):
    """Options of every norm that divides."""

    eps: float = Field(default=1e-5, gt=0.0)
    """Added under the square root that is divided by."""


class AffineOptions(EpsOptions):
    """Options that every norm with a scale and a shift has."""

    affine: bool = True
    """Learn a scale and a shift for each feature."""
    eps: float = Field(default=1e-5, gt=0.0)
    """Added to the variance before the square root."""


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """`values` (C,) as (1, C, 1, …), to go with x (N, C, …)."""
    return values.view(1, -1, *[1] * (x.ndim - 2))


class ChannelAffine(nn.Module):
    """A scale of 1 and a shift of 0 for each of C channels; `weight` and `bias` are None without."""

    def __init__(self, num_features: int, *, scale: bool, shift: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features)) if scale else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if shift else None

    def scale_and_shift(self, x: Tensor) -> Tensor:
        """γ x + β, channel by channel. (N, C, …) → (N, C, …)."""
        if self.weight is not None:
            x = x * per_channel(self.weight, x)
        return x if self.bias is None else x + per_channel(self.bias, x)
