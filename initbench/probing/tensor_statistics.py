"""Reduce one layer's tensors to statistics. All sums run in float64: a deep net that collapses leaves
squares far below what float32 can hold, and they must not turn into false zeros.

Shapes: a pre-activation or activation is (B, C) or, as maps, (B, C, H, W); a weight is (C, fan_in). A unit
is a channel: what is asked of a unit is asked of all positions of its map at once.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from initbench.components.activation import SATURATED_BELOW, BoundActivation

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
MAX_SORTED = 1 << 17
"""Entries that quantiles are read off at most: every k-th of a larger tensor, so many that the 1 % point of
N(0, 1) has a standard error of 0.01."""


ALIKE = 1e-3
"""Relative spread over units up to which they count as the same."""


class ProbeDetail(IntEnum):
    """How much of a pass is measured; every level holds what those before it hold."""

    DIAGNOSIS = 0
    """What a diagnosis reads: all that is judged or shown before training. Of `unit_spread` it is only said
    whether it is above ALIKE."""
    EVALUATION = 1
    """What a run stores at every evaluation."""
    FULL = 2
    """With quantiles, effective rank and Jacobians, which are too slow for every evaluation."""


def mean_square(x: Tensor) -> float:
    """E[x²] of a float64 tensor, in one pass."""
    norm = float(torch.linalg.vector_norm(x))
    return norm * norm / x.numel()


def moments(x: Tensor) -> dict[str, float]:
    """mean, std (over all entries) and q = E[x²] of a float64 tensor."""
    mean = float(x.mean())
    return {"mean": mean, "std": math.sqrt(mean_square(x - mean)), "q": mean_square(x)}


def quantiles(x: Tensor) -> dict[str, float]:
    """The 1, 25, 50, 75 and 99 % points of the entries, interpolated."""
    shares = torch.tensor(QUANTILES, dtype=x.dtype, device=x.device)
    # An odd step goes round the columns of a map, whose sizes are mostly powers of two.
    step = 1 if x.numel() <= MAX_SORTED else -(-x.numel() // MAX_SORTED) | 1
    points = torch.quantile(x.flatten()[::step], shares).tolist()
    return {f"p{round(100 * share):02d}": point for share, point in zip(QUANTILES, points, strict=True)}


def signal_variance(x: Tensor) -> float:
    """Mean over units and positions of the variance over samples: the part of q that tells inputs apart."""
    return mean_square(x - x.mean(0))


def correlation(x: Tensor) -> float | None:
    """Mean cosine between two different samples, maps as one vector each; None where a sample is zero."""
    x = x.flatten(1)
    norms = x.norm(dim=1, keepdim=True)
    samples = x.shape[0]
    if samples < 2 or not bool((norms > 0).all()):
        return None
    total = float((x / norms).sum(0).square().sum())
    return (total - samples) / (samples * (samples - 1))


def effective_rank(x: Tensor) -> float | None:
    """exp of the entropy of the covariance's normalised eigenvalues (Roy & Vetterli 2007), from 1 to C.

    The covariance is that of the channels; every position of a map counts as a sample.
    """
    x = channels_last(x).flatten(0, -2)
    if not bool(torch.isfinite(x).all()):
        return None
    centred = x - x.mean(0)
    gram = centred.mT @ centred if x.shape[0] >= x.shape[1] else centred @ centred.mT
    eigenvalues = torch.linalg.eigvalsh(gram).clamp(min=0)
    total = eigenvalues.sum()
    if float(total) == 0.0:
        return None
    share = eigenvalues / total
    return float(torch.exp(-(torch.special.xlogy(share, share)).sum()))


def channels_last(x: Tensor) -> Tensor:
    """(B, C, …) with the units on the last axis."""
    return x.movedim(1, -1)


def spread_over_units(x: Tensor) -> float:
    """Root mean square of the units' (last axis) deviation from their mean, relative to x's; 0 for zeros."""
    square = mean_square(x)
    return math.sqrt(mean_square(x - x.mean(-1, keepdim=True)) / square) if square else 0.0


def activation_statistics(
    pre: Tensor | None, act: Tensor, activation: BoundActivation | None
) -> dict[str, float | None]:
    """What the activation did to float64 pre-activations: moments, zeros, dead and saturated units.

    What is saturated is not known without the pre-activation, or of an activation that is None.
    """
    statistics = moments(act)
    zero, dead = zero_shares(act) if not math.isnan(statistics["mean"]) else _zero_shares_with_nan(act)
    return {
        **statistics,
        "zero_fraction": zero,
        "dead_fraction": dead,
        "saturated_fraction": _saturated(pre, activation),
    }


def zero_shares(act: Tensor) -> tuple[float, float]:
    """Share of entries that are 0, and of units that are on every sample, of a tensor without NaN."""
    used = channels_last(act.sign().abs_()).flatten(0, -2).sum(0)  # by unit, its entries that are not 0
    return (act.numel() - int(used.sum())) / act.numel(), float((used == 0).double().mean())


def _zero_shares_with_nan(act: Tensor) -> tuple[float, float]:
    """The same where the mean is NaN, by infinities or by entries that are NaN: these have no share."""
    zero = torch.where(act.isnan(), torch.nan, (act == 0).double())
    return float(zero.mean()), float(channels_last(zero).flatten(0, -2).amin(0).mean())


def _saturated(pre: Tensor | None, activation: BoundActivation | None) -> float | None:
    if pre is None or activation is None or not activation.entry.saturates:
        return None
    flat = activation.derivative(pre).abs() < SATURATED_BELOW * activation.max_derivative
    return int(flat.sum()) / flat.numel()


def histogram(x: Tensor, span: tuple[float, float], bins: int) -> dict[str, Any]:
    """Counts in equal bins over `span`, and how many entries lie below, lie above, or are NaN.

    The edges depend on the activation and the config alone, so runs can be laid over one another.
    """
    low, high = span
    width = (high - low) / bins
    # Slot 0 takes what lies below, slots 1 … bins the bins, slot bins + 1 what lies above.
    slots = ((x.flatten() - low) / width + 1.0).floor_()
    slots[x.flatten() == high] = bins
    numbers = slots[~slots.isnan()] if bool(slots.sum().isnan()) else slots
    counts = torch.bincount(numbers.clamp_(0, bins + 1).long(), minlength=bins + 2).tolist()
    return {
        "edges": [low + width * i for i in range(bins + 1)],
        "counts": counts[1:-1],
        "below": counts[0],
        "above": counts[-1],
        "nan": x.numel() - numbers.numel(),
    }
