"""Messages of a diagnosis: sentences for findings, and advice in the terms of a config or a module."""

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
"""Descriptions of changes other than init schemes, norms and activations."""


_RECURRENT = (
    "recurrent weights drawn orthogonal and input weights Xavier-uniform, gate by gate, with biases of 0 and"
    " of 1 for an LSTM's forget gate"
)


def as_apply_init_call(words: str, activation: BoundActivation) -> str:
    """Return key=value words as text for a user's module, with init.* keys as a call of `apply_init`."""
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
    """Return the arguments of `apply_init` for init.* keys, which are given without the prefix `init.`."""
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
"""Code under which changes are checked for a drifting q, which is not a finding."""
_SLOPES = {
    "vanishing_forward": "the signal falls",
    "exploding_forward": "q = E[h²] grows",
    "vanishing_backward": "E[δ²] falls on the way back",
    "exploding_backward": "E[δ²] grows on the way back",
}
_SUMS = "Every residual sum adds the output of its branch to the skip connection. "
_RANDOM = "init.scheme=kaiming_normal"
CHI_TOLERANCE = 1.5
DRIFT = math.log(2.0) / 5.0
"""Slope of a predicted q below which it is not reported: it halves or doubles in five layers."""


def moment_text(when: str) -> str:
    """Return the moment of a snapshot as text."""
    return {"init": "at init", "end": "at the end"}.get(when, "in training")


def count_suffix(others: int) -> str:
    """Return the number of further layers with the same finding as text."""
    return f" and {others} more" if others else ""


def add_advice(finding: Finding, context: DiagnosisContext, *, over_steps: bool = False) -> Finding:
    """Return the finding with the changes that cure it, which are appended to its message.

    Changes can be tried only for findings at init.

    Args:
        finding: The finding.
        context: The declared settings, with the function that tries changes.
        over_steps: Whether the finding is about the steps of a recurrent layer.
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
        else "None of the tried changes cures it"
    )
    return replace(finding, message=f"{finding.message} {sentence}", advice=tuple(cures))


CandidateKinds = list[Sequence[str]]
"""Candidate changes of each kind, as key=value words; the first of a kind that cures is suggested."""


def _candidates(code: str, context: DiagnosisContext) -> tuple[CandidateKinds, CandidateKinds]:
    """Return the kinds of change to try for a finding, and those to try if none of the former cures it."""
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
    """Yield the first change of each kind that cures the finding, if necessary with a change of the head."""
    head = context.ways.get("head_scale", ())[:1] if code != "head_scale" else ()
    for candidates in kinds:
        drawn = [words for words in candidates if "init." in words]
        for words in [*candidates, *(f"{words} {also}" for words in drawn for also in head)]:
            checked = context.check(code, words)
            if checked is not None:
                yield Advice(context.phrase(words), words, checked)
                break


def slope_sentence(
    code: str,
    slope: float,
    span: tuple[int, int],
    values: Sequence[float],
    context: DiagnosisContext,
    *,
    is_summed: bool,
) -> str:
    """Return the size and the cause of a log-slope over `values` of layers span[0] to span[1], as text.

    Args:
        code: The code of the finding.
        slope: The log-slope.
        span: The indices of the first and the last layer.
        values: The statistic in each layer.
        context: The declared settings.
        is_summed: Whether the values are sums of E[δ²] over the positions of a map, which theory does not
            predict.
    """
    p = context.prediction
    of_gradient = None if is_summed else p.backward
    theory = {"vanishing_forward": p.signal, "exploding_forward": p.forward}.get(code, of_gradient)
    of = " for q" if code == "exploding_forward" else ""
    predicted = f", theory{of} {format_factor(theory)}" if theory is not None else ""
    reached = values[-1] / values[0] if len(values) > 1 and values[0] > 0 else math.nan
    share = f"; layer {span[1]} has {reached:.0e} of layer {span[0]}'s" if math.isfinite(reached) else ""
    layers = f"(layers {span[0]} to {span[1]}{predicted})"
    subject = _SLOPES[code]
    if is_summed:
        subject = subject.replace("E[δ²]", "E[δ²] summed over the positions of a map")
    what = f"{subject} {format_factor(_exp(slope))} a layer {layers}{share}."
    by_sums = bool(context.branches) and code.startswith("exploding")
    return f"{what} {_SUMS if by_sums else _cause(context)}".rstrip()


def _exp(slope: float) -> float:
    return math.exp(slope) if slope < 700 else math.inf


def _cause(context: DiagnosisContext) -> str:
    """Return the cause as a sentence if the declared scheme explains the slope, else an empty string."""
    p, name = context.prediction, context.activation.label
    if context.norm != "none":
        return "The norm layer controls q, but not this."
    if is_bias_the_cause(context):
        return f"init.bias={context.bias:g} shifts every pre-activation away from 0."
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
    return "This scale preserves q = 1 on average, but not at this depth and width."


def drift_note(predicted_q: Sequence[float], context: DiagnosisContext) -> str | None:
    """Return a note on the drift of the predicted q over the hidden layers; None if q is stable or converges.

    The note is for nets that stay within the limits of a finding and would exceed them if they were deeper.
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
    """Whether q falls or grows over the layers, and still does at the last one."""
    slope, last = mean_slope(predicted_q), mean_slope(predicted_q[-2:])
    return min(abs(slope), abs(last)) >= DRIFT and slope * last > 0.0


def mean_slope(values: Sequence[float]) -> float:
    """Return the mean change of log(value) per step; 0 for fewer than two values or if one is 0."""
    if len(values) < 2 or min(values) <= 0.0:
        return 0.0
    return math.log(values[-1] / values[0]) / (len(values) - 1)


def dead_cause(when: str, context: DiagnosisContext) -> str:
    """Return the reason why units are zero on every sample as a sentence; empty if unknown."""
    if when != "init":
        return "This happened during training: check train.lr."
    return f"The cause is init.bias={context.bias:g}." if context.bias < 0 else ""


def saturated_cause(when: str, pre: dict[str, float], context: DiagnosisContext) -> str:
    """Return the reason why a layer with the statistics `pre` is saturated, as text."""
    mean, std = pre["mean"], pre["std"]
    if when != "init":
        why = "This happened during training: check train.lr."
    elif abs(mean) > std and context.bias:
        why = f"The cause is init.bias={context.bias:g} (mean {mean:.3g}, standard deviation {std:.3g})."
    else:
        why = f"Its pre-activations are too large (standard deviation {std:.3g})."
    return f"{why} Many such nets still learn."
