"""Rules about copied layers, frozen layers, activations on logits, and scales of norm layers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from initbench.linting.rule import LINT_RULES, LintMessage, LintRule, LintTarget, join_names
from initbench.trace.torch_ops import norm_module
from initbench.trace.weight_use import WeightUse

_MIN_ENTRIES = 16
"""Minimum number of entries of compared weights; a few numbers may agree by chance or by design."""
_MIN_CHANNELS = 8
_CLAMPED = 0.1
"""Share of logits that are exactly 0 above which a relu on them is reported."""
_BOTH_SIGNS = 0.1
"""Share of negative scales of a norm above which they were drawn around 0."""


def _identical_layers(target: LintTarget) -> Iterator[LintMessage]:
    groups: dict[tuple[int, ...], list[WeightUse]] = {}
    for index, use in target.first_uses():
        if target.nets[0].records[index]["grad"]["pre_q"] is not None and _is_drawn(use):
            groups.setdefault(tuple(use.weight.shape), []).append(use)
    copies: list[WeightUse] = []
    for group in groups.values():
        for index, use in enumerate(group):
            if any(torch.equal(use.weight.detach(), other.weight.detach()) for other in group[:index]):
                copies.append(use)
    if copies:
        names = [use.name for use in copies]
        yield LintMessage(
            f"{join_names(names)}: exactly the same weights as an earlier layer, as after copy.deepcopy"
            " (nn.TransformerEncoder copies its layer in this way).",
            "Draw the weights of each layer independently.",
            tuple(names),
            target.random_inits,
        )


def _is_drawn(use: WeightUse) -> bool:
    """Whether the entries differ in such a way that equal layers cannot have been drawn independently."""
    weight = use.weight.detach()
    if weight.numel() < _MIN_ENTRIES:
        return False
    is_identity = weight.ndim == 2 and int((weight != 0).sum()) <= max(weight.shape)
    return not is_identity and float(weight.min()) < float(weight.max())


def _activation_on_logits(target: LintTarget) -> Iterator[LintMessage]:
    net = target.nets[0]
    if not net.loss.takes_logits:
        return
    head = target.heads[0]
    what = "a softmax" if net.output_is_probabilities else _bent_by(head, net.zero_share)
    if what is not None:
        yield LintMessage(
            f"{what} follows the logits of {head.name}, and the loss applies its own softmax or sigmoid"
            " again: the gradient of wrong predictions becomes small or zero.",
            "Return the logits without an activation.",
            (head.name,),
        )


def _bent_by(head: WeightUse, zero_share: float) -> str | None:
    if head.activation is None or head.operation in ("lstm", "gru"):
        return None
    if "relu" in head.activation.label and zero_share > _CLAMPED:
        return f"a {head.activation.label}"
    return None


def _frozen(target: LintTarget) -> Iterator[LintMessage]:
    layers = dict(target.module.named_modules())
    frozen = [use.name for _, use in target.first_uses() if _is_frozen(layers.get(use.name))]
    if frozen:
        yield LintMessage(
            f"{join_names(frozen)}: requires_grad is False, so training does not change them.",
            "Set requires_grad_(True), unless the weights are pre-trained and should stay fixed.",
            tuple(frozen),
        )


def _is_frozen(module: nn.Module | None) -> bool:
    parameters = [] if module is None else list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _norm_scale(target: LintTarget) -> Iterator[LintMessage]:
    odd: list[str] = []
    means: list[float] = []
    for name, module in target.module.named_modules():
        if norm_module(type(module).__name__) is None:
            continue
        scale = getattr(module, "weight", None)
        if not isinstance(scale, torch.Tensor):
            continue
        if scale.ndim != 1 or scale.numel() < _MIN_CHANNELS or not scale.is_floating_point():
            continue
        if float((scale.detach() < 0.0).double().mean()) > _BOTH_SIGNS:
            odd.append(name)
            means.append(float(scale.detach().double().square().mean()))
    if odd:
        size = math.sqrt(math.fsum(means) / len(means))
        yield LintMessage(
            f"{join_names(odd)}: the scales (γ) of the norm are drawn around 0 (root mean square"
            f" {size:.2g}): they flip the sign of some channels and scale the signal by {size:.2g}.",
            "Initialise them to 1 or around 1; use exactly 0 only at the end of a residual branch.",
            tuple(odd),
        )


LINT_RULES.add(
    LintRule(
        name="identical_layers",
        summary="Two layers have exactly the same random weights.",
        source="PyTorch's documentation of nn.TransformerEncoder",
        level="warning",
        limit=f"all entries of the weight exactly equal; weights of ≥ {_MIN_ENTRIES} entries",
        cure="Draw each layer independently: init.scheme=kaiming_normal, or initbench.apply_init(module).",
        look=_identical_layers,
    )
)
LINT_RULES.add(
    LintRule(
        name="activation_on_logits",
        summary="A softmax, or a relu that clamps a tenth of the logits or more, is applied between the head"
        " and a loss that expects logits.",
        source="Bridle 1990, for what a softmax expects",
        level="warning",
        limit=f"any softmax; a relu where > {100 * _CLAMPED:g} % of the logits are exactly 0",
        cure="Return the logits without an activation.",
        look=_activation_on_logits,
    )
)
LINT_RULES.add(
    LintRule(
        name="frozen",
        summary="All parameters of a layer of the pass have requires_grad=False.",
        source="",
        level="warning",
        limit="all parameters of one layer",
        cure="Set requires_grad_(True), unless the weights are pre-trained and should stay fixed.",
        look=_frozen,
    )
)
LINT_RULES.add(
    LintRule(
        name="norm_scale",
        summary="More than a tenth of a norm's scales are negative: they were drawn around 0, not 1.",
        source="Ioffe & Szegedy 2015, Radford et al. 2016",
        level="warning",
        limit=f"> {100 * _BOTH_SIGNS:g} % of the scales below 0; norms of ≥ {_MIN_CHANNELS} channels",
        cure="Initialise the scales to 1 or around 1; use exactly 0 only at the end of a residual branch.",
        look=_norm_scale,
    )
)
