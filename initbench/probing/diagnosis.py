"""Diagnosis of a probe: what is wrong with a net, by how much, why, and what to try.

The table CODES defines the built-in codes, their thresholds and their precedence; docs/diagnosis.md is
generated from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from initbench.components.activation import SATURATED_BELOW
from initbench.errors import reporting_user_code
from initbench.probing.finding import DiagnosisCode, Finding
from initbench.probing.initial_conditions import CONDITION_CODES
from initbench.probing.layer_factors import MAX_FLAT
from initbench.probing.learning_progress import NOT_LEARNED, Progress, progress_finding
from initbench.probing.log_slopes import (
    NORMED_GROWTH,
    RECURRENT_FALL,
    VANISHING_RATIO,
    LogSlope,
    explosion_slope,
    finite_prefix,
    float32_floor,
    vanishing_slope,
)
from initbench.probing.messages import (
    add_advice,
    count_suffix,
    dead_cause,
    moment_text,
    saturated_cause,
    slope_sentence,
)
from initbench.probing.nonfinite_causes import HUGE
from initbench.probing.recurrent_gates import gates_in_words, slopes_over_steps, worst_gate_in_words
from initbench.probing.remedies import DiagnosisContext
from initbench.probing.residual_stream import (
    are_branches_normed,
    outside_branches,
    residual_sums,
    stream_sentence,
)
from initbench.probing.tensor_statistics import ALIKE
from initbench.registry import Registry

SAME_SLOPE = 1e-9
"""Relative difference of two slopes that is due to rounding."""
_MAX_DEAD = 0.9
"""Share of a layer's units above which it counts as dead."""
_FALLS = (
    f"a fall to {VANISHING_RATIO:g} of the first value over the L hidden layers: "
    f"slope ≤ ln({VANISHING_RATIO:g})/(L − 1)"
    f" = −{-math.log(VANISHING_RATIO):.2f}/(L − 1) nats per layer; "
    f"to {RECURRENT_FALL:g} if some of them are recurrent"
)
_GROWS = (
    f"a growth to {1 / VANISHING_RATIO:,.0f} times the first value over the L hidden layers: "
    f"slope ≥ ln({1 / VANISHING_RATIO:g})/(L − 1)"
    f" = {-math.log(VANISHING_RATIO):.2f}/(L − 1) nats per layer"
)

