"""Schemes that initialise the branches of a residual net small or at zero."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from initbench.components.init_scheme import (
    INITS,
    Edit,
    Refusal,
    ResidualBranch,
    Scheme,
    SchemeContext,
    SchemeRequirement,
    kaiming_gain,
)
from initbench.components.inits.variance_scaling import draw, fan_in_variance
from initbench.components.parametrized_weight import assign_weight, weight_of
from initbench.registry import Options


class SkipInitOptions(Options):
    """Options of skipinit."""

    alpha: float = 0.0
    """Initial value of the learned factor of every branch."""


def _fixup(branches: Sequence[ResidualBranch], head: nn.Module | None) -> None:
    """Scale all weight layers of each branch but the last, set the last and the head to 0, and add scalars.

    With L branches of m weight layers each, the factor is L^(−1/(2m−2)).
    """
    for branch in branches:
        *inner, last = branch.weights
        for module in inner:
            factor = len(branches) ** (-1.0 / (2 * len(branch.weights) - 2))
            assign_weight(module, factor * weight_of(module))
        _clear(last)
        branch.insert_scale(1.0)
        branch.insert_shifts()
    if head is not None:
        _clear(head)


def _clear(module: nn.Module) -> None:
    assign_weight(module, torch.zeros_like(weight_of(module)))


def _skipinit(branches: Sequence[ResidualBranch], _head: nn.Module | None, *, alpha: float) -> None:
    for branch in branches:
        branch.insert_scale(alpha)


def _rezero(branches: Sequence[ResidualBranch], _head: nn.Module | None) -> None:
    for branch in branches:
        branch.insert_scale(0.0)


def _zero_gamma(branches: Sequence[ResidualBranch], _head: nn.Module | None) -> None:
    for branch in branches:
        scale = getattr(branch.last_norm, "weight", None)
        if not isinstance(scale, nn.Parameter):
            raise ValueError(
                "sets the scale of the norm layer that closes each branch, and there is none (model.norm)"
            )
        scale.zero_()


def _residual_scaled(branches: Sequence[ResidualBranch], _head: nn.Module | None) -> None:
    """Scale the last layer of each of the N branches by 1/√N, as in GPT-2."""
    for branch in branches:
        last = branch.weights[-1]
        assign_weight(last, weight_of(last) / math.sqrt(len(branches)))


def _needs_norm(key: str, setting: SchemeContext) -> str | None:
    if setting.norm != "none":
        return None
    return f"{key} sets the scales of norm layers, and with model.norm=none there are none"


def _anything(_key: str, _setting: SchemeContext) -> str | None:
    return None


def _register(
    name: str,
    edit: Edit,
    *,
    formula: str,
    summary: str,
    source: str,
    options: type[Options] = Options,
    problem: Refusal = _anything,
) -> None:
    """Register a scheme that edits residual branches; all other weights are drawn as by kaiming_normal."""
    INITS.add(
        Scheme(
            name=name,
            summary=summary,
            formula=formula,
            source=source,
            options=options,
            needs=SchemeRequirement.MODEL_EDIT,
            fill=draw(fan_in_variance, "normal"),
            default_gain=kaiming_gain,
            edit=edit,
            problem=problem,
        )
    )


_register(
    "fixup",
    _fixup,
    formula="kaiming·L^(−1/(2m−2)), 0 in a branch's last layer and the head; learned scales and shifts",
    summary="For L residual branches of m layers without norm layers: an update changes the net by Θ(lr).",
    source="Zhang et al. 2019",
)
_register(
    "skipinit",
    _skipinit,
    formula="x + α·F(x), α = 0 and learned",
    summary="Scales residual branches down at init, as batch norm would, without a norm layer.",
    source="De & Smith 2020",
    options=SkipInitOptions,
)
_register(
    "rezero",
    _rezero,
    formula="x + α·F(x), α = 0 and learned",
    summary="Every residual net starts as its shortcuts alone, which keep signal and gradient.",
    source="Bachlechner et al. 2020",
)
_register(
    "zero_gamma",
    _zero_gamma,
    formula="γ = 0 in the norm layer at the end of a branch",
    summary="Residual nets with norm layers start as their shortcuts alone.",
    source="Goyal et al. 2017",
    problem=_needs_norm,
)
_register(
    "residual_scaled",
    _residual_scaled,
    formula="kaiming/√N in a branch's last layer, N branches",
    summary="The sum of all branches has the size of a single one, so the signal does not grow with depth.",
    source="Radford et al. 2019",
)
