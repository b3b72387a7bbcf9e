"""Parameters that cannot do what they are there for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.utils.weight_norm import WeightNorm

from initbench.components.parametrized_weight import parametrization_of
from initbench.linting.rule import LINT_RULES, LintMessage, LintRule, LintTarget, join_names
from initbench.linting.weight_statistics import is_torch_default
from initbench.probing.module_probe import ALIKE_UNITS
from initbench.trace.weight_use import UNUSED, WeightUse

_GROWTH = 100.0
"""Growth of E[x²] over all residual sums that is too much."""
_STALE = 1e-4
"""Relative difference of a weight and what its hook computes that rounding does not make."""
_CENTRING_NORMS = ("batch", "instance")
"""Norms that subtract the mean of each channel, and a bias with it."""


def _dead_bias(target: LintTarget) -> Iterator[LintMessage]:
    layers = [
        use.name for _, use in target.first_uses() if use.bias is not None and use.norm in _CENTRING_NORMS
    ]
    if layers:
        yield LintMessage(
            f"{join_names(layers)}: the norm right behind subtracts the mean, and with it the bias, which gets no"
            " gradient.",
            "The norm has a shift of its own: such layers are made with bias=False.",
            tuple(layers),
            ("model.bias=false",),
        )


def _weight_norm_before_init(target: LintTarget) -> Iterator[LintMessage]:
    stale = list(_stale_weights(target)) + _default_under_weight_norm(target)
    if stale:
        yield LintMessage(
            f"{join_names(stale)}: under weight norm, and as the constructor left it: what an init writes to"
            " `weight` after weight norm was put on it is lost, since the pass uses g·v/‖v‖.",
            "Draw the weight first, and then put weight norm on it.",
            tuple(stale),
            target.random_inits,
        )


def _stale_weights(target: LintTarget) -> Iterator[str]:
    """Layers whose `weight` is not what the hook of the old weight_norm is going to compute."""
    for name, module in target.module.named_modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                stored, computed = getattr(module, hook.name), hook.compute_weight(module)
                if not torch.allclose(stored.detach(), computed.detach(), rtol=_STALE, atol=1e-6):
                    yield name


def _default_under_weight_norm(target: LintTarget) -> list[str]:
    """Layers under weight norm that look as torch's constructors left them."""
    looks = {use.name: is_torch_default(target.layer_in_nets(index)) for index, use in target.first_uses()}
    under = [name for name, module in target.module.named_modules() if _has_weight_norm(module)]
    return [name for name in under if looks.get(name)]


def _has_weight_norm(module: torch.nn.Module) -> bool:
    computed = parametrization_of(module)
    return computed is not None and any(
        type(parametrization).__name__ == "_WeightNorm" for parametrization in computed
    )


def _duplicated_units(target: LintTarget) -> Iterator[LintMessage]:
    net = target.nets[0]
    duplicated = [
        (use, copies)
        for use, record, copies in zip(net.trace.uses, net.records, net.duplicated, strict=True)
        if copies and use.activation is not None and use.use_count == 1 and not _waits(use, record)
    ]
    if duplicated:
        units = sum(use.units for use, _ in duplicated)
        alike = sum(copies for _, copies in duplicated)
        names = [use.name for use, _ in duplicated]
        yield LintMessage(
            f"{join_names(names)}: {alike} of {units} units have the weights of another one of their layer and get"
            " its gradient, so that training cannot tell them apart.",
            "Each unit needs weights of its own.",
            tuple(names),
            target.random_inits,
        )


def _waits(use: WeightUse, record: dict[str, Any]) -> bool:
    """Whether it ends a residual branch and gets no gradient yet: what its units differ in is not seen."""
    return use.joins_residual and not record["grad"]["pre_q"]


def _unused(target: LintTarget) -> Iterator[LintMessage]:
    unseen = target.nets[0].trace.unseen
    idle = [name for name, why in unseen.items() if why == UNUSED]
    if idle:
        yield LintMessage(
            f"{join_names(idle)}: no part of the pass uses them, so that they get no gradient.",
            "Take them out, or see whether they belong to a head that was replaced.",
            tuple(idle),
        )