CODES = (
    DiagnosisCode(
        name="symmetric",
        summary="All units of a hidden layer compute the same function, so the layer passes on a single"
        " number.",
        measure="largest relative spread over units of pre-activations, weight rows and weight-gradient rows;"
        " for a module's layer with nonzero weights, the spread of the weight rows alone",
        threshold=ALIKE,
        hides=("vanishing_forward", "vanishing_backward", "dead", "saturated"),
        limit=f"spread ≤ {ALIKE:g} of the root mean square",
        cause="Weights that are all equal: zeros, a constant, or one row repeated.",
        cure="Draw the weights at random: init.scheme=kaiming_normal.",
    ),
    DiagnosisCode(
        name="not_finite",
        summary="A weight, the input or a layer's output is not finite before training.",
        measure="NaN or infinite entries of named parameters, buffers and inputs, or of the output of an"
        " operation with finite inputs; else the first layer with a non-finite q = E[h²], unless q grew",
        threshold=None,
        hides=(
            "exploding_forward",
            "vanishing_forward",
            "exploding_backward",
            "vanishing_backward",
            "head_scale",
        ),
        limit=f"any entry (of a weight also one beyond {HUGE:g}); in a buffer any except −∞, which masks"
        " contain",
        cause="A division by 0 in an init, a damaged checkpoint, missing values in the data, or exp, log, a"
        " root or a division outside of its domain.",
        cure="Redraw or clean the named tensor, or keep the input of the named operation in its domain.",
    ),
    DiagnosisCode(
        name="diverged",
        summary="The loss became NaN or infinite.",
        measure="number of updates until then",
        threshold=None,
        limit="a loss that is NaN or infinite",
        cause="A learning rate too large for the net, or another listed finding.",
        cure="A smaller train.lr.",
    ),
    *CONDITION_CODES[:-1],
    DiagnosisCode(
        name="vanishing_forward",
        summary="The differences between inputs are lost on the way to the head.",
        measure="log-slope over hidden layers of the pre-activations' variance over samples, at init",
        threshold=math.log(VANISHING_RATIO),
        limit=_FALLS,
        cause="Weights too small for the activation (σ_w² E[φ′(h)²] < 1), or a bias that drowns the signal.",
        cure="A scheme whose gain keeps the signal under this activation (init.scheme=analytic), or a norm.",
    ),
    DiagnosisCode(
        name="exploding_forward",
        summary="The pre-activations grow from layer to layer.",
        measure="log-slope over hidden layers of q = E[h²], at init",
        threshold=-math.log(VANISHING_RATIO),
        hides=("head_scale",),
        limit=_GROWS,
        cause="Weights too large for the activation, or residual branches as large as their skip connection.",
        cure="A smaller init.gain, a scheme that keeps q (init.scheme=analytic), or a norm.",
    ),
    DiagnosisCode(
        name="vanishing_backward",
        summary="The gradient vanishes on the way back to the first layers.",
        measure="log-slope, from the last hidden layer to the first, of E[δ²], and of its sum over the"
        " positions of a map, at init",
        threshold=math.log(VANISHING_RATIO),
        limit=_FALLS,
        cause="Weights too small for the activation (χ₁ = σ_w² E[φ′(h)²] < 1), or units that are flat or"
        " dead.",
        cure="A larger gain, or a less flat activation; init.scheme=critical has χ₁ = 1.",
    ),
    DiagnosisCode(
        name="exploding_backward",
        summary="The gradient grows on the way back to the first layers.",
        measure="log-slope, from the last hidden layer to the first, of E[δ²], and of its sum over the"
        " positions of a map, at init",
        threshold=-math.log(VANISHING_RATIO),
        limit=f"{_GROWS}; to {NORMED_GROWTH:,.0f} times over residual sums if all branches end in a norm",
        cause="Weights too large for the activation (χ₁ = σ_w² E[φ′(h)²] > 1), or batch norm in each of"
        " very many layers (Yang et al. 2019).",
        cure="A smaller gain; init.scheme=critical has χ₁ = 1.",
    ),
    DiagnosisCode(
        name="dead",
        summary="Most units of a layer are zero on every sample of the probe batch.",
        measure="share of such units, at init or at the end",
        threshold=_MAX_DEAD,
        limit=f"> {100 * _MAX_DEAD:g} % of the units of a layer",
        cause="Negative biases, a training step that was too large, or a layer that gets no signal.",
        cure="A smaller train.lr, an init.bias above 0, or model.activation=leaky_relu.",
    ),
    DiagnosisCode(
        name="saturated",
        summary=f"A bounded activation is flat (|φ′| < {SATURATED_BELOW:g}·max|φ′|) for most of its inputs.",
        measure="share of such entries, at init or at the end",
        threshold=MAX_FLAT,
        level="note",
        limit=f"> {100 * MAX_FLAT:g} % of the entries of a layer",
        cause="Pre-activations outside of the activation's steep part: weights, biases or inputs too large.",
        cure="A smaller init.gain, or a norm before the activation.",
    ),
    *CONDITION_CODES[-1:],
    NOT_LEARNED,
)
DIAGNOSTICS: Registry[DiagnosisCode] = Registry("diagnostic", group="diagnostics")
"""All codes in order of precedence; those of plug-ins come last."""
for _code in CODES:
    DIAGNOSTICS.add(_code)


