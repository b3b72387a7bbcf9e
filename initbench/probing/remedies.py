"""Remedies for findings: changes of a config, as key=value words, that theory expects to help."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from initbench.components.activation import Activation, BoundActivation, bound
from initbench.components.init_scheme import INITS, SchemeRequirement
from initbench.models.custom_network import CustomNetwork
from initbench.models.init_weights import InitOptions, rule_for_layer
from initbench.models.network import FamilyOptions, Network
from initbench.probing.finding import AdviceCheck
from initbench.probing.layer_factors import (
    StackFactors,
    batch_norm_holds,
    module_stack_factors,
    predict_stack_factors,
    scale_holds,
)
from initbench.probing.theory import TheoryPrediction, layer_weight_statistics
from initbench.registry import Options
from initbench.trace.weight_use import WeightUse, common_label

RECURRENT = "recurrent"
_MAX_DEPTHS = 6
"""Maximum number of depths to try, each three quarters of the previous one."""
SAME_SCALE = 0.05
"""Difference of the logarithms of two σ_w² below which they count as the same scale."""


@dataclass(frozen=True)
class DiagnosisContext:
    """Declared settings of a run that explain its measurements, and functions for advice."""

    scheme: str
    gain: float | str | None
    """`init.gain` as declared."""
    bias: float
    """`init.bias` as declared, or 0."""
    activation: BoundActivation
    norm: str
    norm_first: bool
    """Whether a norm layer is, or would be, placed before the activation."""
    depth: int | None
    """`model.depth`; None if the family has none."""
    layers: int
    """Number of hidden layers."""
    width: int
    """Number of inputs of the last hidden layer."""
    sigma_w2: float | None
    """Effective σ_w² of the last hidden layer; None if the scheme determines no scale."""
    prediction: StackFactors
    phrase: Callable[[str], str] = str
    """Function that formats key=value words for the user; with a config they stay as they are."""
    branches: tuple[str, ...] = ()
    """Changes, as key=value words, that start residual branches in another way."""
    ways: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Changes, as key=value words, that apply to one code (or RECURRENT) only, by code."""
    check: Callable[[str, str], AdviceCheck | None] = lambda _code, _words: None
    """Function of a code and key=value words that returns the evidence for a cure, or None."""


def network_context(
    network: Network, model: FamilyOptions, init: InitOptions, first_q: float
) -> DiagnosisContext:
    """Return the context of a config, with the prediction from the measured q of the first layer."""
    if isinstance(network, CustomNetwork):
        return _custom_context(network, model, init)
    prediction = predict_stack_factors(network, init, first_q=first_q, normed=model.norm.name != "none")
    hidden = [layer for layer in network.weight_layers() if layer.activation is not None]
    return DiagnosisContext(
        scheme=init.scheme.name,
        gain=init.gain,
        bias=init.bias or 0.0,
        activation=network.activation,
        norm=model.norm.name,
        norm_first=model.norm_placement == "before_activation",
        depth=getattr(model, "depth", None),
        layers=len(hidden),
        width=round(rule_for_layer(hidden[-1], init, network.activation).fan_in) if hidden else 1,
        sigma_w2=_effective_sigma_w2(network, init, prediction) if hidden else None,
        prediction=prediction,
        branches=branch_starts(network, init),
        ways=CONFIG_WAYS,
    )


def _custom_context(network: CustomNetwork, model: FamilyOptions, init: InitOptions) -> DiagnosisContext:
    """Return the context of a net of the user: its structure is traced, its init declared."""
    hidden = [layer for layer in network.weight_layers() if layer.activation is not None]
    rules = network.layer_rules(init)
    of_last = rules.get(hidden[-1].name) if hidden else None
    sigma_w2 = None if of_last is None else of_last.sigma_w2
    return DiagnosisContext(
        scheme=init.scheme.name,
        gain=init.gain,
        bias=init.bias or 0.0,
        activation=network.activation,
        norm=network.norm_kind if model.declared_norm is None else model.declared_norm.name,
        norm_first=True,
        depth=None,
        layers=len(hidden),
        width=1 if of_last is None else round(of_last.fan_in),
        sigma_w2=sigma_w2,
        prediction=module_stack_factors(network.activation, sigma_w2, []),
        ways=CONFIG_WAYS,
    )


