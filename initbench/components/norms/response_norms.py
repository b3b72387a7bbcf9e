"""Norm layers that subtract no mean: local response norm, filter response norm, and dynamic tanh."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from initbench.components.norm import NORMS, Norm, ShapeIssue
from initbench.components.norms.affine import AffineOptions, ChannelAffine, per_channel
from initbench.registry import Options


class LocalResponseOptions(Options):
    """Options of local response norm."""

    size: int = Field(default=5, gt=0, le=1_000_000)
    """Number n of neighbouring channels in the window, half of them on either side."""
    alpha: float = Field(default=1e-4, gt=0.0)
    """Factor of the mean square over the window, as in torch; n times the paper's factor of the sum."""
    beta: float = Field(default=0.75, gt=0.0)
    """Exponent of the denominator."""
    k: float = Field(default=2.0, gt=0.0)
    """Constant added to α times the mean square."""


class FilterResponseOptions(AffineOptions):
    """Options of filter response norm."""

    eps: float = Field(default=1e-6, gt=0.0)
    """Constant added to the mean square before the square root."""
    tlu: bool = False
    """Apply the thresholded linear unit max(y, τ) with a learned τ; for use with `activation: linear`."""


class DynamicTanhOptions(Options):
    """Options of dynamic tanh."""

    alpha: float = Field(default=0.5, gt=0.0)
    """Initial value of the learned slope α."""
    affine: bool = True
    """Learn a scale and a shift for each feature."""


class LocalResponseNorm(nn.Module):
    """Division by a power of the mean square over neighbouring channels. (N, C, …) → (N, C, …)."""

    def __init__(self, options: LocalResponseOptions) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = options.size, options.alpha, options.beta, options.k

    def forward(self, x: Tensor) -> Tensor:
        """Divide each channel by a power of the mean square of its neighbours."""
        padding = [0, 0] * (x.ndim - 2) + [self.size // 2, (self.size - 1) // 2]
        squares, channels = F.pad(x.square(), padding), x.shape[1]
        total = squares.narrow(1, 0, channels)
        for shift in range(1, self.size):
            total = total + squares.narrow(1, shift, channels)
        return x * (self.k + total * (self.alpha / self.size)) ** -self.beta


class FilterResponseNorm(ChannelAffine):
    """Division by the root mean square of each map. (N, C, H, W) → (N, C, H, W)."""

    def __init__(self, num_features: int, options: FilterResponseOptions) -> None:
        super().__init__(num_features, scale=options.affine, shift=options.affine)
        self.eps = options.eps
        self.threshold = nn.Parameter(torch.zeros(num_features)) if options.tlu else None

    def forward(self, x: Tensor) -> Tensor:
        """Scale each map to a mean square of 1; with `tlu`, apply max(y, τ)."""
        energy = x.square().flatten(2).mean(2) if x.ndim > 2 else x.square()
        y = self.scale_and_shift(x * torch.rsqrt(energy.view(*energy.shape, *[1] * (x.ndim - 2)) + self.eps))
        return y if self.threshold is None else torch.maximum(y, per_channel(self.threshold, y))


class DynamicTanh(ChannelAffine):
    """The function tanh(αx) with one learned α, then scale and shift. (N, C, …) → (N, C, …)."""

    def __init__(self, num_features: int, options: DynamicTanhOptions) -> None:
        super().__init__(num_features, scale=options.affine, shift=options.affine)
        self.alpha = nn.Parameter(torch.full((), options.alpha))
        self._features = num_features

    def forward(self, x: Tensor) -> Tensor:
        """Apply tanh(αx), scale and shift."""
        # α is expanded to the channels so that its gradient is summed in two stages: torch divides a single
        # long sum among its threads, so the rounding would depend on their number.
        alpha = self.alpha.expand(self._features)
        return self.scale_and_shift(torch.tanh(x * per_channel(alpha, x)))


def _window_problem(shape: tuple[int, ...], options: LocalResponseOptions) -> ShapeIssue | None:
    if options.size <= shape[0]:
        return None
    return "size", f"a window of {options.size} channels is wider than the {shape[0]} features"


def _filter_problem(shape: tuple[int, ...], _options: FilterResponseOptions) -> ShapeIssue | None:
    if math.prod(shape[1:]) > 1:
        return None
    return "", "filter response norm makes ±1 of a map of one value, and these features are no larger maps"


NORMS.add(
    Norm(
        name="local_response",
        aliases=(
            "lrn",
            "local_response_norm",
            "local_response_normalization",
            "local_response_normalisation",
        ),
        summary="Damps channels next to strong ones, as in AlexNet; it hardly changes the scale.",
        formula="y = x/(k + α·E_window[x²])^β",
        source="Krizhevsky et al. 2012",
        options=LocalResponseOptions,
        axes=("C/n",),
        build=lambda _features, options: LocalResponseNorm(options),
        problem=_window_problem,
        rounds_alike=False,
    )
)
NORMS.add(
    Norm(
        name="frn",
        aliases=("filter_response", "filter_response_norm", "filter_response_normalization"),
        summary="Scales each map of each sample by its root mean square: for convolutions on any batch size.",
        formula="y = γ·x/√(E_map[x²] + ε) + β, with tlu max(y, τ)",
        source="Singh & Krishnan 2020",
        options=FilterResponseOptions,
        axes=("H", "W"),
        build=FilterResponseNorm,
        problem=_filter_problem,
    )
)
NORMS.add(
    Norm(
        name="dyt",
        aliases=("dynamic_tanh",),
        summary="A learned tanh instead of a norm: bounds the signal without averaging; for transformers.",
        formula="y = γ·tanh(αx) + β",
        source="Zhu et al. 2025",
        options=DynamicTanhOptions,
        axes=(),
        build=DynamicTanh,
        rounds_alike=False,
    )
)
