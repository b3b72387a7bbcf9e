"""The norm layers that torch has: batch, layer and group norm, and none."""

from __future__ import annotations

from pydantic import Field
from torch import nn

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


def _group_problem(num_features: int, options: GroupNormOptions) -> tuple[str, str] | None:
    if num_features % options.num_groups == 0:
        return None
    return "num_groups", f"{options.num_groups} groups do not divide {num_features} features"


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
        summary="Standardises each feature over the mini-batch; cures a bad scale, couples the samples of a batch.",
        formula="y = γ·(x − μ_batch)/√(σ²_batch + ε) + β",
        source="Ioffe & Szegedy 2015",
        options=BatchNormOptions,
        axes=("N", "H", "W"),
        build=lambda features, o: nn.BatchNorm1d(features, eps=o.eps, momentum=o.momentum, affine=o.affine),
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
