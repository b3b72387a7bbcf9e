"""Try changes on nets, and report whether they cure a finding and by which numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from initbench.errors import AllocationError, ConfigError, DataError, UsageError
from initbench.probing.diagnosis import diagnose, hidden_layers
from initbench.probing.finding import AdviceCheck, Finding, Form
from initbench.probing.initial_conditions import NetMeasurement
from initbench.probing.log_slopes import finite_prefix
from initbench.probing.recurrent_gates import OVER_STEPS
from initbench.probing.residual_stream import outside_branches, residual_sums

Record = dict[str, Any]
Reader = Callable[[Record], float | None]
REFUSALS = (UsageError, ConfigError, DataError, AllocationError)
"""Errors of changes that cannot be applied to these nets."""

HEAD = "head="
"""How a change of the head is written, in configs and for modules."""

_PER_LAYER: dict[str, tuple[str, Reader, bool]] = {
    "vanishing_forward": ("signal per layer", lambda layer: layer["pre"]["signal"], False),
    "exploding_forward": ("q per layer", lambda layer: layer["pre"]["q"], False),
    "vanishing_backward": ("E[δ²] per layer", lambda layer: layer["grad"]["pre_q"], True),
    "exploding_backward": ("E[δ²] per layer", lambda layer: layer["grad"]["pre_q"], True),
}
"""By code, the statistic of the hidden layers, and whether it is followed from the last to the first."""
_PER_STEP = {
    "exploding_forward": ("E[h²] per step", "q"),
    "exploding_backward": ("E[δ²] per step", "delta"),
    "vanishing_backward": ("E[δ²] per step", "delta"),
}
_SHARES = {"dead": ("dead units", "dead_fraction"), "saturated": ("saturated", "saturated_fraction")}


@dataclass(frozen=True)
class TrialResult:
    """Measurements of nets, with the findings of their diagnosis."""

    nets: Sequence[NetMeasurement]
    levels: Mapping[str, str]
    """Levels of the findings, by code."""


def trial_result(nets: Sequence[NetMeasurement]) -> TrialResult:
    """Return the measurements of untrained nets with the findings of their diagnosis."""
    return TrialResult(nets, {code: finding.level for code, finding in findings_at_init(nets).items()})


class Trials:
    """Tries changes, given as key=value words, on nets with findings, each change once.

    Args:
        untried: The result of the nets without a change.
        attempt: A function of the words that returns the result of copies of the nets with the change. It
            raises one of REFUSALS if the change cannot be applied.
    """

    def __init__(self, untried: TrialResult, attempt: Callable[[str], TrialResult]) -> None:
        self._before, self._attempt = untried, attempt
        self._after: dict[str, TrialResult | None] = {}

    def __call__(self, code: str, words: str) -> AdviceCheck | None:
        """Return the evidence that a change cures a finding; None if it does not or cannot be applied."""
        code, over_steps, _ = code.partition(OVER_STEPS)
        after = self.harmless(words) if code in self._before.levels else None
        if after is None or code in after.levels:
            return None
        nets_before = self._before.nets
        name, form, read = _quantity(code, nets_before, over_steps=bool(over_steps))
        value, cured = read(nets_before), read(after.nets)
        if value is not None and cured is None:  # a head that starts at 0 passes no gradient back
            remaining, _, last = words.rpartition(" ")
            after = self._try(remaining) if HEAD in last else None
            cured = None if after is None or code in after.levels else read(after.nets)
            if cured is None:
                return None
        return AdviceCheck(name, value, cured, form)

    def harmless(self, words: str) -> TrialResult | None:
        """Return the result with a change; None if it cannot be applied or causes a new warning."""
        after = self._try(words)
        if after is None:
            return None
        warnings = {code for code, level in after.levels.items() if level == "warning"}
        return after if warnings <= self._before.levels.keys() else None

    def _try(self, words: str) -> TrialResult | None:
        """Return the result with a change; None if it cannot be applied."""
        if words not in self._after:
            try:
                self._after[words] = self._attempt(words)
            except REFUSALS:
                self._after[words] = None
        return self._after[words]


def nets_with_most_findings(nets: Sequence[NetMeasurement], count: int) -> list[int]:
    """Return the indices of the `count` nets with the most findings, in ascending order."""
    indices = sorted(range(len(nets)), key=lambda index: -len(findings_at_init([nets[index]])))
    return sorted(indices[:count])


def findings_at_init(nets: Sequence[NetMeasurement]) -> dict[str, Finding]:
    """Return the first finding at init of any net, by code."""
    findings: dict[str, Finding] = {}
    for net in nets:
        snapshot = {"when": "init", "step": 0, "layers": net.layers}
        for finding in diagnose([snapshot], None, None, conditions=net.condition_findings()):
            findings.setdefault(finding.code, finding)
    return findings


Quantity = tuple[str, Form, Callable[[Sequence[NetMeasurement]], float | None]]


def _quantity(code: str, nets_before: Sequence[NetMeasurement], *, over_steps: bool) -> Quantity:
    """Return the quantity that measures a finding: its name, its form, and a function that computes it."""
    if code in _SHARES:
        name, statistic = _SHARES[code]
        return name, "percent", lambda nets: _largest_share(nets, statistic)
    if code in _CONDITION_QUANTITIES:
        return _CONDITION_QUANTITIES[code]
    finding = findings_at_init(nets_before).get(code)
    layer = None if finding is None else finding.layer
    if code == "symmetric":
        return "spread over units", "number", lambda nets: _unit_spread(nets, layer)
    if over_steps:
        name, key = _PER_STEP[code]
        return (
            name,
            "factor",
            lambda nets: _mean_factor([finite_prefix(steps[key]) for steps in _steps_of(nets, layer)]),
        )
    if code not in _PER_LAYER:
        return code, "number", lambda _nets: None
    name, read, is_backward = _PER_LAYER[code]
    return name, "factor", lambda nets: _factor(nets, read, is_backward=is_backward)


def _mean_loss(nets: Sequence[NetMeasurement]) -> float | None:
    losses = [net.conditions.loss for net in nets if net.conditions.loss is not None]
    return math.fsum(losses) / len(losses) if losses else None


def _input_square(nets: Sequence[NetMeasurement]) -> float | None:
    """Return the largest mean square of a column of the first layer's input."""
    first = nets[0].conditions.first_input
    return None if first is None else max(first.q, first.column_q)


