"""Key=value words of a config, as what they are for a user's own module."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from initbench.components.activation import BoundActivation
from initbench.probing.finding import Advice, Finding, format_factor
from initbench.probing.recurrent_gates import OVER_STEPS
from initbench.probing.remedies import (
    RECURRENT,
    SAME_SCALE,
    DiagnosisContext,
    depth_candidates,
    init_candidates,
    is_bias_the_cause,
    suggest_batch_norm,
)

_WORDS = {
    "residual=zero": "a start at 0 for the last weight of every residual branch, as in fixup and skipinit",
    "residual=scaled": "1/√N times the last weight of each of the N residual branches, as in residual_scaled",
    "head=zeros": "a start at 0 for the head",
    "head=small": "a tenth of the head's weights",
    "head=std0.02": "a standard deviation of 0.02 for the embedding that is the head as well",
    "input=global": "inputs scaled to mean 0 and variance 1",
    "input=per_feature": "inputs with every column scaled to mean 0 and variance 1",
}
"""Changes that are no init scheme, norm or activation."""


_RECURRENT = (
    "recurrent weights drawn orthogonal and input weights Xavier-uniform, gate by gate, with biases of 0 and"
    " of 1 for an LSTM's forget gate"
)


def as_apply_init_call(words: str, activation: BoundActivation) -> str:
    """`init.scheme=kaiming_normal` as a call of `apply_init`; other words as plain ones."""
    values = dict(word.split("=", 1) for word in words.split() if "=" in word)
    init = {key.removeprefix("init."): value for key, value in values.items() if key.startswith("init.")}
    parts = [_apply_init(init, activation)] if init else []
    if "model.norm" in values:
        parts.append(f"{values['model.norm']} norm before the activation")
    if "model.activation" in values:
        parts.append(f"{values['model.activation']} as the activation")
    parts += [_WORDS[word] for word in words.split() if word in _WORDS]
    if "recurrent" in values:
        gain = float(values["recurrent"])
        parts.append(_RECURRENT.replace("uniform", f"uniform times {gain:g}") if gain != 1.0 else _RECURRENT)
    return " with ".join(parts) or words


def init_arguments(init: dict[str, str], activation: BoundActivation) -> dict[str, Any]:
    """The arguments of `apply_init` that stand for init.* keys, given without `init.`, and their values."""
    arguments: dict[str, Any] = {"scheme": init.get("scheme", "kaiming_normal")}
    if init.get("gain", "null") != "null":
        arguments["gain"] = "auto" if init["gain"] == "auto" else float(init["gain"])
    if "bias" in init:
        arguments["bias"] = float(init["bias"])
    if activation.entry.name != "relu":
        arguments["activation"] = activation.entry.name
    changed = activation.changed_options.items()
    return arguments | {
        name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in changed
    }


def _apply_init(init: dict[str, str], activation: BoundActivation) -> str:
    arguments = init_arguments(init, activation)
    scheme = arguments.pop("scheme")
    call_arguments = [
        f'"{scheme}"',
        *(f"{name}={_format_argument(value)}" for name, value in arguments.items()),
    ]
    return f"initbench.apply_init(module, {', '.join(call_arguments)})"


def _format_argument(value: object) -> str:
    return (
        f"{value:g}" if isinstance(value, float) else f'"{value}"' if isinstance(value, str) else repr(value)
    )


DRIFT_CODE = "drift"
"""What a check is asked of a q that drifts, which is no finding."""
_SLOPES = {
    "vanishing_forward": "the signal falls",
    "exploding_forward": "q = E[h²] grows",
    "vanishing_backward": "E[δ²] falls on the way back",
    "exploding_backward": "E[δ²] grows on the way back",
}
_SUMS = "Every residual sum adds what its branch puts out to what goes past it. "
_RANDOM = "init.scheme=kaiming_normal"
CHI_TOLERANCE = 1.5
DRIFT = math.log(2.0) / 5.0
"""A predicted q that takes more than five layers to halve or double is not spoken of."""


def moment_text(when: str) -> str:
    """A snapshot's moment in words."""
    return {"init": "at init", "end": "at the end"}.get(when, "in training")


