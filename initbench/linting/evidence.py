"""What the numbers in a weight say of the law it was drawn from, with the sampling error they leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from initbench.trace.use import Use

SIGMAS = 5.0
"""Standard errors beyond which two variances differ: one true match in 1.7 million is missed."""
LEAST_ENTRIES = 64
"""Entries that a law is told from."""


@dataclass(frozen=True)
class Variance:
    """Mean square of the entries of a weight, and its relative standard error."""

    value: float
    relative_error: float
    entries: int

    def is_like(self, other: float) -> bool:
        """Whether it is that of draws of variance `other`, within the sampling error."""
        if other <= 0.0:
            return self.value == other
        return abs(self.value / other - 1.0) <= SIGMAS * self.relative_error


def variance_of(uses: Sequence[Use]) -> Variance:
    """Over all nets. The error is that of independent entries of the kurtosis that is seen."""
    parts = [use.weight.detach() for use in uses]
    entries = sum(part.numel() for part in parts)
    square = math.fsum(float(part.square().double().sum()) for part in parts) / entries
    fourth = math.fsum(float(part.double().square().square().sum()) for part in parts) / entries
    kurtosis = fourth / square**2 if square > 0.0 else 1.0
    return Variance(square, math.sqrt(max(kurtosis - 1.0, 0.5) / entries), entries)


def is_torch_default(uses: Sequence[Use]) -> bool:
    """Whether a weight looks as torch's constructors draw it: U(±1/√fan_in), torch's own fan_in."""
    shape = uses[0].weight.shape
    bound = 1.0 / math.sqrt(math.prod(shape[1:]))
    variance = variance_of(uses)
    if variance.entries < LEAST_ENTRIES:
        return False
    reach = max(float(use.weight.detach().abs().max()) for use in uses)
    fills = 0.9 * bound < reach <= bound * (1.0 + 1e-6)
    return fills and variance.is_like(bound**2 / 3.0)


def torch_fans(weight: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) as torch.nn.init computes them: without groups and strides, of any layer."""
    kernel = math.prod(weight.shape[2:])
    return int(weight.shape[1] * kernel), int(weight.shape[0] * kernel)
