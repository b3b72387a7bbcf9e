"""Variants of batch norm: batch renormalization, and batch norm over parts of the batch."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from initbench.components.norm import NORMS, Norm, ShapeIssue
from initbench.components.norms.affine import per_channel
from initbench.components.norms.standard import BatchNorm, BatchNormOptions
from initbench.registry import MAX_COUNT


class BatchRenormOptions(BatchNormOptions):
    """Options of batch renormalization."""

    momentum: float = Field(default=0.01, gt=0.0, le=1.0)
    """Weight of the current batch in the running statistics."""
    r_max: float = Field(default=3.0, ge=1.0)
    """Largest correction factor of the scale; the smallest is 1/r_max."""
    d_max: float = Field(default=5.0, ge=0.0)
    """Largest correction of the mean, in running standard deviations."""
    warmup_steps: int = Field(default=1000, ge=0, le=MAX_COUNT)
    """Number of batches over which the corrections are phased in linearly, starting from batch norm."""


class GhostBatchOptions(BatchNormOptions):
    """Options of ghost batch norm."""

    ghost_size: int = Field(default=32, ge=2, le=MAX_COUNT)
    """Number of samples that are standardised together; must divide the batch size."""


class BatchRenorm(BatchNorm):
    """Batch norm that corrects the batch's statistics towards the running ones. (B, C, …) → (B, C, …)."""

    updates: Tensor

    def __init__(self, num_features: int, options: BatchRenormOptions) -> None:
        super().__init__(num_features, options)
        self.r_max, self.d_max, self.warmup_steps = options.r_max, options.d_max, options.warmup_steps
        self.register_buffer("updates", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise by corrected batch statistics in training, by the running statistics in evaluation."""
        if not self.training:
            return super().forward(x)
        running_mean, running_std = self.running_mean.clone(), (self.running_var + self.eps).sqrt()
        mean, var = self.batch_statistics(x)
        # r and d are constants of the backward pass (Ioffe 2017, algorithm 1).
        r = (var.detach() + self.eps).sqrt() / running_std
        d = (mean.detach() - running_mean) / running_std
        r_max, d_max = self._limits()
        self.updates.add_(1.0)
        r, d = r.minimum(r_max).maximum(1 / r_max), d.minimum(d_max).maximum(-d_max)
        scale = r * torch.rsqrt(var + self.eps)
        corrected = (x - per_channel(mean, x)) * per_channel(scale, x) + per_channel(d, x)
        return self.scale_and_shift(corrected)

    def _limits(self) -> tuple[Tensor, Tensor]:
        share = (self.updates / self.warmup_steps if self.warmup_steps else self.updates + 1).clamp(max=1.0)
        return 1 + share * (self.r_max - 1), share * self.d_max


class GhostBatchNorm(BatchNorm):
    """Batch norm of every `ghost_size` consecutive samples, independently. (B, C, …) → (B, C, …).

    The running statistics are updated by one ghost batch after another. If `ghost_size` does not divide the
    batch (such as that of a probe), the remaining samples join the last ghost batch.
    """

    def __init__(self, num_features: int, options: GhostBatchOptions) -> None:
        super().__init__(num_features, options)
        self.ghost_size = options.ghost_size

    def forward(self, x: Tensor) -> Tensor:
        """Standardise by the ghost batches in training, by the running statistics in evaluation."""
        if not self.training:
            return super().forward(x)
        whole = max(1, len(x) // self.ghost_size) - 1
        sizes = [self.ghost_size] * whole + [len(x) - whole * self.ghost_size]
        return torch.cat([super(GhostBatchNorm, self).forward(part) for part in torch.split(x, sizes)])


def _ghost_problem(batch_size: int, options: GhostBatchOptions) -> ShapeIssue | None:
    if batch_size % options.ghost_size == 0:
        return None
    return (
        "ghost_size",
        f"ghost batches of {options.ghost_size} do not divide a batch of {batch_size} samples",
    )


NORMS.add(
    Norm(
        name="batch_renorm",
        aliases=("batch_renormalization", "batch_renormalisation"),
        summary="Batch norm corrected towards its running statistics: for small or uneven batches.",
        formula="y = γ·((x − μ_B)/σ_B·r + d) + β, r = clip(σ_B/σ_run), d = clip((μ_B − μ_run)/σ_run)",
        source="Ioffe 2017",
        options=BatchRenormOptions,
        axes=("N", "H", "W"),
        min_batch=2,
        build=BatchRenorm,
    )
)
NORMS.add(
    Norm(
        name="ghost_batch",
        aliases=("ghost_batch_norm", "ghost_batch_normalization", "ghost_bn"),
        summary="Batch norm over parts of the batch: keeps the noise of small batches in large ones.",
        formula="y = γ·(x − μ_ghost)/√(σ²_ghost + ε) + β",
        source="Hoffer et al. 2017",
        options=GhostBatchOptions,
        axes=("N/G", "H", "W"),
        min_batch=2,
        build=GhostBatchNorm,
        batch_problem=_ghost_problem,
    )
)
