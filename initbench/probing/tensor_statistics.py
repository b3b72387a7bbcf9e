"""Reduce one layer's tensors to statistics.

All sums are computed in float64: in a deep net that collapses, squares are far below the range of float32 and
would become zero.

A pre-activation or activation has the shape (B, C) or, as maps, (B, C, H, W); a weight has the shape
(C, fan_in). A unit is a channel, with all positions of its map.
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
"""Maximum number of entries for quantiles; of a larger tensor, every k-th entry is used.

With this number, the 1 % point of N(0, 1) has a standard error of 0.01.
"""
SPAN = 4.0 * (1.0 + 1e-12)
"""Half of the span of a scaled histogram, relative to the root mean square of the entries.

It exceeds 4 slightly, so that no edge coincides with an entry of a tensor like ±c, or with a single nonzero
entry of 16: rounding of √q would then decide in which bin the entry lies.
"""

ALIKE = 1e-3
"""Relative spread over units up to which they count as identical."""


class ProbeDetail(IntEnum):
    """Amount of statistics of a pass; every level includes the previous ones."""

    DIAGNOSIS = 0
    """Statistics that a diagnosis needs; `unit_spread` only shows whether it is above ALIKE."""
    EVALUATION = 1
    """Statistics that a run stores at every evaluation."""
    FULL = 2
    """All statistics, including quantiles, effective rank and Jacobians, which take long to compute."""


def mean_square(x: Tensor) -> float:
    """Return E[x²] of a float64 tensor, in one pass."""
    norm = float(torch.linalg.vector_norm(x))
    return norm * norm / x.numel()


def moments(x: Tensor) -> dict[str, float]:
    """Return mean, std (over all entries) and q = E[x²] of a float64 tensor."""
    mean = float(x.mean())
    return {"mean": mean, "std": math.sqrt(mean_square(x - mean)), "q": mean_square(x)}


def quantiles(x: Tensor) -> dict[str, float]:
    """Return the 1, 25, 50, 75 and 99 % points of the entries, interpolated."""
    shares = torch.tensor(QUANTILES, dtype=x.dtype, device=x.device)
    # An odd step visits all columns of a map, whose sizes are mostly powers of two.
    step = 1 if x.numel() <= MAX_SORTED else -(-x.numel() // MAX_SORTED) | 1
    points = torch.quantile(x.flatten()[::step], shares).tolist()
    return {f"p{round(100 * share):02d}": point for share, point in zip(QUANTILES, points, strict=True)}


def signal_variance(x: Tensor) -> float:
    """Return the variance over samples, averaged over units and positions: the part of q that differs."""
    return mean_square(x - x.mean(0))


def correlation(x: Tensor) -> float | None:
    """Return the mean cosine between two different samples, flattened; None if a sample is zero."""
    x = x.flatten(1)
    norms = x.norm(dim=1, keepdim=True)
    samples = x.shape[0]
    if samples < 2 or not bool((norms > 0).all()):
        return None
    total = float((x / norms).sum(0).square().sum())
    return (total - samples) / (samples * (samples - 1))


def effective_rank(x: Tensor) -> float | None:
    """Return exp of the entropy of the covariance's normalised eigenvalues, from 1 to C.

    The covariance is that of the channels; every position of a map counts as a sample.

    Source: Roy & Vetterli (2007).
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
    """Return a tensor (B, C, …) with the units on the last axis."""
    return x.movedim(1, -1)


def spread_over_units(x: Tensor) -> float:
    """Return the root mean square deviation of units (last axis) from their mean, relative to that of x.

    The result is 0 if all entries are zero.
    """
    square = mean_square(x)
    return math.sqrt(mean_square(x - x.mean(-1, keepdim=True)) / square) if square else 0.0