def module_context(
    nets: Sequence[Sequence[WeightUse]], activation: BoundActivation, expected: TheoryPrediction
) -> DiagnosisContext:
    """Return the context of a diagnosis, inferred from the nets instead of a config."""
    first = nets[0]
    hidden = [index for index, use in enumerate(first) if use.activation is not None]
    norms = Counter(use.norm for use in first if use.norm is not None)
    sigma_w2 = layer_weight_statistics(hidden[-1], nets).sigma_w2 if hidden else None
    norm = norms.most_common(1)[0][0] if norms else "none"
    return DiagnosisContext(
        scheme="this init",
        gain=None,
        bias=0.0,
        activation=activation,
        norm=norm,
        norm_first=True,
        depth=None,
        layers=len(hidden),
        width=round(first[hidden[-1]].fan_in) if hidden else 1,
        sigma_w2=sigma_w2 or None,
        prediction=module_stack_factors(activation, sigma_w2 or None, expected.layers),
    )


def common_activation(uses: Sequence[WeightUse]) -> BoundActivation:
    """Return the most frequent activation, or a placeholder if it is not in the catalogue."""
    label = common_label(uses)
    if label is None:
        return bound("linear")
    bound_activation: Any = next(
        use.activation.bound for use in uses if use.activation and use.activation.label == label
    )
    if bound_activation is not None:
        return bound_activation  # type: ignore[no-any-return]
    unknown = Activation(name=label, summary="", source="", build=lambda _options, _features: nn.Identity())
    return unknown.bind(Options())


_BRANCH_STARTS = ("fixup", "skipinit", "residual_scaled")
CONFIG_WAYS = {
    "head_scale": ("init.head=zeros",),
    "input_scale": ("data.normalize=global", "data.normalize=per_feature"),
}
MODULE_BRANCH_STARTS = ("residual=zero", "residual=scaled")


def module_ways(*, is_tied: bool) -> dict[str, tuple[str, ...]]:
    """Return the changes for each code in a user's module.

    Args:
        is_tied: Whether the head shares its weight with an embedding.
    """
    return {
        "head_scale": ("head=std0.02",) if is_tied else ("head=zeros", "head=small"),
        "input_scale": ("input=global", "input=per_feature"),
    }


def branch_starts(network: Network, init: InitOptions) -> tuple[str, ...]:
    """Return key=value words for schemes that start residual branches in another way than `init`."""
    if not network.branches():
        return ()
    plain = "" if init.gain is None else " init.gain=null"
    return tuple(f"init.scheme={name}{plain}" for name in _BRANCH_STARTS if name != init.scheme.name)


def _effective_sigma_w2(network: Network, init: InitOptions, prediction: StackFactors) -> float | None:
    scheme = INITS[init.scheme.name]
    if prediction.sigma_w2 is not None:
        return prediction.sigma_w2
    if scheme.needs is SchemeRequirement.FIRST_BATCH:  # the scheme sets q to 1
        return prediction.needed_sigma_w2
    if scheme.default_gain is None or scheme.needs.leaves_no_scale:
        return None
    return rule_for_layer(network.weight_layers()[0], init, network.activation).gain ** 2


def suggest_init(context: DiagnosisContext) -> str | None:
    """Return the init that theory expects to suit the depth; None if there is none, or with a norm layer."""
    if context.norm != "none":
        return None
    for words, sigma_w2 in _candidate_inits(context):
        if scale_holds(context.activation, sigma_w2, layers=context.layers, width=context.width):
            return words
    return None


