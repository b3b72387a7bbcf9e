"""Rules about the variance of weights: is it as declared, and does it suit the layer?"""

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
from initbench.probing.checked_advice import findings_at_init
from initbench.probing.initial_conditions import SCALE_FREE_NORMS
from initbench.trace.torch_ops import WEIGHTED
from initbench.trace.weight_use import WeightUse

_FAR = 0.2
"""Relative difference from which two fans are different."""
_SLOPE_CODES = frozenset(
    ["vanishing_forward", "vanishing_backward", "exploding_forward", "exploding_backward"]
)
"""Diagnoses of a scale that does not suit the depth of the net."""
_SHARP = 0.1
"""Relative standard error above which a variance does not identify the fan."""


def _variance(target: LintTarget) -> Iterator[LintMessage]:
    for index, use in target.first_uses():
        rule = target.declared.get(use.name)
        if rule is None or rule.sigma_w2 is None:
            continue
        variance, declared = variance_of(target.layer_in_nets(index)), rule.sigma_w2 / rule.fan_in
        if not variance.is_like(declared):
            yield LintMessage(
                f"{use.name} should have variance {declared:.3g} ({rule.scheme.name}) and has"
                f" {variance.value:.3g} ±{variance.value * variance.relative_error:.1g}.",
                "Look for code that draws or rescales it after the init.",
                (use.name,),
            )


@dataclass(frozen=True)
class _ScalingRule:
    """A possible variance gain²/fan of a weight."""

    gain2: float
    fan: str
    torch_fan: float
    true_fan: float


def _scaling_rules(use: WeightUse, gains: Sequence[float]) -> Iterator[_ScalingRule]:
    torch_in, torch_out = torch_fans(use.weight)
    for gain2 in gains:
        yield _ScalingRule(gain2, "fan_in", torch_in, use.fan_in)
        if not use.from_input:  # the first layer passes no gradient on
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
        if len({rule.torch_fan for _, rule in mistaken}) > 1:  # a single layer may match by chance
            yield _fans_message(fan, mistaken, target.random_inits)


def _fans_message(
    fan: str, mistaken: Sequence[tuple[str, _ScalingRule]], draws: tuple[str, ...]
) -> LintMessage:
    names = [name for name, _ in mistaken]
    (_, rule), factors = mistaken[0], sorted(rule.true_fan / rule.torch_fan for _, rule in mistaken)
    share = f"×{factors[0]:.2g}" if len(factors) == 1 else f"×{factors[0]:.2g} to ×{factors[-1]:.2g}"
    hurt = "E[δ²]" if fan == "fan_out" else "E[h²]"
    return LintMessage(
        f"{join_names(names)}: scaled by torch.nn.init's {fan}, which ignores groups and strides"
        f" ({names[0]}: variance {rule.gain2:.3g}/{rule.torch_fan:g}, but its {fan} is {rule.true_fan:g});"
        f" {hurt} starts {share} as large as intended.",
        "Take groups and strides into account, as initbench.apply_init does.",
        tuple(names),
        draws,
    )


def _mistaken_rule(use: WeightUse, drawn: Sequence[WeightUse], gains: Sequence[float]) -> _ScalingRule | None:
    """Return the rule with torch's fans that the variance follows, if it follows none with the true fans."""
    variance, rules = variance_of(drawn), list(_scaling_rules(use, gains))
    if variance.entries < MIN_ENTRIES or variance.relative_error > _SHARP or is_torch_default(drawn):
        return None
    if any(variance.is_like(rule.gain2 / rule.true_fan) for rule in rules):
        return None
    return next((rule for rule in rules if _is_mistaken(rule, variance)), None)


def _is_mistaken(rule: _ScalingRule, variance: Variance) -> bool:
    return abs(rule.torch_fan / rule.true_fan - 1.0) > _FAR and variance.is_like(rule.gain2 / rule.torch_fan)


def _default_layers(target: LintTarget) -> tuple[list[str], int]:
    """Return the layers with the weights of torch's constructors, and how many layers were checked."""
    modules = target.module.named_modules()
    attention = tuple(f"{name}." for name, module in modules if isinstance(module, nn.MultiheadAttention))
    candidates = [
        (index, use)
        for index, use in target.first_uses()
        if use.weight.numel() >= MIN_ENTRIES
        and use.name not in target.declared
        and _belongs_to_layer(use)
        and not use.name.startswith(attention)  # drawn by the attention's constructor
    ]
    return [use.name for index, use in candidates if is_torch_default(target.layer_in_nets(index))], len(
        candidates
    )


def _belongs_to_layer(use: WeightUse) -> bool:
    """Whether the weight belongs to a linear layer or convolution, not to attention or an embedding."""
    plain = use.operation in WEIGHTED and not use.looked_up and not use.name.endswith("in_proj_weight")
    return plain and bool(use.weight.detach().isfinite().all())


