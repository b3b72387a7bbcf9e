"""Rules about parameters without effect or gradient, duplicated units and residual branches."""

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
"""Growth of E[x²] over all residual sums above which it is reported."""
_STALE = 1e-4
"""Relative difference between a weight and the value of its hook that rounding cannot explain."""
_CENTRING_NORMS = ("batch", "instance")
"""Norms that subtract the mean of each channel, and thereby a bias."""


def _dead_bias(target: LintTarget) -> Iterator[LintMessage]:
    layers = [
        use.name for _, use in target.first_uses() if use.bias is not None and use.norm in _CENTRING_NORMS
    ]
    if layers:
        yield LintMessage(
            f"{join_names(layers)}: the norm directly after subtracts the mean and with it the bias, which"
            " gets no gradient.",
            "Create these layers with bias=False; the norm has its own shift.",
            tuple(layers),
            ("model.bias=false",),
        )


def _weight_norm_before_init(target: LintTarget) -> Iterator[LintMessage]:
    stale = list(_stale_weights(target)) + _default_under_weight_norm(target)
    if stale:
        yield LintMessage(
            f"{join_names(stale)}: uses weight norm and still has the weights of its constructor. An init"
            " that writes to `weight` after weight norm was applied has no effect, since the pass uses"
            " g·v/‖v‖.",
            "Initialise the weight first, then apply weight norm.",
            tuple(stale),
            target.random_inits,
        )


def _stale_weights(target: LintTarget) -> Iterator[str]:
    """Yield the layers whose `weight` differs from the value that the hook of weight_norm will compute."""
    for name, module in target.module.named_modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                stored, computed = getattr(module, hook.name), hook.compute_weight(module)
                if not torch.allclose(stored.detach(), computed.detach(), rtol=_STALE, atol=1e-6):
                    yield name


def _default_under_weight_norm(target: LintTarget) -> list[str]:
    """Return the layers with weight norm that still have the weights of torch's constructors."""
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
            f"{join_names(names)}: {alike} of {units} units have the same weights and the same gradient as"
            " another unit of their layer, so training cannot make them differ.",
            "Draw the weights of each unit independently.",
            tuple(names),
            target.random_inits,
        )


def _waits(use: WeightUse, record: dict[str, Any]) -> bool:
    """Whether the use ends a residual branch without a gradient so far, so that its units cannot differ."""
    return use.joins_residual and not record["grad"]["pre_q"]


def _unused(target: LintTarget) -> Iterator[LintMessage]:
    unseen = target.nets[0].trace.unseen
    idle = [name for name, why in unseen.items() if why == UNUSED]
    if idle:
        yield LintMessage(
            f"{join_names(idle)}: not used in the pass, so they get no gradient.",
            "Remove them, or check whether they belong to a head that was replaced.",
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
            f"{join_names(cut)}: the loss does not depend on their output, so they get no gradient.",
            "Look for a detach, a no_grad or a non-differentiable operation after them, or for an output"
            " that the loss does not use.",
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
        f"E[x²] grows ×{growth:.3g} over {len(sizes)} residual sums (×{a_sum:.2f} each): the branches are as"
        " large as the residual stream.",
        "Check the scale of the last layer of each branch.",
        tuple(addition.use.name for addition in sums),
        (*target.branch_starts, "model.norm=batch"),
    )


LINT_RULES.add(
    LintRule(
        name="dead_bias",
        summary="A layer before a norm that subtracts the mean has a bias.",
        source="Ioffe & Szegedy 2015",
        level="note",
        limit=f"any bias directly before one of these norms: {', '.join(_CENTRING_NORMS)}",
        cure="Create the layers without bias (model.bias=false, bias=False); the norm has its own shift.",
        look=_dead_bias,
    )
)
LINT_RULES.add(
    LintRule(
        name="weight_norm_before_init",
        summary="Weight norm was applied to a layer before its init, which therefore has no effect.",
        source="Salimans & Kingma 2016",
        level="warning",
        limit=f"`weight` and g·v/‖v‖ differ by > {100 * _STALE:g} %, or the weight is still that of torch's"
        " constructor",
        cure="Initialise the weight first and then apply weight norm, or use initbench.apply_init, which"
        " sets both.",
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
        summary="Parameters are not used in the pass.",
        source="",
        level="warning",
        limit="any parameter that is not an argument of any operation of the pass",
        cure="Remove them, or check whether they belong to a head that was replaced.",
        look=_unused,
        needs_uses=False,
    )
)
LINT_RULES.add(
    LintRule(
        name="no_gradient",
        summary="The loss does not depend on some weights that the pass uses.",
        source="",
        level="warning",
        limit="any weight of the pass for which autograd returns no gradient; a gradient of exactly 0 counts"
        " as one",
        cure="Look for a detach, a no_grad or a non-differentiable operation after them, or for an output"
        " that the loss does not use.",
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
        cure="Initialise the last layer of each branch to 0 or scale it by 1/√(2·sums)"
        " (init.scheme=skipinit, fixup or residual_scaled), or add a norm layer.",
        look=_residual_scale,
    )
)
