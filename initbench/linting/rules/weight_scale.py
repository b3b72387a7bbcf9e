"""Is the variance of the weights what was asked for, and what the layer needs?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from initbench.linting.rule import LINT_RULES, LintMessage, LintRule, LintTarget, join_names
from initbench.linting.weight_statistics import (
    MIN_ENTRIES,
    SIGMAS,
    Variance,
    is_torch_default,
    torch_fans,
    variance_of,
)
from initbench.probing.training_conditions import SCALE_FREE_NORMS
from initbench.trace.torch_ops import WEIGHTED
from initbench.trace.weight_use import WeightUse

_FAR = 0.2
"""Relative difference of two fans that matters."""
_SHARP = 0.1
"""Relative standard error above which a variance says nothing of fans."""


def _variance(target: LintTarget) -> Iterator[LintMessage]:
    for index, use in target.first_uses():
        rule = target.declared.get(use.name)
        if rule is None or rule.sigma_w2 is None:
            continue
        variance, declared = variance_of(target.layer_in_nets(index)), rule.sigma_w2 / rule.fan_in
        if not variance.is_like(declared):
            yield LintMessage(
                f"{use.name} was to be drawn with variance {declared:.3g} ({rule.scheme.name}) and has"
                f" {variance.value:.3g} ±{variance.value * variance.relative_error:.1g}.",
                "Something draws or rescales it after the init; look for what runs last.",
                (use.name,),
            )


@dataclass(frozen=True)
class _ScalingRule:
    """A variance gain²/fan, in words."""

    gain2: float
    fan: str
    torchs: float
    true: float


def _scaling_rules(use: WeightUse, gains: Sequence[float]) -> Iterator[_ScalingRule]:
    torch_in, torch_out = torch_fans(use.weight)
    for gain2 in gains:
        yield _ScalingRule(gain2, "fan_in", torch_in, use.fan_in)
        if not use.from_input:  # nothing lies below that a gradient could go to
            yield _ScalingRule(gain2, "fan_out", torch_out, use.fan_out)
    yield _ScalingRule(2.0, "fan_in + fan_out", torch_in + torch_out, use.fan_in + use.fan_out)


def _fans(target: LintTarget) -> Iterator[LintMessage]:
    gains = [1.0, 2.0]
    if target.activation.entry.elementwise:
        gains.append(target.activation.preserving_gain**2)
    by_fan: dict[str, list[tuple[str, _ScalingRule]]] = {}
    for index, use in target.first_uses():
        if use.name in target.declared or use.norm is not None:  # a norm takes the scale away
            continue
        rule = _mistaken_rule(use, target.layer_in_nets(index), gains)
        if rule is not None:
            by_fan.setdefault(rule.fan, []).append((use.name, rule))
    for fan, mistaken in by_fan.items():
        if len({rule.torchs for _, rule in mistaken}) > 1:  # one layer alone may be so by chance
            yield _fans_message(fan, mistaken, target.random_inits)


def _fans_message(
    fan: str, mistaken: Sequence[tuple[str, _ScalingRule]], draws: tuple[str, ...]
) -> LintMessage:
    names = [name for name, _ in mistaken]
    (_, rule), factors = mistaken[0], sorted(rule.true / rule.torchs for _, rule in mistaken)
    share = f"×{factors[0]:.2g}" if len(factors) == 1 else f"×{factors[0]:.2g} to ×{factors[-1]:.2g}"
    hurt = "E[δ²]" if fan == "fan_out" else "E[h²]"
    return LintMessage(
        f"{join_names(names)}: scaled by torch.nn.init's {fan}, which leaves out groups and strides ({names[0]}:"
        f" variance {rule.gain2:.3g}/{rule.torchs:g}, but its {fan} is {rule.true:g}); {hurt} starts {share} as"
        " large as meant.",
        "Count groups and strides, as initbench.apply_init does.",
        tuple(names),
        draws,
    )


def _mistaken_rule(use: WeightUse, drawn: Sequence[WeightUse], gains: Sequence[float]) -> _ScalingRule | None:
    """The law of torch's fans that the variance follows, where it follows none of the true ones."""
    variance, rules = variance_of(drawn), list(_scaling_rules(use, gains))
    if variance.entries < MIN_ENTRIES or variance.relative_error > _SHARP or is_torch_default(drawn):
        return None
    if any(variance.is_like(rule.gain2 / rule.true) for rule in rules):
        return None
    return next((rule for rule in rules if _is_mistaken(rule, variance)), None)


def _is_mistaken(rule: _ScalingRule, variance: Variance) -> bool:
    return abs(rule.torchs / rule.true - 1.0) > _FAR and variance.is_like(rule.gain2 / rule.torchs)


def _default_layers(target: LintTarget) -> tuple[list[str], int]:
    """Return the layers that look as torch's constructors leave them, and how many could be judged."""
    modules = target.module.named_modules()
    attention = tuple(f"{name}." for name, module in modules if isinstance(module, nn.MultiheadAttention))
    candidates = [
        (index, use)
        for index, use in target.first_uses()
        if use.weight.numel() >= MIN_ENTRIES
        and use.name not in target.declared
        and _belongs_to_layer(use)
        and not use.name.startswith(attention)  # drawn by the constructor of the attention
    ]
    return [use.name for index, use in candidates if is_torch_default(target.layer_in_nets(index))], len(
        candidates
    )


