"""Checks of a net's input: its scale, and whether its samples differ."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from initbench.probing.finding import DiagnosisCode, Finding
from initbench.probing.log_slopes import ROUNDING, float32_floor
from initbench.probing.tensor_statistics import mean_square, signal_variance

LARGE, SMALL = 100.0, 1e-4
"""E[x²] above or below which inputs count as not scaled. Digits from 0 to 16 have 60, one-hot codes 1/C."""
LARGE_COLUMN = 1000.0
"""E[x²] above which a single column counts as not scaled."""
_OFFSET = 10.0
"""Ratio of mean and standard deviation above which an offset dominates the mean square."""

_DOMINANT = 0.9
"""Share of the sum of squares above which one column dominates the mean square."""

INPUT_CODES = (
    DiagnosisCode(
        name="samples_alike",
        summary="All samples of the batch are identical, so there is nothing to learn from them.",
        measure="variance over samples of the input, compared with the rounding error of float32",
        threshold=None,
        hides=("vanishing_forward", "vanishing_backward", "exploding_forward", "exploding_backward", "dead"),
        limit=f"variance over samples ≤ {ROUNDING:g}·E[x²]; for integers: all rows are equal",
        cause="A batch of one repeated sample, constants instead of data, or faulty preprocessing.",
        cure="Pass samples that differ.",
    ),
    DiagnosisCode(
        name="input_scale",
        summary="The input was not scaled, which may explain other findings.",
        measure="E[x²] of the input of the first weight layer, and of each of its columns",
        threshold=LARGE,
        hides=(
            "vanishing_forward",
            "exploding_forward",
            "vanishing_backward",
            "exploding_backward",
            "dead",
            "saturated",
            "head_scale",
        ),
        limit=f"E[x²] > {LARGE:g} or < {SMALL:g}; of one column of (B, features): > {LARGE_COLUMN:g}."
        " Not checked if a norm after the first layer removes the scale",
        cause="Raw pixels from 0 to 255, an offset, or columns in different units.",
        cure="Scale the inputs to mean 0 and variance 1 (data.normalize=global, or per_feature for columns in"
        " different units).",
    ),
)


@dataclass(frozen=True)
class BatchStatistics:
    """Moments of a batch of finite floating-point numbers (B, …)."""

    q: float
    """E[x²]."""
    mean: float
    low: float
    high: float
    signal: float
    """Variance over samples, averaged over entries."""
    column: int
    """Column with the largest mean square, for shape (B, features); 0 for other shapes."""
    column_q: float
    """Mean square of that column; E[x²] for other shapes."""
    columns: int
    """Number of columns; 1 for other shapes."""

    @property
    def is_scaled(self) -> bool:
        """Whether the scale suits a net that expects inputs of variance 1."""
        return SMALL <= self.q <= LARGE and self.column_q <= LARGE_COLUMN

    @property
    def values(self) -> str:
        """E[x²] and the range, as text."""
        size = f"E[x²] = {self.q:.2g} (values {self.low:.4g} … {self.high:.4g})"
        spread = math.sqrt(max(self.q - self.mean**2, 0.0))
        if self.q > LARGE and abs(self.mean) > _OFFSET * spread:
            return f"{size}, most of it an offset of {self.mean:.4g}"
        if self.columns > 1 and self.column_q > _DOMINANT * self.q * self.columns:
            return f"{size}, most of it from column {self.column}, which has {self.column_q:.2g}"
        return size


def batch_statistics(x: Tensor) -> BatchStatistics | None:
    """Return the moments of a batch x (B, …); None for integers and if an entry is not finite."""
    if not x.is_floating_point() or x.numel() == 0:
        return None
    entries = x.detach().double()
    if not bool(torch.isfinite(entries).all()):
        return None
    q, column, column_q, count = mean_square(entries), 0, 0.0, 1
    if entries.ndim == 2 and entries.shape[1] > 1:
        columns = entries.square().mean(0)
        column, count = int(columns.argmax()), entries.shape[1]
        column_q = float(columns[column])
    return BatchStatistics(
        q=q,
        mean=float(entries.mean()),
        low=float(entries.min()),
        high=float(entries.max()),
        signal=signal_variance(entries, q),
        column=column,
        column_q=column_q or q,
        columns=count,
    )


def samples_differ(x: Tensor) -> bool:
    """Whether the samples of a batch x (B, …) differ by more than rounding."""
    statistics = batch_statistics(x)
    if statistics is not None:
        return statistics.signal > float32_floor(statistics.q)
    return not bool((x == x[:1]).all())  # integers, or non-finite numbers, of which NaN differs from itself


def alike_finding(samples: int) -> Iterator[Finding]:
    """Yield the finding for a batch whose samples are all identical."""
    message = (
        f"all {samples} samples of the batch are identical, so the net cannot distinguish them."
        " Pass samples that differ, and check the preprocessing"
    )
    yield Finding("samples_alike", None, 0.0, None, message, "init")


def scale_finding(
    raw: BatchStatistics | None, first: BatchStatistics | None, *, layer: int = 1
) -> Iterator[Finding]:
    """Yield a finding if the input of the first weight layer is not scaled.

    Args:
        raw: Statistics of the batch.
        first: Statistics of the input of the first layer, which the net may have scaled.
        layer: The index of the layer.
    """
    if first is None or first.is_scaled:
        return
    same = raw is not None and math.isclose(raw.q, first.q, rel_tol=1e-6)
    subject = "the inputs have" if same else f"the inputs of layer {layer} have"
    cause = "" if same or raw is None else f" (the batch itself has {raw.q:.2g})"
    message = (
        f"{subject} {first.values}{cause}, where 1 is expected. Other findings may be consequences of this."
    )
    by_column = SMALL <= first.q <= LARGE
    value = first.column_q if by_column else first.q
    threshold = LARGE_COLUMN if by_column else LARGE if first.q > LARGE else SMALL
    yield Finding("input_scale", layer, value, threshold, message, "init")
