"""Layers that are copies of one another, that do not learn, or that end where the loss goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from initbench.linting.rule import LINT_RULES, LintMessage, LintRule, LintTarget, join_names
from initbench.trace.torch_ops import norm_module
from initbench.trace.weight_use import WeightUse

_MIN_ENTRIES = 16
"""Of weights that are compared: a few numbers may agree by chance, or by a rule."""
_MIN_CHANNELS = 8
_CLAMPED = 0.1
"""Share of logits that are exactly 0 where a relu stands behind them."""
_BOTH_SIGNS = 0.1
"""Share of a norm's scales below 0 from which they were drawn around 0."""


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
            f"{join_names(names)}: the same weights, to the last digit, as an earlier layer, as copy.deepcopy"
            " leaves them (nn.TransformerEncoder clones its layer so).",
            "Each layer needs weights that were drawn for it.",
            tuple(names),
            target.random_inits,
        )


def _is_drawn(use: WeightUse) -> bool:
    """Whether its entries differ, so that two layers that agree were not drawn one by one."""
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
            f"{what} stands behind the logits of {head.name}, and the loss applies its own softmax or sigmoid"
            " to what comes out: the gradient of what is wrong fades or is cut.",
            "Put out the logits as they are.",
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
            f"{join_names(frozen)}: requires_grad is False, so that they stay as they were drawn.",
            "Set requires_grad_(True), unless their weights were trained elsewhere and are meant to stay.",
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
            f"{join_names(odd)}: the scales (γ) of the norm are drawn around 0 (root mean square {size:.2g}): they"
            f" flip the sign of some channels and scale the signal by {size:.2g}.",
            "Start them at 1, or draw them around 1; at 0 exactly only where a residual branch ends.",
            tuple(odd),
        )


LINT_RULES.add(
    LintRule(
        name="identical_layers",
        summary="Two layers have the same random weights, to the last digit.",
        source="PyTorch's nn.TransformerEncoder, which says so of itself",
        level="warning",
        limit=f"every entry of the weight equal, no rounding; weights of ≥ {_MIN_ENTRIES} entries",
        cure="Draw each layer anew: init.scheme=kaiming_normal, or initbench.apply_init(module).",
        look=_identical_layers,
    )
)
LINT_RULES.add(
    LintRule(
        name="activation_on_logits",
        summary="A softmax, or a relu that clamps a tenth of the logits or more, stands between the head and"
        " a loss that takes logits.",
        source="Bridle 1990, for what a softmax expects",
        level="warning",
        limit=f"any softmax; a relu where > {100 * _CLAMPED:g} % of the logits are exactly 0",
        cure="Put out the logits as they are.",
        look=_activation_on_logits,
    )
)
LINT_RULES.add(
    LintRule(
        name="frozen",
        summary="A layer of the pass has requires_grad=False in all its parameters.",
        source="",
        level="warning",
        limit="all parameters of one layer",
        cure="Set requires_grad_(True), unless the weights were trained elsewhere and are meant to stay.",
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
        cure="Start the scales at 1, or draw them around 1; at 0 exactly only where a residual branch ends.",
        look=_norm_scale,
    )
)