def count_suffix(others: int) -> str:
    """How many further layers share a finding."""
    return f" and {others} more" if others else ""


def add_advice(finding: Finding, context: DiagnosisContext, *, over_steps: bool = False) -> Finding:
    """Return the finding with the changes that cure it, which its message names at the end.

    Only what was there before training can be tried. `over_steps`: whether it is a recurrent layer's.
    """
    if finding.when != "init":
        return finding
    first, last = _candidates(RECURRENT if over_steps else finding.code, context)
    code = f"{finding.code}{OVER_STEPS}" if over_steps else finding.code
    cures = list(_cures(code, first, context)) or list(_cures(code, last, context))
    if not any((*first, *last)):
        return finding
    sentence = (
        f"Try {', or '.join(advice.words for advice in cures)}"
        if cures
        else "Nothing that was tried cures it"
    )
    return replace(finding, message=f"{finding.message} {sentence}", advice=tuple(cures))


CandidateKinds = list[Sequence[str]]
"""Candidates of each kind, in key=value words; of a kind the first that cures is named."""


def _candidates(code: str, context: DiagnosisContext) -> tuple[CandidateKinds, CandidateKinds]:
    """Return the kinds of change that are tried for a finding, and those for when none of these cures it."""
    draws = context.ways.get(RECURRENT, ())
    if code in context.ways:
        return ([draws] if code == RECURRENT else [[words] for words in context.ways[code]]), []
    norm = suggest_batch_norm(context) or ("" if context.norm != "none" else "model.norm=batch")
    norms = [norm] if norm else []
    if code == "symmetric":
        inits = list(dict.fromkeys([_RANDOM, *init_candidates(context)]))
        return [inits], [[f"{init} {norm}" for init in inits if norm]]
    inits_and_norms: CandidateKinds = [draws, init_candidates(context), norms]
    if code == "saturated":
        return inits_and_norms, []
    if code == "dead":
        return inits_and_norms, [
            [] if context.activation.entry.name == "leaky_relu" else ["model.activation=leaky_relu"]
        ]
    if code not in _SLOPES:
        return [], []
    return [*([words] for words in context.branches), *inits_and_norms], [depth_candidates(context)]


def _cures(code: str, kinds: CandidateKinds, context: DiagnosisContext) -> Iterator[Advice]:
    """Yield the first change of each kind that cures the finding, if need be with one of the head."""
    head = context.ways.get("head_scale", ())[:1] if code != "head_scale" else ()
    for candidates in kinds:
        drawn = [words for words in candidates if "init." in words]
        for words in [*candidates, *(f"{words} {also}" for words in drawn for also in head)]:
            checked = context.check(code, words)
            if checked is not None:
                yield Advice(context.phrase(words), words, checked)
                break


def slope_sentence(
    code: str, slope: float, span: tuple[int, int], values: Sequence[float], context: DiagnosisContext
) -> str:
    """Say how much and why, for a log-slope over `values`, of the layers span[0] to span[1]."""
    p = context.prediction
    theory = {"vanishing_forward": p.signal, "exploding_forward": p.forward}.get(code, p.backward)
    of = " for q" if code == "exploding_forward" else ""
    predicted = f", theory{of} {format_factor(theory)}" if theory is not None else ""
    reached = values[-1] / values[0] if len(values) > 1 and values[0] > 0 else math.nan
    share = f"; layer {span[1]} has {reached:.0e} of layer {span[0]}'s" if math.isfinite(reached) else ""
    layers = f"(layers {span[0]} to {span[1]}{predicted})"
    what = f"{_SLOPES[code]} {format_factor(_exp(slope))} a layer {layers}{share}."
    by_sums = bool(context.branches) and code.startswith("exploding")
    return f"{what} {_SUMS if by_sums else _cause(context)}".rstrip()