def _no_gradient(target: LintTarget) -> Iterator[LintMessage]:
    net = target.nets[0]
    cut = [
        use.name
        for use, record in zip(net.trace.uses, net.records, strict=True)
        if record["grad"]["pre_q"] is None and net.trace.reached.isdisjoint(use.parts)
    ]
    if cut:
        yield LintMessage(
            f"{join_names(cut)}: the loss does not depend on what they put out, so that they get no gradient.",
            "Look for a detach, a no_grad or a step without gradient behind them, or for an output that is no"
            " part of the loss.",
            tuple(cut),
        )


def _residual_scale(target: LintTarget) -> Iterator[LintMessage]:
    sums = target.nets[0].trace.additions
    sizes = [addition.total for addition in sums]
    if len(sizes) < 2 or not 0.0 < sizes[0] < math.inf or sizes[-1] / sizes[0] < _GROWTH:
        return
    growth = sizes[-1] / sizes[0]
    a_sum = growth ** (1.0 / (len(sizes) - 1))
    yield LintMessage(
        f"E[x²] grows ×{growth:.3g} over {len(sizes)} residual sums (×{a_sum:.2f} each): every branch adds as"
        " much as what it is added to.",
        "Look at the last layer of each branch, and at what scales it.",
        tuple(addition.use.name for addition in sums),
        (*target.branch_starts, "model.norm=batch"),
    )


LINT_RULES.add(
    LintRule(
        name="dead_bias",
        summary="A bias stands before a norm that subtracts the mean.",
        source="Ioffe & Szegedy 2015",
        level="note",
        limit=f"any bias with a norm right behind it: {', '.join(_CENTRING_NORMS)}",
        cure="Make the layers without bias (model.bias=false, bias=False); the norm has a shift of its own.",
        look=_dead_bias,
    )
)
LINT_RULES.add(
    LintRule(
        name="weight_norm_before_init",
        summary="Weight norm was put on a layer before its init, which is lost.",
        source="Salimans & Kingma 2016",
        level="warning",
        limit=f"`weight` and g·v/‖v‖ differ by > {100 * _STALE:g} %, or the weight is as torch's constructor"
        " leaves it",
        cure="Draw the weight first and then put weight norm on it, or use initbench.apply_init, which sets"
        " both.",
        look=_weight_norm_before_init,
    )
)
LINT_RULES.add(
    LintRule(
        name="duplicated_units",
        summary="Units of a layer have the same weights and get the same gradient.",
        source="Rumelhart et al. 1986",
        level="warning",
        limit=f"any two units whose weights, biases and gradients agree within {ALIKE_UNITS:g} of the"
        " largest entry",
        cure="Draw the weights at random: init.scheme=kaiming_normal.",
        look=_duplicated_units,
    )
)
LINT_RULES.add(
    LintRule(
        name="unused",
        summary="Parameters that no part of the pass uses.",
        source="",
        level="warning",
        limit="any parameter that no operation of the pass takes",
        cure="Take them out, or see whether they belong to a head that was replaced.",
        look=_unused,
        needs_uses=False,
    )
)
LINT_RULES.add(
    LintRule(
        name="no_gradient",
        summary="Weights that the pass uses and the loss does not reach.",
        source="",
        level="warning",
        limit="any weight of the pass for which autograd has no gradient at all; an exact 0 counts as one",
        cure="Look for a detach, a no_grad or a step without gradient behind them, or for an output that is"
        " no part of the loss.",
        look=_no_gradient,
    )
)
LINT_RULES.add(
    LintRule(
        name="residual_scale",
        summary=f"The residual stream grows more than {_GROWTH:g} times over the net.",
        source="Zhang et al. 2019, De & Smith 2020",
        level="warning",
        limit=f"E[x²] of the last residual sum ≥ {_GROWTH:g} times that of the first",
        cure="Start the last layer of each branch at 0 or scale it by 1/√(2·sums) (init.scheme=skipinit,"
        " fixup or residual_scaled), or add a norm layer.",
        look=_residual_scale,
    )
)
