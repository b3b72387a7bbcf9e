"""Schemes that start as the identity map, as a matrix or at the centre of a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from initbench.components.init_scheme import INITS, Scheme, unit_gain


def centre(weight: Tensor) -> Tensor:
    """Return the matrix (out, in) at the centre of a kernel (out, in, …), as a view; a matrix unchanged."""
    for size in weight.shape[2:]:
        weight = weight[:, :, size // 2]
    return weight


def _dirac(weight: Tensor, *, gain: float, **_: Any) -> None:
    weight.zero_()
    centre(weight).fill_diagonal_(gain)


def _is_a_kernel(shape: Sequence[int]) -> str | None:
    if len(shape) == 2:
        return None
    return "fills matrices, and this is a convolution: dirac is the identity of those"


INITS.add(
    Scheme(
        name="identity",
        aliases=("eye",),
        summary="The identity matrix, cropped or padded with zeros if not square; for dense layers.",
        formula="W = gain·I",
        source="Le et al. 2015",
        fill=_dirac,
        is_random=False,
        unfillable=_is_a_kernel,
        default_gain=unit_gain,
    )
)
INITS.add(
    Scheme(
        name="dirac",
        aliases=("delta",),
        summary="Passes on the input of a convolution: identity at the kernel's centre; also for matrices.",
        formula="W = gain·I at the centre, else 0",
        source="Zagoruyko & Komodakis 2017",
        fill=_dirac,
        is_random=False,
        default_gain=unit_gain,
    )
)