def activation_statistics(
    pre: Tensor | None, act: Tensor, activation: BoundActivation | None
) -> dict[str, float | None]:
    """Return the moments of an activation, and the shares of zeros, dead units and saturated entries.

    Args:
        pre: The pre-activation in float64, or None.
        act: The output of the activation in float64.
        activation: The activation, or None if it is unknown.

    Returns:
        The statistics; the saturated share is None without a pre-activation or a known activation.
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
    """Return the shares of entries that are 0, and of units that are 0 on every sample; x has no NaN."""
    used = channels_last(act.sign().abs_()).flatten(0, -2).sum(0)  # nonzero entries of each unit
    return (act.numel() - int(used.sum())) / act.numel(), float((used == 0).double().mean())


def _zero_shares_with_nan(act: Tensor) -> tuple[float, float]:
    """Return the same shares as `zero_shares` for tensors with NaN or infinities; they are NaN with NaN."""
    zero = torch.where(act.isnan(), torch.nan, (act == 0).double())
    return float(zero.mean()), float(channels_last(zero).flatten(0, -2).amin(0).mean())


def _saturated(pre: Tensor | None, activation: BoundActivation | None) -> float | None:
    if pre is None or activation is None or not activation.entry.saturates:
        return None
    flat = activation.derivative(pre).abs() < SATURATED_BELOW * activation.max_derivative
    return int(flat.sum()) / flat.numel()


def histogram(x: Tensor, span: tuple[float, float], bins: int) -> dict[str, Any]:
    """Return the counts in equal bins over `span`, and the numbers of entries below, above, and NaN.

    The edges depend only on the activation and the config, so that histograms of runs can be compared.
    """
    low, high = span
    width = (high - low) / bins
    slots = x.sub(low).div_(width).add_(1.0).clamp_(0, bins + 1)
    numbers = slots[~slots.isnan()] if bool(slots.sum().isnan()) else slots
    below, counts, beyond = _count_slots(numbers, bins)
    above = int((x > high).sum()) if beyond else 0
    counts[-1] += beyond - above  # entries at the last edge
    return {
        "edges": [low + width * i for i in range(bins + 1)],
        "counts": counts,
        "below": below,
        "above": above,
        "nan": x.numel() - numbers.numel(),
    }


def scaled_histogram(x: Tensor, q: float, bins: int) -> dict[str, Any]:
    """Return the counts in equal bins over ±SPAN·√q, and the numbers of entries below, above, and NaN.

    The span follows the entries, since those of a vanishing or exploding net lie many orders of magnitude
    apart. Zeros always lie in the bin with the index bins // 2, whose lower edge is 0 if `bins` is even.

    Args:
        x: The tensor in float64, of any shape.
        q: E[x²].
        bins: The number of bins.

    Returns:
        "span": [low, high]; "counts", "below", "above" and "nan", which add up to the number of entries.
        If q is 0, infinite or NaN, there is no scale: the span is [0, 0], negative entries are counted as
        below, positive ones as above, and zeros in the same bin as always.
    """
    high = SPAN * math.sqrt(q)
    if 0.0 < high < math.inf:  # then all entries are finite
        slots = x.mul(bins / (2.0 * high)).add_(bins / 2 + 1.0).clamp_(0, bins + 1)
        below, counts, above = _count_slots(slots, bins)
        return {"span": [-high, high], "counts": counts, "below": below, "above": above, "nan": 0}
    below, zeros, above = (int(part.sum()) for part in (x < 0.0, x == 0.0, x > 0.0))
    counts = [zeros if i == bins // 2 else 0 for i in range(bins)]
    nan = x.numel() - below - zeros - above
    return {"span": [0.0, 0.0], "counts": counts, "below": below, "above": above, "nan": nan}


def _count_slots(slots: Tensor, bins: int) -> tuple[int, list[int], int]:
    """Return the number of entries in [0, 1), in each of the `bins` intervals from 1 on, and above them.

    The entries are from 0 to bins + 1. Counting with 32 bits takes half of the time of counting with 64.
    """
    below, *counts, above = torch.bincount(slots.to(torch.int32).flatten(), minlength=bins + 2).tolist()
    return below, counts, above
