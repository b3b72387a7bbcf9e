"""Sparse weights: every unit is connected to a few inputs only."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Generator, Tensor

from initbench.components.init_scheme import INITS, Scheme
from initbench.registry import MAX_COUNT, Options


class SparseOptions(Options):
    """Options of sparse."""

    connections: int = Field(default=15, ge=1, le=MAX_COUNT)
    """Number of nonzero weights of a unit; all, if it has fewer inputs."""
    std: float = Field(default=1.0, gt=0.0)
    """Standard deviation of the nonzero weights."""


def _sparse(weight: Tensor, *, generator: Generator, **options: Any) -> None:
    connections, std = options["connections"], options["std"]
    units = weight.shape[0]
    inputs = weight.numel() // units
    connected = torch.rand(units, inputs, generator=generator).argsort(1)[:, :connections]
    values = torch.empty(connected.shape).normal_(0.0, std, generator=generator)
    weight.copy_(torch.zeros(units, inputs).scatter_(1, connected, values).view(weight.shape))


INITS.add(
    Scheme(
        name="sparse",
        summary="A few strong inputs per unit, so that σ_w² is independent of the width, and units differ.",
        formula="15 weights of a unit ~ N(0, std²), else 0",
        source="Martens 2010",
        options=SparseOptions,
        fill=_sparse,
    )
)
