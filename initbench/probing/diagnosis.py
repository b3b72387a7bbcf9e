"""A probe turned into words: what is wrong with a net, by how much, why, and what to try.

Codes, thresholds and their precedence stand in one table here; docs/diagnosis.md is made from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from initbench.components.activation import SATURATED_BELOW
from initbench.probing.finding import DiagnosisCode, Finding
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
from initbench.probing.training_conditions import CONDITION_CODES

_MAX_DEAD = 0.9
"""Share of a layer's units above which it counts as dead."""
_FALLS = (
    f"a fall to {VANISHING_RATIO:g} of itself over the L hidden layers: "
    f"slope ≤ ln({VANISHING_RATIO:g})/(L − 1)"
    f" = −{-math.log(VANISHING_RATIO):.2f}/(L − 1) nats a layer; "
    f"to {RECURRENT_FALL:g} where some of them are recurrent"
)
_GROWS = (
    f"a growth to {1 / VANISHING_RATIO:,.0f} times itself over the L hidden layers: "
    f"slope ≥ ln({1 / VANISHING_RATIO:g})/(L − 1)"
    f" = {-math.log(VANISHING_RATIO):.2f}/(L − 1) nats a layer"
)

CODES = (
    DiagnosisCode(
        "symmetric",
        "All units of a hidden layer are the same function, so that one number is all that passes it.",
        "largest relative spread over units of pre-activations, weight rows and weight-gradient rows; in a"
        " module's layer with weights other than 0, that of the weight rows alone",
        ALIKE,
        hides=("vanishing_forward", "vanishing_backward", "dead", "saturated"),
        limit=f"a spread ≤ {ALIKE:g} of the mean size",
        cause="Weights that are all alike: zeros, a constant, or one row repeated.",
        cure="Draw the weights at random: init.scheme=kaiming_normal.",
    ),
    DiagnosisCode(
        "not_finite",
        "A weight, the input or a layer's output is no number before anything is trained.",
        "entries that are NaN or infinite: of parameters, buffers and the input, by name; of what an"
        " operation puts out that was given numbers; else the first layer whose q = E[h²] is, unless q grew",
        None,
        hides=(
            "exploding_forward",
            "vanishing_forward",
            "exploding_backward",
            "vanishing_backward",
            "head_scale",
        ),
        limit=f"any entry (of a weight also one beyond {HUGE:g}); in a buffer any but −∞, which masks"
        " are made of",
        cause="A division by 0 in an init, a damaged checkpoint, gaps in the data, or exp, log, a root or a"
        " division beyond its range.",
        cure="Draw or clean what is named, or keep the operation that is named within its range.",
    ),
    DiagnosisCode(
        "diverged",
        "The loss stopped being a number.",
        "updates made until then",
        None,
        limit="a loss that is NaN or infinite",
        cause="A learning rate too large for the net, or what else is listed.",
        cure="A smaller train.lr.",
    ),
    *CONDITION_CODES[:-1],
    DiagnosisCode(
        "vanishing_forward",
        "What tells one input from another is lost on the way to the head.",
        "log-slope over hidden layers of the pre-activations' variance over samples, at init",
        math.log(VANISHING_RATIO),
        limit=_FALLS,
        cause="Weights too small for the activation (σ_w² E[φ′(h)²] < 1), or a bias that drowns the signal.",
        cure="A scheme whose gain keeps the signal under this activation (init.scheme=analytic), or a norm.",
    ),
    DiagnosisCode(
        "exploding_forward",
        "The pre-activations grow from layer to layer.",
        "log-slope over hidden layers of q = E[h²], at init",
        -math.log(VANISHING_RATIO),
        hides=("head_scale",),
        limit=_GROWS,
        cause="Weights too large for the activation, or residual branches that add as much as they are"
        " given.",
        cure="A smaller init.gain, a scheme that keeps q (init.scheme=analytic), or a norm.",
    ),
    DiagnosisCode(
        "vanishing_backward",
        "The gradient is lost on the way back to the first layers.",
        "log-slope, from the last hidden layer to the first, of E[δ²], at init",
        math.log(VANISHING_RATIO),
        limit=_FALLS,
        cause="Weights too small for the activation (χ₁ = σ_w² E[φ′(h)²] < 1), or units that are flat or"
        " dead.",
        cure="A larger gain, or an activation that is less flat; init.scheme=critical has χ₁ = 1.",
    ),
    DiagnosisCode(
        "exploding_backward",
        "The gradient grows on the way back to the first layers.",
        "log-slope, from the last hidden layer to the first, of E[δ²], at init",
        -math.log(VANISHING_RATIO),
        limit=f"{_GROWS}; to {NORMED_GROWTH:,.0f} times over residual sums of branches that end in a norm",
        cause="Weights too large for the activation (χ₁ = σ_w² E[φ′(h)²] > 1), or a batch norm at each of"
        " very many layers (Yang et al. 2019).",
        cure="A smaller gain; init.scheme=critical has χ₁ = 1.",
    ),
    DiagnosisCode(
        "dead",
        "Most units of a layer are zero on every sample of the probe batch.",
        "share of such units, at init or at the end",
        _MAX_DEAD,
        limit=f"> {100 * _MAX_DEAD:g} % of the units of a layer",
        cause="Biases below 0, a step of training that was too large, or a layer that gets no signal.",
        cure="A smaller train.lr, an init.bias above 0, or model.activation=leaky_relu.",
    ),
    DiagnosisCode(
        "saturated",
        f"A bounded activation is flat (|φ′| < {SATURATED_BELOW:g}·max|φ′|) for most of what it sees.",
        "share of such entries, at init or at the end",
        MAX_FLAT,
        level="note",
        limit=f"> {100 * MAX_FLAT:g} % of the entries of a layer",
        cause="Pre-activations beyond the activation's steep part: weights, biases or inputs too large.",
        cure="A smaller init.gain, or a norm before the activation.",
    ),
    *CONDITION_CODES[-1:],
    NOT_LEARNED,
)
_BY_NAME = {code.name: code for code in CODES}