def _belongs_to_layer(use: WeightUse) -> bool:
    """Whether a linear layer or convolution was constructed with it, not attention or an embedding."""
    plain = use.operation in WEIGHTED and not use.looked_up and not use.name.endswith("in_proj_weight")
    return plain and bool(use.weight.detach().isfinite().all())


def _torch_default(target: LintTarget) -> Iterator[LintMessage]:
    layers, candidate_count = _default_layers(target)
    normed = {use.name for use in target.uses if use.norm is not None}
    bare = [name for name in layers if name not in normed]
    if layers and len(layers) == candidate_count and len(bare) > 1:
        yield LintMessage(
            f"All {candidate_count} weights are as torch's constructors leave them, with variance 1/(3·fan_in)"
            f"{_needed_variance_text(target)}; {len(bare)} of them have no norm behind them.",
            "Draw them by a scheme that goes with the activation.",
            tuple(layers),
            target.random_inits,
        )


def _needed_variance_text(target: LintTarget) -> str:
    """What the net's activation asks for instead, where that is known."""
    activation = target.activation
    if not activation.entry.elementwise:
        return ""
    return f", where {activation.entry.name} keeps E[h²] with {activation.preserving_gain**2:.3g}/fan_in"


def _untouched(target: LintTarget) -> Iterator[LintMessage]:
    layers, candidate_count = _default_layers(target)
    normed = {use.name for use in target.uses if use.norm in SCALE_FREE_NORMS}
    layers = [name for name in layers if name not in normed]  # a norm takes the scale away
    heads = {use.name for use in target.heads}
    spared = heads if heads <= set(layers) else set()  # a head does well with little, and so do several alike
    if len(layers) < candidate_count and set(layers) - spared:
        yield LintMessage(
            f"{join_names(layers)}: still as torch's constructors leave them, while other weights were drawn by"
            " another scheme.",
            "If a function such as weights_init(module) draws them, see whether it knows their type"
            " (isinstance, not a lower-case class name).",
            tuple(layers),
        )


def _scale_cancelled(target: LintTarget) -> Iterator[LintMessage]:
    layers = [use.name for _, use in target.first_uses() if use.norm in SCALE_FREE_NORMS]
    if layers:
        yield LintMessage(
            f"{join_names(layers)}: the norm right behind divides the scale of the weights out, so that no gain"
            " changes what goes forward; it only changes how far an update turns them.",
            "Nothing has to be done; judge the init of these layers by the learning rate.",
            tuple(layers),
        )


LINT_RULES.add(
    LintRule(
        name="variance",
        summary="A weight has not the variance that its scheme declares.",
        source="sampling error of a variance",
        level="warning",
        limit=f"> {SIGMAS:g} standard errors of the sample's variance",
        cure="Something draws or rescales the weight after the init; look for what runs last.",
        look=_variance,
    )
)
LINT_RULES.add(
    LintRule(
        name="fans",
        summary="A scale was computed from fans that leave out groups or strides. (Fans that are swapped are"
        " those of the other mode, and cannot be told from it.)",
        source="He et al. 2015, for what a fan is",
        level="warning",
        limit=f"> {SIGMAS:g} standard errors from every variance of the true fans, ≤ {SIGMAS:g} from one of"
        f" torch's; the two fans > {100 * _FAR:g} % apart; two layers or more of ≥ {MIN_ENTRIES} entries",
        cure="Use initbench.apply_init, which counts groups and strides.",
        look=_fans,
    )
)
LINT_RULES.add(
    LintRule(
        name="torch_default",
        summary="No init was applied: all weights are as torch's constructors leave them.",
        source="PyTorch's nn.Linear and nn.Conv2d",
        level="warning",
        limit=f"all layers of ≥ {MIN_ENTRIES} entries have torch's bound and variance 1/(3·fan_in)"
        f" within {SIGMAS:g} standard errors, and two or more have no norm behind them",
        cure='Draw them: init.scheme=kaiming_normal, or initbench.apply_init(module, "kaiming_normal").',
        look=_torch_default,
    )
)
LINT_RULES.add(
    LintRule(
        name="untouched",
        summary="Some weights were left as torch's constructors make them while others were drawn.",
        source="PyTorch's nn.Linear and nn.Conv2d",
        level="warning",
        limit=f"a layer of ≥ {MIN_ENTRIES} entries that has torch's bound and variance 1/(3·fan_in)"
        f" within {SIGMAS:g} standard errors, no norm behind it, and is no head, beside another that has not",
        cure="Let the function that draws the weights know their type (isinstance, not a lower-case"
        " class name).",
        look=_untouched,
    )
)
LINT_RULES.add(
    LintRule(
        name="scale_cancelled",
        summary="The norm behind a layer takes the scale of its weights away.",
        source="Ioffe & Szegedy 2015",
        level="note",
        limit=f"any layer with a norm right behind it: {', '.join(sorted(SCALE_FREE_NORMS))}",
        cure="Nothing has to be done; judge the init of these layers by the learning rate.",
        look=_scale_cancelled,
    )
)