_CONDITION_QUANTITIES: dict[str, Quantity] = {
    "head_scale": ("loss before training", "number", _mean_loss),
    "input_scale": ("largest E[x²] of the input", "number", _input_square),
}
"""Quantities that measure findings about the input and the loss, by code."""


def _factor(nets: Sequence[NetMeasurement], read: Reader, *, is_backward: bool) -> float | None:
    """Return the mean factor per hidden layer, or per residual sum in a residual net."""
    rows = []
    for net in nets:
        sums = residual_sums(net.layers)
        hidden = hidden_layers(outside_branches(net.layers))
        rows.append([read(layer) for layer in (sums if len(sums) > 1 else hidden)])
    factor = _mean_factor(rows)
    return 1.0 / factor if factor is not None and is_backward else factor


def _mean_factor(rows: Sequence[Sequence[float | None]]) -> float | None:
    """Return the geometric mean of the factor between consecutive numbers of the rows."""
    logs = []
    for row in rows:
        usable = [value for value in row if value is not None and 0.0 < value < math.inf]
        if len(usable) > 1:
            logs.append(math.log(usable[-1] / usable[0]) / (len(usable) - 1))
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def _steps_of(nets: Sequence[NetMeasurement], index: int | None) -> list[Record]:
    return [
        layer["steps"] for net in nets for layer in net.layers if layer["index"] == index and "steps" in layer
    ]


def _largest_share(nets: Sequence[NetMeasurement], statistic: str) -> float:
    shares = [layer["act"].get(statistic) or 0.0 for net in nets for layer in net.layers if layer["act"]]
    return max(shares, default=0.0)


def _unit_spread(nets: Sequence[NetMeasurement], index: int | None) -> float:
    layers = [layer for net in nets for layer in net.layers if layer["index"] == index]
    spreads = [min(layer["unit_spread"], layer.get("row_spread", math.inf)) for layer in layers]
    return float(min(spreads))
