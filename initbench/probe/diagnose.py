"""A probe turned into words: what is wrong with a net, by how much, why, and what to try.

Codes, thresholds and their precedence stand in one table here; docs/diagnosis.md is made from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from initbench.probe.advice import REMEDY, Situation, advice, and_more, spell

FALL = 1e-4
"""A second moment that falls below this share of itself over the hidden layers vanishes.

Its inverse is where it explodes. Finite width alone scatters log q with variance about 5(L−1)/n for
relu (0.86 standard deviations at depth 20, width 128), and batch norm under relu raises E[δ²] by 1.47
a layer (Yang et al. 2019): both stay inside.
"""
_TINY = 1e-90  # the square of the smallest float32


@dataclass(frozen=True)
class Code:
    """One kind of finding."""

    name: str
    meaning: str
    measure: str
    threshold: float | None
    hides: tuple[str, ...] = ()
    """Codes that are mere consequences of this one at init, and are not reported beside it."""


CODES = (
    Code(
        "symmetric",
        "All units of a hidden layer are the same function and get the same gradient: they stay identical.",
        "largest relative spread over units of pre-activations, weight rows and weight-gradient rows",
        1e-3,
        hides=("vanishing_forward", "vanishing_backward", "dead", "saturated"),
    ),
    Code("diverged", "The loss stopped being a number.", "updates made until then", None),
    Code(
        "vanishing_forward",
        "What tells one input from another is lost on the way to the head.",
        "log-slope over hidden layers of the pre-activations' variance over samples, at init",
        math.log(FALL),
    ),
    Code(
        "exploding_forward",
        "The pre-activations grow from layer to layer.",
        "log-slope over hidden layers of q = E[h²], at init",
        -math.log(FALL),
    ),
    Code(
        "vanishing_backward",
        "The gradient is lost on the way back to the first layers.",
        "log-slope, from the last hidden layer to the first, of E[δ²], at init",
        math.log(FALL),
    ),
    Code(
        "exploding_backward",
        "The gradient grows on the way back to the first layers.",
        "log-slope, from the last hidden layer to the first, of E[δ²], at init",
        -math.log(FALL),
    ),
    Code(
        "dead",
        "Most units of a layer are zero on every sample of the probe batch.",
        "share of such units, at init or at the end",
        0.9,
    ),
    Code(
        "saturated",
        "A bounded activation is flat (|φ′| < 0.05·max|φ′|) for most of what it sees.",
        "share of such entries, at init or at the end",
        0.5,
    ),
)
_BY_NAME = {code.name: code for code in CODES}


@dataclass(frozen=True)
class Finding:
    """One diagnosis of one run."""

    code: str
    layer: int | None
    value: float
    threshold: float | None
    message: str
    when: str
    """The moment it was seen at: "init", or "end" for what training brought about."""

    def as_data(self) -> dict[str, Any]:
        """The finding as stored and printed with --json."""
        return dict(vars(self))


def diagnose(
    snapshots: Sequence[dict[str, Any]], situation: Situation, diverged: tuple[int, int | None] | None
) -> list[Finding]:
    """Findings of one run in order of precedence; a healthy run has none.

    snapshots: as probed, at least the one at init; `diverged`: (step, layer) of a run that did.
    """
    first = [s for s in snapshots if s["when"] == "init"]
    ends = [s for s in snapshots if s["when"] in ("init", "end")]
    found = list(_symmetric(ends))
    if diverged is not None:
        found.append(_diverged(*diverged))
    for snapshot in first:
        found += _slopes(_hidden(snapshot), situation)
    judged = ends if diverged is None else first
    found += _shares(judged, "dead", "dead_fraction", "of the units are zero on the whole probe batch,")
    found += _shares(
        judged, "saturated", "saturated_fraction", "of what the activation sees is on its flat part,"
    )
    hidden = {name for finding in found if finding.when == "init" for name in _BY_NAME[finding.code].hides}
    order = [code.name for code in CODES]
    return sorted((f for f in found if f.code not in hidden), key=lambda f: order.index(f.code))


def _hidden(snapshot: dict[str, Any]) -> list[dict[str, Any]]:
    return [layer for layer in snapshot["layers"] if layer["act"] is not None]


def _symmetric(snapshots: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    limit = _BY_NAME["symmetric"].threshold or 0.0
    for snapshot in snapshots:
        for layer in _hidden(snapshot):
            if layer["units"] > 1 and layer["unit_spread"] <= limit:
                message = (
                    f"all {layer['units']} units of layer {layer['index']} are identical"
                    f" {spell(snapshot['when'])}, in what they compute and in the gradient they get,"
                    " so training cannot tell them apart."
                    " Draw the weights at random: try init.scheme=kaiming_normal"
                )
                when = snapshot["when"]
                yield Finding("symmetric", layer["index"], layer["unit_spread"], limit, message, when)
                return


def _diverged(step: int, layer: int | None) -> Finding:
    where = "only the loss overflowed" if layer is None else f"layer {layer} was the first to go"
    message = (
        f"the loss was no longer finite after {step} updates; {where}."
        " Try a smaller train.lr, or see what else is listed"
    )
    return Finding("diverged", layer, float(step), None, message, "end")


def log_slope(values: Sequence[float]) -> float:
    """Least-squares slope of log(value) over the position; 0 for fewer than two values.

    Zeros count as the smallest square float32 can hold; an infinite value makes the slope infinite.
    """
    if len(values) < 2:
        return 0.0
    if any(math.isinf(v) for v in values):
        return math.inf
    logs = [math.log(max(v, _TINY)) for v in values]
    centre = (len(logs) - 1) / 2
    mean = sum(logs) / len(logs)
    weights = [i - centre for i in range(len(logs))]
    return sum(w * (x - mean) for w, x in zip(weights, logs, strict=True)) / sum(w * w for w in weights)


def _slopes(hidden: list[dict[str, Any]], situation: Situation) -> Iterator[Finding]:
    if len(hidden) < 2:
        return
    signal = [layer["pre"]["signal"] for layer in hidden]
    q = [layer["pre"]["q"] for layer in hidden]
    delta = [layer["grad"]["pre_q"] for layer in reversed(hidden)]
    yield from _slope("vanishing_forward", signal, hidden, situation)
    yield from _slope("exploding_forward", q, hidden, situation)
    if all(d is not None and not math.isnan(d) for d in delta):
        yield from _slope("vanishing_backward", delta, hidden[::-1], situation)
        yield from _slope("exploding_backward", delta, hidden[::-1], situation)


def _slope(
    code: str, values: list[float], layers: list[dict[str, Any]], situation: Situation
) -> Iterator[Finding]:
    """Compare the slope over all layers with the slope that would reach the threshold over them."""
    known = [v for v in values if not math.isnan(v)]
    slope = log_slope(known)
    threshold = (_BY_NAME[code].threshold or 0.0) / (len(layers) - 1)
    if (slope <= threshold) if threshold < 0 else (slope >= threshold):
        layer = _where_it_crosses(values, layers, falling=threshold < 0)
        message = advice(code, slope, (layers[0]["index"], layers[-1]["index"]), values, situation)
        yield Finding(code, layer, slope, threshold, message, "init")


def _where_it_crosses(values: list[float], layers: list[dict[str, Any]], *, falling: bool) -> int:
    for value, layer in zip(values, layers, strict=True):
        share = value / values[0] if values[0] > 0 else math.nan
        if (share <= FALL) if falling else (share >= 1 / FALL):
            return int(layer["index"])
    return int(layers[-1]["index"])


def _shares(
    snapshots: Sequence[dict[str, Any]], code: str, statistic: str, sentence: str
) -> Iterator[Finding]:
    limit = _BY_NAME[code].threshold or 0.0
    for snapshot in snapshots:
        over = [layer for layer in _hidden(snapshot) if (layer["act"][statistic] or 0.0) > limit]
        if over:
            first = over[0]
            share = first["act"][statistic]
            message = (
                f"{100 * share:.0f} % {sentence} in layer {first['index']}"
                f"{and_more(len(over) - 1)} {spell(snapshot['when'])}. " + REMEDY[code]
            )
            yield Finding(code, first["index"], share, limit, message, snapshot["when"])
            return
