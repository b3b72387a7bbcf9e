"""Orthogonal weights: every singular value equals the gain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from initbench.components.init_scheme import INITS, Scheme, SchemeContext, unit_gain
from initbench.components.inits.identity import centre


def orthogonal(weight: Tensor, *, gain: float, generator: Generator, **_: Any) -> None:
    """Set W = gain·Q·sign(diag R) from the QR decomposition of a Gaussian matrix, uniform over the group.

    A weight of shape (m, …) is treated as (m, n): its rows are orthonormal if m ≤ n, else its columns.
    """
    rows = weight.shape[0]
    columns = weight.numel() // rows
    gaussian = torch.empty(max(rows, columns), min(rows, columns)).normal_(generator=generator)
    q, r = torch.linalg.qr(gaussian)
    q = q * torch.sign(torch.diagonal(r))
    weight.copy_(gain * (q if rows >= columns else q.mT).reshape(weight.shape))


def _delta_orthogonal(weight: Tensor, *, gain: float, generator: Generator, **_: Any) -> None:
    """Set the centre of a kernel to an orthogonal matrix, and the rest to 0; a matrix as a whole."""
    matrix = torch.empty(weight.shape[:2])
    orthogonal(matrix, gain=gain, generator=generator)
    weight.zero_()
    centre(weight).copy_(matrix)


def _narrows(shape: Sequence[int]) -> str | None:
    outputs, inputs, *kernel = shape
    if not kernel or inputs <= outputs:
        return None
    return (
        "keeps norms only where a convolution has no more channels in than out,"
        f" not {inputs} in and {outputs} out"
    )


def _mirrored(weight: Tensor, *, generator: Generator, **_: Any) -> None:
    half = torch.empty(weight.shape[0], weight.shape[1] // 2, *weight.shape[2:])
    orthogonal(half, gain=1.0, generator=generator)
    weight.copy_(torch.cat([half, -half], dim=1))


def _has_no_halves(shape: Sequence[int]) -> str | None:
    inputs = shape[1]
    if inputs % 2 == 0:
        return None
    return f"mirrors the two halves of crelu's channels, and {inputs} are no two halves"


def _plain(weight: Tensor, *, generator: Generator, **_: Any) -> None:
    orthogonal(weight, gain=1.0, generator=generator)


def _needs_crelu(key: str, setting: SchemeContext) -> str | None:
    name = setting.activation.entry.name
    return None if name == "crelu" else f"{key} needs model.activation=crelu, not {name}"


INITS.add(
    Scheme(
        name="orthogonal",
        aliases=("ortho",),
        summary="Keeps the length of every input exactly through linear layers, at any depth.",
        formula="W = gain·Q·sign(diag R)",
        source="Saxe et al. 2014",
        fill=orthogonal,
        default_gain=unit_gain,
    )
)
INITS.add(
    Scheme(
        name="delta_orthogonal",
        summary="Convolutions that keep their input's length: an orthogonal matrix at the kernel's centre.",
        formula="W = gain·Q at the centre, else 0; c_in ≤ c_out",
        source="Xiao et al. 2018",
        fill=_delta_orthogonal,
        unfillable=_narrows,
        default_gain=unit_gain,
    )
)
INITS.add(
    Scheme(
        name="looks_linear",
        summary="With crelu, the net starts as a linear net whose orthogonal layers keep the signal exactly.",
        formula="W = [Q, −Q] after crelu, Q in the first layer",
        source="Balduzzi et al. 2017",
        fill=_mirrored,
        unfillable=_has_no_halves,
        first_fill=_plain,
        problem=_needs_crelu,
    )
)