def init_candidates(context: DiagnosisContext) -> list[str]:
    """Return inits to try, starting with the one that theory expects to work; empty with a norm layer."""
    if context.norm != "none":
        return []
    expected = suggest_init(context)
    words = [expected] if expected is not None else []
    return [*words, *(other for other, _ in _candidate_inits(context) if other != expected)]


def is_bias_the_cause(context: DiagnosisContext) -> bool:
    """Whether setting the bias to 0 is expected to be sufficient."""
    return context.bias != 0.0 and suggest_init(context) == "init.bias=0"


def _candidate_inits(context: DiagnosisContext) -> Iterator[tuple[str, float]]:
    """Yield key=value words and their σ_w², the closest to the declared init first."""
    unbiased = " init.bias=0" if context.bias else ""
    if context.bias and context.sigma_w2 is not None:
        yield unbiased.strip(), context.sigma_w2
    for words, sigma_w2 in _candidate_scales(context):
        is_new = context.sigma_w2 is None or abs(math.log(context.sigma_w2 / sigma_w2)) > SAME_SCALE
        if is_new:
            yield words + unbiased, sigma_w2


def _candidate_scales(context: DiagnosisContext) -> Iterator[tuple[str, float]]:
    activation = context.activation
    if not activation.entry.elementwise:
        return  # its scale is unknown
    has_gain = (
        context.scheme in INITS
        and INITS[context.scheme].default_gain is not None
        and not INITS[context.scheme].needs.leaves_no_scale
    )
    needed = activation.preserving_gain**2
    if activation.natural_q == 1.0 and math.isclose(activation.kaiming_gain**2, needed, rel_tol=1e-6):
        dropped = ["init.gain=null"] if context.gain is not None else []
        scheme = [] if dropped and context.scheme.startswith("kaiming_") else ["init.scheme=kaiming_normal"]
        yield " ".join(scheme + dropped), needed
        return
    scheme = [] if has_gain else ["init.scheme=lecun_normal"]
    yield " ".join([*scheme, "init.gain=auto"]), needed
    natural = activation.natural_sigma_w2
    if not math.isclose(natural, needed, rel_tol=1e-6):
        yield " ".join([*scheme, f"init.gain={math.sqrt(natural):.4g}"]), natural
    slope = abs(float(activation.derivative(torch.zeros(1, dtype=torch.float64))))
    if slope > 0.0:  # the edge of chaos at q → 0
        yield " ".join([*scheme, f"init.gain={1.0 / slope:.4g}"]), 1.0 / slope**2


def suggest_batch_norm(context: DiagnosisContext) -> str | None:
    """Return the change to batch norm before the activation; None if it exists or explodes at this depth."""
    words = [] if context.norm == "batch" else ["model.norm=batch"]
    if not context.norm_first:
        words.append("model.norm_placement=before_activation")
    return " ".join(words) or None if batch_norm_holds(context.activation, layers=context.layers) else None


def depth_candidates(context: DiagnosisContext) -> list[str]:
    """Return changes to depths, with other needed changes, that theory expects to work, deepest first."""
    if context.depth is None or context.branches:
        return []
    words: list[str] = []
    layers = context.layers * 3 // 4
    while layers > 1 and len(words) < _MAX_DEPTHS:
        other = _words_holding_at(replace(context, layers=layers))
        if other is not None:
            words.append(f"{other} model.depth={context.depth - context.layers + layers}".strip())
        layers = layers * 3 // 4
    return words


def _words_holding_at(short: DiagnosisContext) -> str | None:
    """Return the other changes that a net of this depth needs; empty if none, None if nothing suffices."""
    has_batch_norm = short.norm == "batch" and short.norm_first
    if has_batch_norm and batch_norm_holds(short.activation, layers=short.layers):
        return ""
    other = suggest_init(short) or suggest_batch_norm(short)
    if other is not None:
        return other
    as_it_is = short.sigma_w2 if short.norm == "none" and not short.bias else None
    if as_it_is is None:
        return None
    holds = scale_holds(short.activation, as_it_is, layers=short.layers, width=short.width)
    return "" if holds else None
