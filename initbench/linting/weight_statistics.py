"""Statistics of weights that identify the distribution they were drawn from, with sampling errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from initbench.trace.weight_use import WeightUse

SIGMAS = 5.0
"""Number of standard errors from which two variances differ; misses one true match in 1.7 million."""
_TAIL = 20.0
"""Largest relative gap between the bound of a uniform distribution and the maximum of n draws, times n."""
MIN_ENTRIES = 64
"""Minimum number of entries for identifying a distribution."""


@dataclass(frozen=True)
class Variance:
    """Mean square of the entries of a weight, and its relative standard error."""

    value: float
    relative_error: float
    entries: int

    def is_like(self, other: float) -> bool:
        """Whether the variance equals `other` within the sampling error."""
        if other <= 0.0:
            return self.value == other
        return abs(self.value / other - 1.0) <= SIGMAS * self.relative_error


def variance_of(uses: Sequence[WeightUse]) -> Variance:
    """Return the variance of a weight over all nets.

    The standard error assumes independent entries with the observed kurtosis.
    """
    parts = [use.weight.detach() for use in uses]
    entries = sum(part.numel() for part in parts)
    square = math.fsum(float(part.square().double().sum()) for part in parts) / entries
    fourth = math.fsum(float(part.double().square().square().sum()) for part in parts) / entries
    kurtosis = fourth / square**2 if square > 0.0 else 1.0
    return Variance(square, math.sqrt(max(kurtosis - 1.0, 0.5) / entries), entries)


def is_torch_default(uses: Sequence[WeightUse]) -> bool:
    """Whether a weight looks as torch's constructors draw it: U(±1/√fan_in), with torch's fan_in.

    The largest of n entries lies within 20/n of the bound except once in 5e8 draws, which distinguishes this
    distribution from uniform ones with another bound. Xavier's bound is the same if there are five times as
    many outputs as inputs. In that case the bias decides: an init sets it to one value, the constructor
    draws it at random.
    """
    weight = uses[0].weight
    bound = 1.0 / math.sqrt(math.prod(weight.shape[1:]))
    variance = variance_of(uses)
    if variance.entries < MIN_ENTRIES:
        return False
    reach = max(float(use.weight.detach().abs().max()) for use in uses)
    room = _TAIL / variance.entries
    fills = bound * (1.0 - room) < reach <= bound * (1.0 + 1e-6)
    if not fills or not variance.is_like(bound**2 / 3.0):
        return False
    torch_in, torch_out = torch_fans(weight)
    xavier = math.sqrt(6.0 / (torch_in + torch_out))
    is_ambiguous = abs(xavier / bound - 1.0) <= room
    return not is_ambiguous or _has_drawn_bias(uses[0])


def _has_drawn_bias(use: WeightUse) -> bool:
    """Whether there is a bias with different entries, as the constructors draw it and no init sets it."""
    return use.bias is not None and float(use.bias.detach().std(correction=0)) > 0.0


def torch_fans(weight: Tensor) -> tuple[int, int]:
    """Return (fan_in, fan_out) as torch.nn.init computes them for any layer, without groups and strides."""
    kernel = math.prod(weight.shape[2:])
    return int(weight.shape[1] * kernel), int(weight.shape[0] * kernel)