def diagnose(
    snapshots: Sequence[dict[str, Any]],
    context: DiagnosisContext | None,
    diverged: tuple[int, int | None] | None,
    *,
    conditions: Sequence[Finding] = (),
    progress: Progress | None = None,
) -> list[Finding]:
    """Findings of one run in order of precedence; a healthy run has none that is a warning.

    snapshots: as probed, at least the one at init; `diverged`: (step, layer) of a run that did. `situation`
    is what words and advice are made of, which take longer than the judgement; None where none are asked
    for: slopes and shares then have an empty message, and are otherwise the same. `conditions`: what
    `condition_findings` has found beside the layers; `progress`: of a run that was trained to its end.
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
    hidden = {name for finding in findings if finding.when == "init" for name in _BY_NAME[finding.code].hides}
    remaining = [replace(f, level=_BY_NAME[f.code].level) for f in findings if f.code not in hidden]
    remaining = _drop_consequences(remaining, snapshots)
    if progress is not None and not any(finding.level == "warning" for finding in remaining):
        remaining += progress_finding(progress)
    if context is not None:
        remaining = [
            add_advice(finding, context, over_steps=finding.code in over_steps) for finding in remaining
        ]
    remaining = [replace(finding, message=finding.message.removesuffix(".")) for finding in remaining]
    order = [code.name for code in CODES]
    return sorted(remaining, key=lambda f: order.index(f.code))


def _drop_consequences(findings: list[Finding], snapshots: Sequence[dict[str, Any]]) -> list[Finding]:
    """Of dead units and a vanishing signal or gradient, what came first.

    A layer that gets no signal is dead because of that. Units that die of what they do get cut off the signal
    above them and the gradient at and below them.
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
    """The pre-activation's statistics where and when something was found."""
    (snapshot,) = [s for s in snapshots if s["when"] == finding.when]
    (layer,) = [layer for layer in snapshot["layers"] if layer["index"] == finding.layer]
    return dict(layer["pre"])


def _is_consequence(code: str, layer: int, dead: int) -> bool:
    return layer > dead if code == "vanishing_forward" else code == "vanishing_backward" and layer <= dead


