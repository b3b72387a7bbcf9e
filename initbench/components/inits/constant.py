"""Constant schemes: all units of a layer start equal, and therefore stay equal during training."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from initbench.components.init_scheme import INITS, Scheme
from initbench.registry import Options


class ConstantOptions(Options):
    """Options of constant."""

    value: float = 1.0
    """The value of every weight."""


def _ones(weight: Tensor, **_: Any) -> None:
    weight.fill_(1.0)


def _zeros(weight: Tensor, **_: Any) -> None:
    weight.zero_()


def _constant(weight: Tensor, **arguments: Any) -> None:
    weight.fill_(arguments["value"])


INITS.add(
    Scheme(
        name="zeros",
        aliases=("zero",),
        summary="Every weight is 0: all units are identical, and with relu no gradient is propagated.",
        formula="W = 0",
        source="the symmetry failure, Rumelhart et al. 1986",
        fill=_zeros,
        is_random=False,
    )
)
INITS.add(
    Scheme(
        name="ones",
        aliases=("one",),
        summary="Every weight is 1: all units of a layer stay identical, and the signal grows by a factor n.",
        formula="W = 1",
        source="the symmetry failure, Rumelhart et al. 1986",
        fill=_ones,
        is_random=False,
    )
)
INITS.add(
    Scheme(
        name="constant",
        aliases=("const",),
        summary="Every weight has the same value: the signal passes, but a layer's units stay identical.",
        formula="W = value",
        source="the symmetry failure, Rumelhart et al. 1986",
        options=ConstantOptions,
        fill=_constant,
        is_random=False,
    )
)
