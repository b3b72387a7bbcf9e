"""Reduce one layer's tensors to statistics.

All sums are computed in float64: in a deep net that collapses, squares are far below the range of float32 and
would become zero.

A pre-activation or activation has the shape (B, C) or, as maps, (B, C, H, W); a weight has the shape
(C, fan_in). A unit is a channel, with all positions of its map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
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
_CANCELLATION = 1e-3
"""Share of E[x²] from which E[x²] − E[m²] is accurate to 12 digits; smaller differences lose more of them."""
_MAX_FLOAT32_COUNT = 1 << 24
"""Number up to which float32 represents all integers."""
_MAX_INT8 = 127
_MAX_STACKED = 1 << 17
"""Maximum number of entries of matrices that are reduced together; 1 MB fits into the caches."""


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


def _entries(x: Tensor) -> Tensor:
    """Return the entries on one axis in the order of memory, which needs no copy of a transposed tensor."""
    return x.permute(sorted(range(x.ndim), key=x.stride, reverse=True)).flatten()


def _deviation(x: Tensor, q: float, means: Tensor, q_of_means: float | None = None) -> float:
    """Return E[(x − m)²] for the means m of equally large groups of the entries of a float64 tensor.

    The result is E[x²] − E[m²], which needs no further pass over x, unless the difference cancels.

    Args:
        x: The tensor.
        q: E[x²].
        means: One mean for each group, in a shape that broadcasts with x.
        q_of_means: E[m²], if it is known.
    """
    difference = q - (mean_square(means) if q_of_means is None else q_of_means)
    return difference if difference > _CANCELLATION * q else mean_square(x - means)


def moments(x: Tensor) -> dict[str, float]:
    """Return mean, std (over all entries) and q = E[x²] of a float64 tensor."""
    mean, q = x.mean(), mean_square(x)
    return {"mean": float(mean), "std": math.sqrt(_deviation(x, q, mean)), "q": q}


def quantiles(x: Tensor) -> dict[str, float]:
    """Return the 1, 25, 50, 75 and 99 % points of the entries, interpolated; NaN if an entry is NaN."""
    # An odd step visits all columns of a map, whose sizes are mostly powers of two.
    step = 1 if x.numel() <= MAX_SORTED else -(-x.numel() // MAX_SORTED) | 1
    entries = _entries(x) if step == 1 else x.flatten()[::step]
    # numpy sorts 65,536 entries in 0.2 ms, and torch in 3 ms. NaN comes last.
    ordered = torch.from_numpy(np.sort(entries.cpu().numpy()))
    ranks = torch.tensor(QUANTILES, dtype=x.dtype) * (len(ordered) - 1)
    below = ranks.long()
    points = torch.lerp(ordered[below], ordered[(below + 1).clamp(max=len(ordered) - 1)], ranks - below)
    values = [math.nan] * len(QUANTILES) if bool(ordered[-1].isnan()) else points.tolist()
    return {f"p{round(100 * share):02d}": value for share, value in zip(QUANTILES, values, strict=True)}


def signal_variance(x: Tensor, q: float) -> float:
    """Return the variance over samples, averaged over units and positions: the part of q that differs.

    It is NaN for a single sample.
    """
    if len(x) < 2:
        return math.nan
    return _deviation(x, q, x.mean(0, keepdim=True))


def correlation(x: Tensor) -> float | None:
    """Return the mean cosine between two different samples, flattened; None if a sample is zero."""
    x = x.flatten(1)
    norms = x.square().sum(1).sqrt_()
    samples = x.shape[0]
    if samples < 2 or not float(norms.min()) > 0.0:
        return None
    total = float((norms.reciprocal() @ x).square().sum())  # of the squared sum of the unit vectors
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


def spread_over_units(x: Tensor, q: float) -> float:
    """Return the root mean square deviation of units (last axis) from their mean, relative to √q.

    The result is 0 if q = E[x²] is 0.
    """
    return math.sqrt(_deviation(x, q, x.mean(-1, keepdim=True)) / q) if q else 0.0


@dataclass(frozen=True)
class MatrixStatistics:
    """Statistics of a weight or of its gradient (units, …)."""

    norm: float
    std: float
    row_spread: float
    """`spread_over_units` of the rows."""


def matrix_statistics(matrices: Sequence[Tensor]) -> list[MatrixStatistics]:
    """Return the statistics of each matrix (units, …); those of one shape are computed in stacks."""
    statistics: list[MatrixStatistics | None] = [None] * len(matrices)
    by_shape: dict[tuple[object, ...], list[int]] = {}
    for i, matrix in enumerate(matrices):
        by_shape.setdefault((matrix.shape, matrix.dtype, matrix.device), []).append(i)
    for positions in by_shape.values():
        size = max(1, _MAX_STACKED // max(1, matrices[positions[0]].numel()))
        for start in range(0, len(positions), size):
            part = positions[start : start + size]
            stack = torch.stack([matrices[i].detach().flatten(1) for i in part]).double()
            for i, result in zip(part, _stack_statistics(stack), strict=True):
                statistics[i] = result
    return [result for result in statistics if result is not None]


def _stack_statistics(stack: Tensor) -> Iterator[MatrixStatistics]:
    """Yield the statistics of each matrix of a float64 stack (L, units, fan_in)."""
    flat = stack.flatten(1)
    mean_row = stack.mean(1)  # (L, fan_in)
    mean = mean_row.mean(1)  # (L,)
    norms = torch.linalg.vector_norm(flat, dim=1).tolist()
    row_norms = torch.linalg.vector_norm(mean_row, dim=1).tolist()
    for i, (norm, row_norm) in enumerate(zip(norms, row_norms, strict=True)):
        q, q_of_means = norm * norm / flat.shape[1], row_norm * row_norm / mean_row.shape[1]
        yield MatrixStatistics(
            norm=norm,
            std=math.sqrt(_deviation(flat[i], q, mean[i])),
            row_spread=math.sqrt(_deviation(stack[i], q, mean_row[i], q_of_means) / q) if q else 0.0,
        )


def zero_shares(act: Tensor) -> tuple[float, float]:
    """Return the shares of entries (B, C, …) that are 0, and of units that are 0 on every sample.

    NaN counts as an entry that is not 0.
    """
    used = _marks(torch.ne, act, 0.0).sum([axis for axis in range(act.ndim) if axis != 1])  # (C,)
    return (act.numel() - int(used.sum())) / act.numel(), int((used == 0).sum()) / len(used)


def zero_fraction(x: Tensor) -> float:
    """Return the share of entries that are 0."""
    return _count(torch.eq, x, 0.0) / x.numel()


def saturated_fraction(pre: Tensor, activation: BoundActivation | None) -> float | None:
    """Return the share of pre-activations at which the activation is flat; None if it never saturates.

    The slope is computed in the precision of the pre-activation, but at least in float32.
    """
    if activation is None or not activation.entry.saturates:
        return None
    slope = activation.derivative(pre if pre.dtype == torch.float64 else pre.float()).abs()
    return _count(torch.lt, slope, SATURATED_BELOW * activation.max_derivative) / slope.numel()


def _count(compare: Callable[..., Tensor], x: Tensor, value: float) -> int:
    """Return the number of entries for which the comparison is true."""
    return int(_marks(compare, x, value).sum())


def _marks(compare: Callable[..., Tensor], x: Tensor, value: float) -> Tensor:
    """Return 1 for entries for which the comparison is true, else 0, in a type that can count all of them.

    torch sums floating-point numbers several times faster than booleans.
    """
    is_single = x.dtype != torch.float64 and x.numel() <= _MAX_FLOAT32_COUNT
    return compare(x, value, out=torch.empty_like(x, dtype=torch.float32 if is_single else torch.float64))


def histogram(x: Tensor, span: tuple[float, float], bins: int) -> dict[str, Any]:
    """Return the counts in equal bins over `span`, and the numbers of entries below, above, and NaN.

    The edges depend only on the activation and the config, so that histograms of runs can be compared.
    """
    low, high = span
    width = (high - low) / bins
    slots = _slots(x.sub(low) if low else x, bins / (high - low), 1.0, bins)
    numbers = slots[~slots.isnan()] if math.isnan(float(slots.sum())) else slots
    below, counts, beyond = _count_slots(numbers, bins)
    above = _count(torch.gt, x, high) if beyond else 0
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
        slots = _slots(x, bins / (2.0 * high), bins / 2 + 1.0, bins)
        below, counts, above = _count_slots(slots, bins)
        return {"span": [-high, high], "counts": counts, "below": below, "above": above, "nan": 0}
    below, zeros, above = (int(part.sum()) for part in (x < 0.0, x == 0.0, x > 0.0))
    counts = [zeros if i == bins // 2 else 0 for i in range(bins)]
    nan = x.numel() - below - zeros - above
    return {"span": [0.0, 0.0], "counts": counts, "below": below, "above": above, "nan": nan}


def _slots(x: Tensor, scale: float, offset: float, bins: int) -> Tensor:
    """Return scale·x + offset, limited to the interval from 0 to bins + 1, for a float64 tensor."""
    return torch.add(torch.tensor(offset, dtype=x.dtype), x, alpha=scale).clamp_(0, bins + 1)


def _count_slots(slots: Tensor, bins: int) -> tuple[int, list[int], int]:
    """Return the number of entries in [0, 1), in each of the `bins` intervals from 1 on, and above them.

    The entries are from 0 to bins + 1. torch counts small integers twice as fast as those with 64 bits.
    """
    dtype = torch.int8 if bins + 1 <= _MAX_INT8 else torch.int32
    below, *counts, above = torch.bincount(_entries(slots.to(dtype)), minlength=bins + 2).tolist()
    return below, counts, above