def _exp(slope: float) -> float:
    return math.exp(slope) if slope < 700 else math.inf


def _cause(context: DiagnosisContext) -> str:
    """Say why, where the declared scheme explains it; else nothing."""
    p, name = context.prediction, context.activation.label
    if context.norm != "none":
        return "The norm layer holds q, not this."
    if is_bias_the_cause(context):
        return f"init.bias={context.bias:g} moves every pre-activation away from 0."
    if p.sigma_w2 is None:
        return ""
    if not 1 / CHI_TOLERANCE < p.chi_at_needed < CHI_TOLERANCE:
        return (
            f"No scale of the weights helps at q = 1: where {name} keeps it (σ_w² = {p.needed_sigma_w2:.3g}),"
            f" χ₁ is {p.chi_at_needed:.2g}."
        )
    if abs(math.log(p.sigma_w2 / p.needed_sigma_w2)) > SAME_SCALE:
        declared = (
            context.scheme if context.gain is None else f"{context.scheme} with init.gain={context.gain}"
        )
        return f"{name} keeps q at σ_w² = {p.needed_sigma_w2:.3g}; {declared} gives {p.sigma_w2:.3g}."
    return "This scale keeps q = 1 on average, but not over this depth and width."


def drift_note(predicted_q: Sequence[float], context: DiagnosisContext) -> str | None:
    """Say what theory's q does over the hidden layers, and what keeps it; None where it stays, or settles.

    It is said of nets that keep within the limits of a finding and would leave them if they were deeper.
    """
    if not is_drifting(predicted_q):
        return None
    slope = mean_slope(predicted_q)
    does = "falls" if slope < 0.0 else "grows"
    turns = f"{'halves' if slope < 0.0 else 'doubles'} every {math.log(2.0) / abs(slope):.1f} layers"
    phi = context.activation
    cures = [advice.words for advice in _cures(DRIFT_CODE, [init_candidates(context)], context)]
    tried = f" Try {', or '.join(cures)}" if cures else ""
    keeps = f"{phi.label} keeps q at a gain of {phi.preserving_gain:.4g}"
    factor = format_factor(math.exp(slope))
    return f"q of wide nets {does} {factor} a layer in theory: it {turns}. {keeps}.{tried}"


def is_drifting(predicted_q: Sequence[float]) -> bool:
    """Return whether q falls or grows over the layers, and still does at the last."""
    slope, last = mean_slope(predicted_q), mean_slope(predicted_q[-2:])
    return min(abs(slope), abs(last)) >= DRIFT and slope * last > 0.0


def mean_slope(values: Sequence[float]) -> float:
    """Return the mean change of log(value) from one to the next; 0 where there are no two, or one is 0."""
    if len(values) < 2 or min(values) <= 0.0:
        return 0.0
    return math.log(values[-1] / values[0]) / (len(values) - 1)


def dead_cause(when: str, context: DiagnosisContext) -> str:
    """Say why units are zero on every sample: a sentence, or nothing."""
    if when != "init":
        return "Training has driven them there: look at train.lr."
    return f"init.bias={context.bias:g} keeps them there." if context.bias < 0 else ""


def saturated_cause(when: str, pre: dict[str, float], context: DiagnosisContext) -> str:
    """Say why a layer with the statistics `pre` is on the flat part."""
    mean, std = pre["mean"], pre["std"]
    if when != "init":
        why = "Training has driven it there: look at train.lr."
    elif abs(mean) > std and context.bias:
        why = f"init.bias={context.bias:g} moves it there (mean {mean:.3g}, standard deviation {std:.3g})."
    else:
        why = f"Its pre-activations are too large (standard deviation {std:.3g})."
    return f"{why} Many such nets learn all the same."
