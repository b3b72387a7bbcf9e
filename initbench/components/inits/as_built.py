"""The scheme `as_built`, which keeps the weights of the constructed net."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from initbench.components.init_scheme import INITS, Scheme, SchemeRequirement


def _keep(weight: Tensor, **_: Any) -> None:
    """Keep the weight as it is."""


INITS.add(
    Scheme(
        name="as_built",
        aliases=("as_constructed",),
        summary="Keeps weights and biases as the net is constructed: for nets that draw their own.",
        formula="W = W of the constructor",
        source="-",
        needs=SchemeRequirement.CONSTRUCTION,
        fill=_keep,
    )
)