def diagnose(
    snapshots: Sequence[dict[str, Any]],
    context: DiagnosisContext | None,
    diverged: tuple[int, int | None] | None,
    *,
    conditions: Sequence[Finding] = (),
    progress: Progress | None = None,
) -> list[Finding]:
    """Return the findings of one run in order of precedence; a healthy run has no warnings.

    Args:
        snapshots: Probes of the run, including at least the one at init.
        context: The declared settings, for messages and advice, which take longer than the judgement. With
            None, findings of slopes and shares have an empty message and are otherwise unchanged.
        diverged: Step and layer, for a run that diverged.
        conditions: The findings of `condition_findings` about input and loss.
        progress: The progress of a run that was trained to its end.
    """
    initial = [s for s in snapshots if s["when"] == "init"]
    ends = [s for s in snapshots if s["when"] in ("init", "end")]
    findings = [*_symmetric_finding(ends), *conditions]
    if diverged is not None:
        findings.append(_diverged_finding(*diverged))
    over_steps: set[str] = set()
    for snapshot in initial:
        paths = [outside_branches(path) for path in _paths_to_heads(snapshot["layers"])]
        slopes = [finding for path in paths for finding in _slope_findings(path, context)]
        findings += {finding.code: finding for finding in reversed(slopes)}.values()
        findings += _stream_findings(residual_sums(snapshot["layers"]), findings, context)
        steps = list(_step_findings(snapshot["layers"], findings))
        findings += steps
        over_steps.update(finding.code for finding in steps)
        findings += _not_finite_finding(snapshot["layers"], findings)
    judged = ends if diverged is None else initial
    findings += _share_finding(judged, "dead", "dead_fraction", context)
    findings += _share_finding(judged, "saturated", "saturated_fraction", context)
    findings += _plugin_findings(judged)
    hidden = {
        name for finding in findings if finding.when == "init" for name in DIAGNOSTICS[finding.code].hides
    }
    remaining = [replace(f, level=DIAGNOSTICS[f.code].level) for f in findings if f.code not in hidden]
    remaining = _drop_consequences(remaining, snapshots)
    if progress is not None and not any(finding.level == "warning" for finding in remaining):
        remaining += progress_finding(progress)
    if context is not None:
        remaining = [
            add_advice(finding, context, over_steps=finding.code in over_steps) for finding in remaining
        ]
    remaining = [replace(finding, message=finding.message.removesuffix(".")) for finding in remaining]
    order = DIAGNOSTICS.names()
    return sorted(remaining, key=lambda f: order.index(f.code))


