"""What goes into a net: its scale, and whether its samples differ at all."""

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
"""E[x²] above or below which inputs are not scaled. Digits of 0 to 16 have 60, a one-hot code 1/C."""
LARGE_COLUMN = 1000.0
"""E[x²] of one column, above which it alone is not scaled."""
_OFFSET = 10.0
"""Means this many standard deviations away from 0 are what makes the mean square."""

_DOMINANT = 0.9
"""Share of all squares above which one column makes the mean square."""

INPUT_CODES = (
    DiagnosisCode(
        "samples_alike",
        "All samples of the batch are the same: there is nothing to tell apart.",
        "variance over samples of the input, beside what float32 rounds away",
        None,
        hides=("vanishing_forward", "vanishing_backward", "exploding_forward", "exploding_backward", "dead"),
        limit=f"variance over samples ≤ {ROUNDING:g}·E[x²]; of whole numbers: all rows are equal",
        cause="A batch of one sample repeated, constants in place of data, or preprocessing gone wrong.",
        cure="Pass samples that differ.",
    ),
    DiagnosisCode(
        "input_scale",
        "The input was not scaled: what is wrong behind it follows from that.",
        "E[x²] of what the first weight layer is given, and of each of its columns",
        LARGE,
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
        " Not looked for where a norm behind the first layer divides the scale out",
        cause="Raw pixels of 0 to 255, an offset, or columns in different units.",
        cure="Scale the inputs to mean 0 and variance 1 (data.normalize=global, or per_feature for columns in"
        " different units).",
    ),
)


@dataclass(frozen=True)
class BatchStatistics:
    """Moments of a batch of real numbers (B, …), all of them finite."""

    q: float
    """E[x²]."""
    mean: float
    low: float
    high: float
    signal: float
    """Variance over samples, averaged over entries."""
    column: int
    """Of (B, features), the column of the largest mean square; 0 for other shapes."""
    column_q: float
    """Its mean square; E[x²] for other shapes."""
    columns: int
    """How many there are; 1 for other shapes."""

    @property
    def is_scaled(self) -> bool:
        """Whether a net that expects numbers of size 1 can take it as it is."""
        return SMALL <= self.q <= LARGE and self.column_q <= LARGE_COLUMN

    @property
    def values(self) -> str:
        """E[x²] and the range, in words."""
        size = f"E[x²] = {self.q:.2g} (values {self.low:.4g} … {self.high:.4g})"
        spread = math.sqrt(max(self.q - self.mean**2, 0.0))
        if self.q > LARGE and abs(self.mean) > _OFFSET * spread:
            return f"{size}, most of it an offset of {self.mean:.4g}"
        if self.columns > 1 and self.column_q > _DOMINANT * self.q * self.columns:
            return f"{size}, most of it from column {self.column}, which has {self.column_q:.2g}"
        return size


def batch_statistics(x: Tensor) -> BatchStatistics | None:
    """Moments of the batch x (B, …); None for whole numbers and where an entry is not finite."""
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
        signal=signal_variance(entries),
        column=column,
        column_q=column_q or q,
        columns=count,
    )


def samples_differ(x: Tensor) -> bool:
    """Whether the samples of a batch x (B, …) differ by more than rounding."""
    statistics = batch_statistics(x)
    if statistics is not None:
        return statistics.signal > float32_floor(statistics.q)
    return not bool((x == x[:1]).all())  # whole numbers; what is not finite differs from itself


def alike_finding(samples: int) -> Iterator[Finding]:
    """The finding for a batch of so many samples that are all the same."""
    message = (
        f"all {samples} samples of the batch are the same, so that nothing can tell them apart."
        " Pass samples that differ, and see what the preprocessing does to them"
    )
    yield Finding("samples_alike", None, 0.0, None, message, "init")


def scale_finding(
    raw: BatchStatistics | None, first: BatchStatistics | None, *, layer: int = 1
) -> Iterator[Finding]:
    """A finding where the first weight layer is given what was not scaled.

    raw: of the batch itself; first: of what reaches the layer, which the net may have scaled itself.
    """
    if first is None or first.is_scaled:
        return
    same = raw is not None and math.isclose(raw.q, first.q, rel_tol=1e-6)
    subject = "the inputs have" if same else f"layer {layer} is given inputs that have"
    cause = "" if same or raw is None else f" (the batch itself has {raw.q:.2g})"
    message = (
        f"{subject} {first.values}{cause}, where 1 is expected. What else is wrong may follow from that."
    )
    by_column = SMALL <= first.q <= LARGE
    value = first.column_q if by_column else first.q
    threshold = LARGE_COLUMN if by_column else LARGE if first.q > LARGE else SMALL
    yield Finding("input_scale", layer, value, threshold, message, "init")
