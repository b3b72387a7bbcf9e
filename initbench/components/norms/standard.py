"""The norm layers that torch has: batch, layer and group norm, and none."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from initbench.components.norm import NORMS, Norm
from initbench.registry import Options


class AffineOptions(Options):
    """Options that every norm with a scale and a shift has."""

    affine: bool = True
    """Learn a scale and a shift for each feature."""
    eps: float = Field(default=1e-5, gt=0.0)
    """Added to the variance before the square root."""


class BatchNormOptions(AffineOptions):
    """Options of batch norm."""

    momentum: float = Field(default=0.1, gt=0.0, le=1.0)
    """Weight of the newest batch in the running statistics."""


class GroupNormOptions(AffineOptions):
    """Options of group norm."""

    num_groups: int = Field(default=8, gt=0)
    """Number of groups the features are split into; must divide them."""


class BatchNorm(nn.Module):
    """Batch norm over every axis but the second, in plain reductions. (B, C, …) → (B, C, …).

    The function, the parameters and the running statistics of torch's; without its
    `num_batches_tracked`, which only a momentum of None would read. torch's kernel sums the last few
    channels in another order than the rest, and stacked runs shift which ones these are, so a
    run's numbers would depend on its cohort; plain reductions do not.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, options: BatchNormOptions) -> None:
        super().__init__()
        self.eps, self.momentum = options.eps, options.momentum
        self.weight = nn.Parameter(torch.ones(num_features)) if options.affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if options.affine else None
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise by the batch in training, by the running statistics in evaluation."""
        shape = (1, -1, *[1] * (x.ndim - 2))
        if self.training:
            mean, var = self._batch_statistics(x)
        else:
            mean, var = self.running_mean, self.running_var
        scale = torch.rsqrt(var + self.eps)
        if self.weight is None or self.bias is None:
            return (x - mean.view(shape)) * scale.view(shape)
        return (x - mean.view(shape)) * (scale * self.weight).view(shape) + self.bias.view(shape)

    def _batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        count = x.numel() // x.shape[1]
        mean = x.mean(axes)
        var = (x - mean.view(1, -1, *[1] * (x.ndim - 2))).square().mean(axes)
        unbiased = var.detach() * (count / max(1, count - 1))
        self.running_mean.mul_(1 - self.momentum).add_(self.momentum * mean.detach())
        self.running_var.mul_(1 - self.momentum).add_(self.momentum * unbiased)
        return mean, var


def _layer_problem(shape: tuple[int, ...], _options: AffineOptions) -> tuple[str, str] | None:
    if math.prod(shape) > 1:
        return None
    return "", "layer norm makes 0 of a single feature, whatever it holds"


def _group_problem(shape: tuple[int, ...], options: GroupNormOptions) -> tuple[str, str] | None:
    features, groups = shape[0], options.num_groups
    if features % groups:
        return "num_groups", f"{groups} groups do not divide {features} features"
    if math.prod(shape) == groups:
        return (
            "num_groups",
            f"{groups} groups of {features} features hold one each, and group norm makes 0 of it",
        )
    return None


NORMS.add(
    Norm(
        name="none",
        summary="No norm layer: the init alone must keep the signal.",
        formula="y = x",
        source="-",
        axes=(),
        build=lambda _features, _options: None,
    )
)
NORMS.add(
    Norm(
        name="batch",
        summary="Standardises each feature over the mini-batch: cures a bad scale, couples samples.",
        formula="y = γ·(x − μ_batch)/√(σ²_batch + ε) + β",
        source="Ioffe & Szegedy 2015",
        options=BatchNormOptions,
        axes=("N", "H", "W"),
        min_batch=2,
        build=BatchNorm,
    )
)
NORMS.add(
    Norm(
        name="layer",
        summary="Standardises each sample over its features; the same in training and in testing.",
        formula="y = γ·(x − μ_sample)/√(σ²_sample + ε) + β",
        source="Ba et al. 2016",
        options=AffineOptions,
        axes=("C", "H", "W"),
        build=lambda features, o: nn.LayerNorm(features, eps=o.eps, elementwise_affine=o.affine),
        problem=_layer_problem,
    )
)
NORMS.add(
    Norm(
        name="group",
        summary="Standardises each sample over groups of features; independent of the batch size.",
        formula="y = γ·(x − μ_group)/√(σ²_group + ε) + β",
        source="Wu & He 2018",
        options=GroupNormOptions,
        axes=("C/G", "H", "W"),
        build=lambda features, o: nn.GroupNorm(o.num_groups, features, eps=o.eps, affine=o.affine),
        problem=_group_problem,
    )
)