def _torch_default(target: LintTarget) -> Iterator[LintMessage]:
    layers, candidate_count = _default_layers(target)
    normed = {use.name for use in target.uses if use.norm is not None}
    bare = [name for name in layers if name not in normed]
    if layers and len(layers) == candidate_count and len(bare) > 1:
        yield LintMessage(
            f"All {candidate_count} weights are those of torch's constructors, with variance 1/(3·fan_in)"
            f"{_needed_variance_text(target)}; {len(bare)} of them have no norm after them.",
            "Initialise them with a scheme that suits the activation.",
            tuple(layers),
            target.random_inits,
            level="warning" if _loses_signal(target) else "note",
        )


def _loses_signal(target: LintTarget) -> bool:
    """Return whether the signal or the gradient of a net vanishes or explodes at init."""
    return not _SLOPE_CODES.isdisjoint(findings_at_init([net.measurement for net in target.nets]))


def _needed_variance_text(target: LintTarget) -> str:
    """Return the variance that the activation needs, as text; empty if it is unknown."""
    activation = target.activation
    if not activation.entry.elementwise:
        return ""
    return f", but {activation.entry.name} preserves E[h²] with {activation.preserving_gain**2:.3g}/fan_in"


def _untouched(target: LintTarget) -> Iterator[LintMessage]:
    layers, candidate_count = _default_layers(target)
    normed = {use.name for use in target.uses if use.norm in SCALE_FREE_NORMS}
    layers = [name for name in layers if name not in normed]  # a norm removes the scale
    heads = {use.name for use in target.heads}
    spared = heads if heads <= set(layers) else set()  # small weights suit a head
    if len(layers) < candidate_count and set(layers) - spared:
        yield LintMessage(
            f"{join_names(layers)}: still with the weights of torch's constructors, while other layers were"
            " initialised with another scheme.",
            "If a function such as weights_init(module) initialises them, check that it handles their type"
            " (with isinstance, not a lower-case class name).",
            tuple(layers),
        )


def _scale_cancelled(target: LintTarget) -> Iterator[LintMessage]:
    layers = [use.name for _, use in target.first_uses() if use.norm in SCALE_FREE_NORMS]
    if layers:
        yield LintMessage(
            f"{join_names(layers)}: the norm directly after removes the scale of the weights, so a gain does"
            " not change the forward signal; it only changes how far an update turns the weights.",
            "No change needed; tune the learning rate of these layers instead of the gain.",
            tuple(layers),
        )


LINT_RULES.add(
    LintRule(
        name="variance",
        summary="The variance of a weight differs from that of its declared scheme.",
        source="sampling error of a variance",
        level="warning",
        limit=f"> {SIGMAS:g} standard errors of the sample's variance",
        cure="Look for code that draws or rescales the weight after the init.",
        look=_variance,
    )
)
LINT_RULES.add(
    LintRule(
        name="fans",
        summary="A scale was computed from fans that ignore groups or strides. (Swapped fans cannot be"
        " distinguished from the other fan mode.)",
        source="He et al. 2015, for what a fan is",
        level="warning",
        limit=f"> {SIGMAS:g} standard errors from every variance of the true fans, ≤ {SIGMAS:g} from one of"
        f" torch's; the two fans > {100 * _FAR:g} % apart; two layers or more of ≥ {MIN_ENTRIES} entries",
        cure="Use initbench.apply_init, which takes groups and strides into account.",
        look=_fans,
    )
)
LINT_RULES.add(
    LintRule(
        name="torch_default",
        summary="No init was applied: all weights are those of torch's constructors.",
        source="PyTorch's nn.Linear and nn.Conv2d",
        level="warning",
        limit=f"all layers of ≥ {MIN_ENTRIES} entries have torch's bound and variance 1/(3·fan_in)"
        f" within {SIGMAS:g} standard errors, and two or more have no norm after them; a note if neither"
        " signal nor gradient vanishes or explodes",
        cure="Initialise them: init.scheme=kaiming_normal, or initbench.apply_init(module,"
        ' "kaiming_normal").',
        look=_torch_default,
    )
)
LINT_RULES.add(
    LintRule(
        name="untouched",
        summary="Some weights are those of torch's constructors while others were initialised.",
        source="PyTorch's nn.Linear and nn.Conv2d",
        level="warning",
        limit=f"a layer of ≥ {MIN_ENTRIES} entries that has torch's bound and variance 1/(3·fan_in)"
        f" within {SIGMAS:g} standard errors, has no norm after it and is not a head, in a net with another"
        " layer that has not",
        cure="Make the function that initialises the weights handle their type (with isinstance, not a"
        " lower-case class name).",
        look=_untouched,
    )
)
LINT_RULES.add(
    LintRule(
        name="scale_cancelled",
        summary="The norm after a layer removes the scale of its weights.",
        source="Ioffe & Szegedy 2015",
        level="note",
        limit=f"any layer directly before one of these norms: {', '.join(sorted(SCALE_FREE_NORMS))}",
        cure="No change needed; tune the learning rate of these layers instead of the gain.",
        look=_scale_cancelled,
    )
)
