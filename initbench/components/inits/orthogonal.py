"""Orthogonal weights: every singular value is the gain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from initbench.components.scheme import INITS, Scheme, unit_gain


def orthogonal(weight: Tensor, *, gain: float, generator: Generator, **_: Any) -> None:
    """W = gain·Q·sign(diag R) from the QR decomposition of a Gaussian matrix, uniform over the group.

    A weight of shape (m, …) is seen as (m, n): its rows are orthonormal when m ≤ n, else its columns.
    """
    rows = weight.shape[0]
    columns = weight.numel() // rows
    gaussian = torch.empty(max(rows, columns), min(rows, columns)).normal_(generator=generator)
    q, r = torch.linalg.qr(gaussian)
    q = q * torch.sign(torch.diagonal(r))
    weight.copy_(gain * (q if rows >= columns else q.mT).reshape(weight.shape))


INITS.add(
    Scheme(
        name="orthogonal",
        summary="Keeps the length of every input exactly through linear layers, at any depth.",
        formula="W = gain·Q·sign(diag R)",
        source="Saxe et al. 2014",
        fill=orthogonal,
        default_gain=unit_gain,
    )
)