def _plugin_findings(snapshots: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    """Yield the first symptom that each diagnostic of a plug-in sees."""
    for code in DIAGNOSTICS:
        if code.look is None:
            continue
        with reporting_user_code(f"the diagnostic {code.name} fails:"):
            pairs = ((probe, symptom) for probe in snapshots for symptom in code.look(probe))
            probe, symptom = next(pairs, (None, None))
            value = math.nan if symptom is None else float(symptom.value)
        if probe is not None and symptom is not None:
            yield Finding(
                code.name, symptom.layer, value, code.threshold, symptom.sentence, str(probe["when"])
            )


def _drop_consequences(findings: list[Finding], snapshots: Sequence[dict[str, Any]]) -> list[Finding]:
    """Return the findings without consequences, where both dead units and vanishing values were found.

    A layer without a signal is dead as a consequence. Dead units in a layer with a signal cut off the signal
    above it, and the gradient in it and below it.
    """
    by_code = {finding.code: finding for finding in findings}
    dead, lost = by_code.get("dead"), by_code.get("vanishing_forward")
    if dead is None or dead.layer is None:
        return findings
    pre = _pre_activation_of(snapshots, dead)
    if lost is not None and pre["signal"] <= float32_floor(pre["q"]):
        return [f for f in findings if f is not dead]
    if dead.when != "init":
        return findings
    return [f for f in findings if f.layer is None or not _is_consequence(f.code, f.layer, dead.layer)]


def _pre_activation_of(snapshots: Sequence[dict[str, Any]], finding: Finding) -> dict[str, float]:
    """Return the statistics of the pre-activation in the layer and snapshot of a finding."""
    (snapshot,) = [s for s in snapshots if s["when"] == finding.when]
    (layer,) = [layer for layer in snapshot["layers"] if layer["index"] == finding.layer]
    return dict(layer["pre"])


def _is_consequence(code: str, layer: int, dead: int) -> bool:
    return layer > dead if code == "vanishing_forward" else code == "vanishing_backward" and layer <= dead


def hidden_layers(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the hidden layers; in nets of a config, the layers with an activation."""
    return [layer for layer in layers if layer.get("is_hidden", layer["act"] is not None)]


def _paths_to_heads(layers: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the hidden layers from the input to each head, in order; all of them if there is one head.

    The layers of two parallel nets do not form a chain, although they are consecutive in the pass.
    """
    hidden = hidden_layers(layers)
    heads = [layer for layer in layers if layer.get("is_head")]
    if len(heads) < 2:
        return [hidden]
    by_index, are_hidden = {layer["index"]: layer for layer in layers}, {layer["index"] for layer in hidden}
    paths: list[list[dict[str, Any]]] = []
    for head in heads:
        path, below = [], head["below"]
        while below is not None:
            layer = by_index[below]
            path += [layer] if below in are_hidden else []
            below = layer["below"]
        if path and path[::-1] not in paths:
            paths.append(path[::-1])
    return paths


def _symmetric_finding(snapshots: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    limit = DIAGNOSTICS["symmetric"].threshold or 0.0
    for snapshot in snapshots:
        hidden = hidden_layers(snapshot["layers"])
        for layer in snapshot["layers"]:
            when, spread, alike = snapshot["when"], layer["unit_spread"], ""
            if layer in hidden and _passes_signal(layer) and layer["units"] > 1 and spread <= limit:
                alike = (
                    f"are identical {moment_text(when)}, in their output and in their gradient, so training"
                    " cannot make them differ"
                )
            elif "row_spread" in layer and not layer["is_head"]:
                spread = layer["row_spread"]
                alike = f"have the same weights {moment_text(when)}, so the layer passes on a single number"
            if alike:
                message = f"all {layer['units']} units of layer {layer['index']} {alike}."
                yield Finding("symmetric", layer["index"], spread, limit, message, when)
                return


def _not_finite_finding(layers: Sequence[dict[str, Any]], findings: Sequence[Finding]) -> Iterator[Finding]:
    broken = next((layer for layer in layers if not math.isfinite(layer["pre"]["q"])), None)
    if broken is None or any(finding.code in ("exploding_forward", "not_finite") for finding in findings):
        return
    index = broken["index"]
    message = f"the output of layer {index} is not finite at init. Check its weights and the input"
    yield Finding("not_finite", index, broken["pre"]["q"], None, message, "init")


def _diverged_finding(step: int, layer: int | None) -> Finding:
    where = "only the loss overflowed" if layer is None else f"layer {layer} was the first to overflow"
    message = (
        f"the loss was no longer finite after {step} {'update' if step == 1 else 'updates'}; {where}."
        " Check train.lr and the other findings"
    )
    return Finding("diverged", layer, float(step), None, message, "end")


def _step_findings(layers: Sequence[dict[str, Any]], findings: Sequence[Finding]) -> Iterator[Finding]:
    """Yield findings of slopes over the steps of recurrent layers, each code once."""
    codes = {finding.code for finding in findings}
    for code, layer, slope, words in slopes_over_steps(layers):
        if code not in codes:
            codes.add(code)
            yield Finding(code, layer["index"], slope.value, slope.threshold, f"{words}.", "init")


def _slope_findings(
    hidden: list[dict[str, Any]],
    context: DiagnosisContext | None,
    most_backward: float = 1 / VANISHING_RATIO,
) -> Iterator[Finding]:
    """Yield findings of the signal in the forward pass and of the gradient in the backward pass.

    A finding of the gradient must hold for E[δ²] of a position and for its sum over the positions of a map;
    the slope that is closer to 0 is reported.

    A residual branch that is initialised to 0 has no output and gets no gradient, while both pass through
    the skip connection. Such layers are ignored.

    Args:
        hidden: The records of the hidden layers, in order.
        context: The declared settings; None for findings without a message.
        most_backward: The growth of E[δ²] above which the gradient explodes.
    """
    forward = [layer for layer in hidden if _passes_signal(layer) and not layer.get("was_constant")]
    q = finite_prefix([layer["pre"]["q"] for layer in forward])
    finite = sum(map(math.isfinite, q))
    signal = finite_prefix([layer["pre"]["signal"] for layer in forward])[:finite]
    floors = [float32_floor(x) for x in q[: len(signal)]]
    share = RECURRENT_FALL if any(layer.get("is_recurrent") for layer in hidden) else VANISHING_RATIO
    lost = vanishing_slope(signal, floors, full=q[0] if q else 0.0, share=share)
    yield from _slope_finding("vanishing_forward", lost, signal, forward, context)
    yield from _slope_finding("exploding_forward", explosion_slope(q), q, forward, context)
    backward = _with_gradient(hidden[::-1])
    of_position = finite_prefix([layer["grad"]["pre_q"] for layer in backward])
    summed = finite_prefix([_summed_gradient(layer) for layer in backward])
    floors = [float32_floor(0.0)] * len(of_position)
    fallen = [vanishing_slope(values, floors, share=share) for values in (of_position, summed)]
    grown = [explosion_slope(values, most_backward) for values in (of_position, summed)]
    for code, (slope, sum_slope) in (("vanishing_backward", fallen), ("exploding_backward", grown)):
        if slope is None or sum_slope is None:
            continue
        if abs(sum_slope.value) < abs(slope.value) * (1.0 - SAME_SLOPE):
            yield from _slope_finding(code, sum_slope, summed, backward, context, is_summed=True)
        else:
            yield from _slope_finding(code, slope, of_position, backward, context)


def _stream_findings(
    sums: list[dict[str, Any]], findings: Sequence[Finding], context: DiagnosisContext | None
) -> Iterator[Finding]:
    """Yield findings of slopes over the sums of a residual net, without codes that were already found."""
    span = (sums[0]["index"], sums[-1]["index"]) if sums else (0, 0)
    most_backward = NORMED_GROWTH if are_branches_normed(sums) else 1 / VANISHING_RATIO
    for finding in _slope_findings(sums, None, most_backward):
        if all(other.code != finding.code for other in findings):
            words = ""
            if context is not None:
                words = stream_sentence(finding.code, finding.value, span, len(sums))
            yield replace(finding, message=words)


def _summed_gradient(layer: dict[str, Any]) -> float | None:
    """Return E[δ²] of a layer, summed over the positions of its map; None without a gradient.

    The gradient of a weight is a sum over the positions that share it, so that its mean square is this sum
    times E[x²] of the input if δ is uncorrelated between positions. Strides and max-pooling share a gradient
    out over more positions, which decreases E[δ²] and keeps the sum.
    """
    square: float | None = layer["grad"]["pre_q"]
    return None if square is None else square * layer.get("positions", 1.0)


def _passes_signal(layer: dict[str, Any]) -> bool:
    """Whether the layer passes a signal on; the activation of an output of 0 alone is a constant."""
    return not (layer["pre"]["q"] == 0.0 and layer["act"] is not None and layer["act"]["std"])


def _with_gradient(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the layers without those that get no gradient although a later one in the list does."""
    last = max((i for i, layer in enumerate(layers) if layer["grad"]["pre_q"]), default=-1)
    return [layer for i, layer in enumerate(layers) if i > last or layer["grad"]["pre_q"] != 0.0]


def _slope_finding(
    code: str,
    slope: LogSlope | None,
    values: list[float],
    layers: list[dict[str, Any]],
    context: DiagnosisContext | None,
    *,
    is_summed: bool = False,
) -> Iterator[Finding]:
    if slope is None:
        return
    values = values[: slope.layers]
    span = (layers[0]["index"], layers[slope.layers - 1]["index"])
    layer = _where_it_crosses(values, layers, falling=slope.threshold < 0)
    message = ""
    if context is not None:
        message = slope_sentence(code, slope.value, span, values, context, is_summed=is_summed)
    yield Finding(code, layer, slope.value, slope.threshold, message, "init")


def _where_it_crosses(values: list[float], layers: list[dict[str, Any]], *, falling: bool) -> int:
    """Return the first layer beyond VANISHING_RATIO or its inverse, or the layer of the last value."""
    for value, layer in zip(values, layers, strict=False):
        share = value / values[0] if values[0] > 0 else math.nan
        if (share <= VANISHING_RATIO) if falling else (share >= 1 / VANISHING_RATIO):
            return int(layer["index"])
    return int(layers[len(values) - 1]["index"])


_SHARE_TEXT = {
    "dead": "of the units are zero on the whole probe batch",
    "saturated": "of the activation's inputs are on its flat part",
}


def _share_finding(
    snapshots: Sequence[dict[str, Any]], code: str, statistic: str, context: DiagnosisContext | None
) -> Iterator[Finding]:
    limit = DIAGNOSTICS[code].threshold or 0.0
    for snapshot in snapshots:
        over = [layer for layer in snapshot["layers"] if ((layer["act"] or {}).get(statistic) or 0.0) > limit]
        if over:
            first, when = over[0], snapshot["when"]
            share = first["act"][statistic]
            where = f", in layer {first['index']}{count_suffix(len(over) - 1)} {moment_text(when)}"
            flat_gates = gates_in_words(first) if code == "saturated" else ""
            text = f"{100 * share:.0f} % {flat_gates or _SHARE_TEXT[code]}{where}."
            message = "" if context is None else f"{text} {_share_cause(code, when, first, context)}".rstrip()
            yield Finding(code, first["index"], share, limit, message, when)
            return


def _share_cause(code: str, when: str, layer: dict[str, Any], context: DiagnosisContext) -> str:
    if code == "dead":
        return dead_cause(when, context)
    if "gates" in layer["act"]:
        return f"{worst_gate_in_words(layer)}."
    return saturated_cause(when, layer["pre"], context)
