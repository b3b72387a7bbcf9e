"""Is the variance of the weights what was asked for, and what the layer needs?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from initbench.linting.rule import CHECKS, LintMessage, LintRule, LintTarget, named
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


def _variance(subject: LintTarget) -> Iterator[LintMessage]:
    for place, use in subject.layers():
        rule = subject.declared.get(use.name)
        if rule is None or rule.sigma_w2 is None:
            continue
        found, asked = variance_of(subject.drawn(place)), rule.sigma_w2 / rule.fan_in
        if not found.is_like(asked):
            yield LintMessage(
                f"{use.name} was to be drawn with variance {asked:.3g} ({rule.scheme.name}) and has"
                f" {found.value:.3g} ±{found.value * found.relative_error:.1g}.",
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


def _laws(use: WeightUse, gains: Sequence[float]) -> Iterator[_ScalingRule]:
    torch_in, torch_out = torch_fans(use.weight)
    for gain2 in gains:
        yield _ScalingRule(gain2, "fan_in", torch_in, use.fan_in)
        if not use.from_input:  # nothing lies below that a gradient could go to
            yield _ScalingRule(gain2, "fan_out", torch_out, use.fan_out)
    yield _ScalingRule(2.0, "fan_in + fan_out", torch_in + torch_out, use.fan_in + use.fan_out)


def _fans(subject: LintTarget) -> Iterator[LintMessage]:
    gains = [1.0, 2.0]
    if subject.activation.entry.elementwise:
        gains.append(subject.activation.preserving_gain**2)
    by_fan: dict[str, list[tuple[str, _ScalingRule]]] = {}
    for place, use in subject.layers():
        if use.name in subject.declared or use.norm is not None:  # a norm takes the scale away
            continue
        law = _mistaken(use, subject.drawn(place), gains)
        if law is not None:
            by_fan.setdefault(law.fan, []).append((use.name, law))
    for fan, mistaken in by_fan.items():
        if len({law.torchs for _, law in mistaken}) > 1:  # one layer alone may be so by chance
            yield _fans_remark(fan, mistaken, subject.draws)


def _fans_remark(
    fan: str, mistaken: Sequence[tuple[str, _ScalingRule]], draws: tuple[str, ...]
) -> LintMessage:
    names = [name for name, _ in mistaken]
    (_, law), factors = mistaken[0], sorted(law.true / law.torchs for _, law in mistaken)
    share = f"×{factors[0]:.2g}" if len(factors) == 1 else f"×{factors[0]:.2g} to ×{factors[-1]:.2g}"
    hurt = "E[δ²]" if fan == "fan_out" else "E[h²]"
    return LintMessage(
        f"{named(names)}: scaled by torch.nn.init's {fan}, which leaves out groups and strides ({names[0]}:"
        f" variance {law.gain2:.3g}/{law.torchs:g}, but its {fan} is {law.true:g}); {hurt} starts {share} as"
        " large as meant.",
        "Count groups and strides, as initbench.apply_init does.",
        tuple(names),
        draws,
    )


def _mistaken(use: WeightUse, drawn: Sequence[WeightUse], gains: Sequence[float]) -> _ScalingRule | None:
    """The law of torch's fans that the variance follows, where it follows none of the true ones."""
    found, laws = variance_of(drawn), list(_laws(use, gains))
    if found.entries < MIN_ENTRIES or found.relative_error > _SHARP or is_torch_default(drawn):
        return None
    if any(found.is_like(law.gain2 / law.true) for law in laws):
        return None
    return next((law for law in laws if _is_mistaken(law, found)), None)


def _is_mistaken(law: _ScalingRule, found: Variance) -> bool:
    return abs(law.torchs / law.true - 1.0) > _FAR and found.is_like(law.gain2 / law.torchs)


def _defaults(subject: LintTarget) -> tuple[list[str], int]:
    """Return the layers that look as torch's constructors leave them, and how many could be judged."""
    modules = subject.module.named_modules()
    attention = tuple(f"{name}." for name, module in modules if isinstance(module, nn.MultiheadAttention))
    told = [
        (place, use)
        for place, use in subject.layers()
        if use.weight.numel() >= MIN_ENTRIES
        and use.name not in subject.declared
        and _is_a_layers(use)
        and not use.name.startswith(attention)  # drawn by the constructor of the attention
    ]
    return [use.name for place, use in told if is_torch_default(subject.drawn(place))], len(told)


def _is_a_layers(use: WeightUse) -> bool:
    """Whether a linear layer or convolution was constructed with it, not attention or an embedding."""
    plain = use.operation in WEIGHTED and not use.looked_up and not use.name.endswith("in_proj_weight")
    return plain and bool(use.weight.detach().isfinite().all())


def _torch_default(subject: LintTarget) -> Iterator[LintMessage]:
    layers, told = _defaults(subject)
    normed = {use.name for use in subject.uses if use.norm is not None}
    bare = [name for name in layers if name not in normed]
    if layers and len(layers) == told and len(bare) > 1:
        yield LintMessage(
            f"All {told} weights are as torch's constructors leave them, with variance 1/(3·fan_in)"
            f"{_needed(subject)}; {len(bare)} of them have no norm behind them.",
            "Draw them by a scheme that goes with the activation.",
            tuple(layers),
            subject.draws,
        )


def _needed(subject: LintTarget) -> str:
    """What the net's activation asks for instead, where that is known."""
    activation = subject.activation
    if not activation.entry.elementwise:
        return ""
    return f", where {activation.entry.name} keeps E[h²] with {activation.preserving_gain**2:.3g}/fan_in"


def _untouched(subject: LintTarget) -> Iterator[LintMessage]:
    layers, told = _defaults(subject)
    normed = {use.name for use in subject.uses if use.norm in SCALE_FREE_NORMS}
    layers = [name for name in layers if name not in normed]  # a norm takes the scale away
    heads = {use.name for use in subject.heads}
    spared = heads if heads <= set(layers) else set()  # a head does well with little, and so do several alike
    if len(layers) < told and set(layers) - spared:
        yield LintMessage(
            f"{named(layers)}: still as torch's constructors leave them, while other weights were drawn by"
            " another scheme.",
            "If a function such as weights_init(module) draws them, see whether it knows their type"
            " (isinstance, not a lower-case class name).",
            tuple(layers),
        )


def _scale_cancelled(subject: LintTarget) -> Iterator[LintMessage]:
    layers = [use.name for _, use in subject.layers() if use.norm in SCALE_FREE_NORMS]
    if layers:
        yield LintMessage(
            f"{named(layers)}: the norm right behind divides the scale of the weights out, so that no gain"
            " changes what goes forward; it only changes how far an update turns them.",
            "Nothing has to be done; judge the init of these layers by the learning rate.",
            tuple(layers),
        )


CHECKS.add(
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
CHECKS.add(
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
CHECKS.add(
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
CHECKS.add(
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
CHECKS.add(
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
