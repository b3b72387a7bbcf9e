"""Norm layers that standardise by a mean and a variance or by a root mean square, and `none`."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor
from torch.nn import functional as F

from initbench.components.norm import NORMS, Norm, ShapeIssue
from initbench.components.norms.affine import AffineOptions, ChannelAffine, per_channel
from initbench.registry import MAX_COUNT, Options


class BatchNormOptions(AffineOptions):
    """Options of batch norm."""

    momentum: float = Field(default=0.1, gt=0.0, le=1.0)
    """Weight of the current batch in the running statistics."""


class GroupNormOptions(AffineOptions):
    """Options of group norm."""

    num_groups: int = Field(default=8, gt=0, le=MAX_COUNT)
    """Number of groups into which the features are divided; must divide their number."""


class RmsNormOptions(Options):
    """Options of RMS norm."""

    affine: bool = True
    """Learn a scale for each feature; there is no shift."""
    eps: float = Field(default=1e-5, gt=0.0)
    """Constant added to the mean square before the square root."""


class BatchNorm(ChannelAffine):
    """Batch norm over every axis but the second. (B, C, …) → (B, C, …).

    It has the function, the parameters and the running statistics of torch's batch norm, but not
    `num_batches_tracked`, which torch needs only for a momentum of None. torch's kernel sums the last few
    channels in a different order than the rest, and with stacked runs these are other channels, so a run's
    numbers would depend on its cohort. Plain reductions do not have this problem; maps of runs that are not
    stacked are left to the kernel, which is faster.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, options: BatchNormOptions) -> None:
        super().__init__(num_features, scale=options.affine, shift=options.affine)
        self.eps, self.momentum = options.eps, options.momentum
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise by batch statistics in training, by the running statistics in evaluation."""
        if x.ndim > 2 and not is_batchedtensor(x) and x.numel() > x.shape[1]:
            mean, var = self.running_mean, self.running_var
            return F.batch_norm(x, mean, var, self.weight, self.bias, self.training, self.momentum, self.eps)
        if self.training:
            mean, var = self.batch_statistics(x)
        else:
            mean, var = self.running_mean, self.running_var
        scale = torch.rsqrt(var + self.eps)
        if self.weight is None or self.bias is None:
            return (x - per_channel(mean, x)) * per_channel(scale, x)
        return (x - per_channel(mean, x)) * per_channel(scale * self.weight, x) + per_channel(self.bias, x)

    def batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the biased variance (C,) of x (B, C, …), and update the running statistics."""
        axes = [axis for axis in range(x.ndim) if axis != 1]
        count = x.numel() // x.shape[1]
        mean = x.mean(axes)
        var = (x - per_channel(mean, x)).square().mean(axes)
        unbiased = var.detach() * (count / max(1, count - 1))
        self.running_mean.mul_(1 - self.momentum).add_(self.momentum * mean.detach())
        self.running_var.mul_(1 - self.momentum).add_(self.momentum * unbiased)
        return mean, var


class LayerNorm(ChannelAffine):
    """Layer norm over every axis but the first, scaled and shifted by channel. (N, C, …) → (N, C, …)."""

    def __init__(self, num_features: int, options: AffineOptions) -> None:
        super().__init__(num_features, scale=options.affine, shift=options.affine)
        self.eps = options.eps

    def forward(self, x: Tensor) -> Tensor:
        """Standardise each sample."""
        if x.ndim == 2:
            return F.layer_norm(x, x.shape[1:], self.weight, self.bias, self.eps)
        return F.group_norm(x, 1, self.weight, self.bias, self.eps)


class RmsNorm(ChannelAffine):
    """Division by the root mean square over every axis but the first. (N, C, …) → (N, C, …)."""

    def __init__(self, num_features: int, options: RmsNormOptions) -> None:
        super().__init__(num_features, scale=options.affine, shift=False)
        self.eps = options.eps

    def forward(self, x: Tensor) -> Tensor:
        """Scale each sample to a mean square of 1."""
        axes = list(range(1, x.ndim))
        return self.scale_and_shift(x * torch.rsqrt(x.square().mean(axes, keepdim=True) + self.eps))


def _layer_problem(shape: tuple[int, ...], _options: AffineOptions) -> ShapeIssue | None:
    if math.prod(shape) > 1:
        return None
    return "", "layer norm makes 0 of a single feature, whatever it holds"


def _rms_problem(shape: tuple[int, ...], _options: RmsNormOptions) -> ShapeIssue | None:
    if math.prod(shape) > 1:
        return None
    return "", "rms norm makes ±1 of a single feature, whatever it holds"


def _instance_problem(shape: tuple[int, ...], _options: AffineOptions) -> ShapeIssue | None:
    if math.prod(shape[1:]) > 1:
        return None
    return "", "instance norm makes 0 of a map of one value, and these features are no larger maps"


def _group_problem(shape: tuple[int, ...], options: GroupNormOptions) -> ShapeIssue | None:
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
        aliases=("no", "off", "null", "identity", "no_norm"),
        summary="No norm layer: the init alone must keep the signal.",
        formula="y = x",
        source="-",
        axes=(),
    )
)
NORMS.add(
    Norm(
        name="batch",
        suggested_for=("sync_batch_norm", "normalization", "norm"),
        aliases=(
            "batch_norm",
            "batch_norm_1d",
            "batch_norm_2d",
            "batch_norm_3d",
            "batch_normalization",
            "batch_normalisation",
            "bn",
            "bnorm",
        ),
        summary="Standardises each feature over the mini-batch: corrects a bad scale, but couples samples.",
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
        suggested_for=("normalization", "norm"),
        aliases=("layer_norm", "layer_normalization", "layer_normalisation", "ln"),
        summary="Standardises each sample over its features; works the same in training and evaluation.",
        formula="y = γ·(x − μ_sample)/√(σ²_sample + ε) + β",
        source="Ba et al. 2016",
        options=AffineOptions,
        axes=("C", "H", "W"),
        build=LayerNorm,
        problem=_layer_problem,
    )
)
NORMS.add(
    Norm(
        name="instance",
        aliases=(
            "instance_norm",
            "instance_norm_1d",
            "instance_norm_2d",
            "instance_norm_3d",
            "instance_normalization",
        ),
        summary="Standardises each map of each sample, which removes contrast: for style transfer.",
        formula="y = γ·(x − μ_map)/√(σ²_map + ε) + β",
        source="Ulyanov et al. 2016",
        options=AffineOptions,
        axes=("H", "W"),
        build=lambda features, o: nn.GroupNorm(features, features, eps=o.eps, affine=o.affine),
        problem=_instance_problem,
    )
)
NORMS.add(
    Norm(
        name="group",
        aliases=("group_norm", "group_normalization", "group_normalisation", "gn"),
        summary="Standardises each sample over groups of features; independent of the batch size.",
        formula="y = γ·(x − μ_group)/√(σ²_group + ε) + β",
        source="Wu & He 2018",
        options=GroupNormOptions,
        axes=("C/G", "H", "W"),
        build=lambda features, o: nn.GroupNorm(o.num_groups, features, eps=o.eps, affine=o.affine),
        problem=_group_problem,
    )
)
NORMS.add(
    Norm(
        name="rms",
        aliases=("rms_norm", "rms_layer_norm", "root_mean_square"),
        summary="Layer norm without the mean: cheaper, and preserves the direction of the features.",
        formula="y = γ·x/√(E_sample[x²] + ε)",
        source="Zhang & Sennrich 2019",
        options=RmsNormOptions,
        axes=("C", "H", "W"),
        build=RmsNorm,
        problem=_rms_problem,
    )
)