def hidden_layers(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the layers that others follow; of our own nets those with an activation behind them."""
    return [layer for layer in layers if layer.get("is_hidden", layer["act"] is not None)]


def _paths_to_heads(layers: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The hidden layers from the input to each head, in order; all in one row where there is one head.

    The layers of two nets side by side are no chain, though they stand one behind the other in the pass.
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
    limit = _BY_NAME["symmetric"].threshold or 0.0
    for snapshot in snapshots:
        hidden = hidden_layers(snapshot["layers"])
        for layer in snapshot["layers"]:
            when, spread, alike = snapshot["when"], layer["unit_spread"], ""
            if layer in hidden and _passes_signal(layer) and layer["units"] > 1 and spread <= limit:
                alike = (
                    f"are identical {moment_text(when)}, in what they compute and in the gradient they get, "
                    "so"
                    " training cannot tell them apart"
                )
            elif "row_spread" in layer and not layer["is_head"]:
                spread = layer["row_spread"]
                alike = (
                    f"have the same weights {moment_text(when)}, "
                    "so that one number is all that passes the layer"
                )
            if alike:
                message = f"all {layer['units']} units of layer {layer['index']} {alike}."
                yield Finding("symmetric", layer["index"], spread, limit, message, when)
                return


def _not_finite_finding(layers: Sequence[dict[str, Any]], findings: Sequence[Finding]) -> Iterator[Finding]:
    broken = next((layer for layer in layers if not math.isfinite(layer["pre"]["q"])), None)
    if broken is None or any(finding.code in ("exploding_forward", "not_finite") for finding in findings):
        return
    index = broken["index"]
    message = f"layer {index} puts out what is no number at init. Look for it in its weights or in the input"
    yield Finding("not_finite", index, broken["pre"]["q"], None, message, "init")


def _diverged_finding(step: int, layer: int | None) -> Finding:
    where = "only the loss overflowed" if layer is None else f"layer {layer} was the first to go"
    message = (
        f"the loss was no longer finite after {step} {'update' if step == 1 else 'updates'}; {where}."
        " Look at train.lr, and at what else is listed"
    )
    return Finding("diverged", layer, float(step), None, message, "end")


def _step_findings(layers: Sequence[dict[str, Any]], findings: Sequence[Finding]) -> Iterator[Finding]:
    """The same codes as those of slopes over layers, of a recurrent layer from step to step; each once."""
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
    """Findings of the signal on its way forward and of the gradient on its way back.

    A residual branch that starts closed puts out 0 and lets no gradient in, while both go on beside it;
    such layers are no part of the way. `most_backward`: growth of E[δ²] beyond which it explodes.
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
    delta = finite_prefix([layer["grad"]["pre_q"] for layer in backward])
    lost = vanishing_slope(delta, [float32_floor(0.0)] * len(delta), share=share)
    yield from _slope_finding("vanishing_backward", lost, delta, backward, context)
    yield from _slope_finding(
        "exploding_backward", explosion_slope(delta, most_backward), delta, backward, context
    )


def _stream_findings(
    sums: list[dict[str, Any]], findings: Sequence[Finding], context: DiagnosisContext | None
) -> Iterator[Finding]:
    """The same at the sums of a residual net; what the layers beside it show already is not said twice."""
    span = (sums[0]["index"], sums[-1]["index"]) if sums else (0, 0)
    most_backward = NORMED_GROWTH if are_branches_normed(sums) else 1 / VANISHING_RATIO
    for finding in _slope_findings(sums, None, most_backward):
        if all(other.code != finding.code for other in findings):
            words = ""
            if context is not None:
                words = stream_sentence(finding.code, finding.value, span, len(sums))
            yield replace(finding, message=words)


def _passes_signal(layer: dict[str, Any]) -> bool:
    """Whether what follows the layer sees its output: after a 0 alone, an activation would be one value."""
    return not (layer["pre"]["q"] == 0.0 and layer["act"] is not None and layer["act"]["std"])


def _with_gradient(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the layers that get no gradient though one that the gradient meets later does."""
    last = max((i for i, layer in enumerate(layers) if layer["grad"]["pre_q"]), default=-1)
    return [layer for i, layer in enumerate(layers) if i > last or layer["grad"]["pre_q"] != 0.0]


def _slope_finding(
    code: str,
    slope: LogSlope | None,
    values: list[float],
    layers: list[dict[str, Any]],
    context: DiagnosisContext | None,
) -> Iterator[Finding]:
    if slope is None:
        return
    values = values[: slope.layers]
    span = (layers[0]["index"], layers[slope.layers - 1]["index"])
    layer = _where_it_crosses(values, layers, falling=slope.threshold < 0)
    message = "" if context is None else slope_sentence(code, slope.value, span, values, context)
    yield Finding(code, layer, slope.value, slope.threshold, message, "init")


def _where_it_crosses(values: list[float], layers: list[dict[str, Any]], *, falling: bool) -> int:
    """The first layer beyond FALL or its inverse, or the last of `values`."""
    for value, layer in zip(values, layers, strict=False):
        share = value / values[0] if values[0] > 0 else math.nan
        if (share <= VANISHING_RATIO) if falling else (share >= 1 / VANISHING_RATIO):
            return int(layer["index"])
    return int(layers[len(values) - 1]["index"])


_SHARE_TEXT = {
    "dead": "of the units are zero on the whole probe batch",
    "saturated": "of what the activation sees is on its flat part",
}


def _share_finding(
    snapshots: Sequence[dict[str, Any]], code: str, statistic: str, context: DiagnosisContext | None
) -> Iterator[Finding]:
    limit = _BY_NAME[code].threshold or 0.0
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
