"""Whether a change that was tried on nets cures what was found in them, and the numbers that show it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from initbench.errors import AllocationError, ConfigError, DataError, UsageError
from initbench.probing.diagnosis import diagnose, hidden_layers
from initbench.probing.finding import Checked, Finding, Form
from initbench.probing.log_slopes import finite_prefix
from initbench.probing.recurrent_gates import OVER_STEPS
from initbench.probing.residual_stream import outside_branches, residual_sums
from initbench.probing.training_conditions import Shown

Record = dict[str, Any]
Reader = Callable[[Record], float | None]
REFUSALS = (UsageError, ConfigError, DataError, AllocationError)
"""Errors that say that a change cannot be made to these nets."""

HEAD = "head="
"""How a change of the head is written, in configs and for modules."""

_PER_LAYER: dict[str, tuple[str, Reader, bool]] = {
    "vanishing_forward": ("signal per layer", lambda layer: layer["pre"]["signal"], False),
    "exploding_forward": ("q per layer", lambda layer: layer["pre"]["q"], False),
    "vanishing_backward": ("E[δ²] per layer", lambda layer: layer["grad"]["pre_q"], True),
    "exploding_backward": ("E[δ²] per layer", lambda layer: layer["grad"]["pre_q"], True),
}
"""By code, what is followed through the hidden layers, and whether from the last to the first."""
_PER_STEP = {
    "exploding_forward": ("E[h²] per step", "q"),
    "exploding_backward": ("E[δ²] per step", "delta"),
    "vanishing_backward": ("E[δ²] per step", "delta"),
}
_SHARES = {"dead": ("dead units", "dead_fraction"), "saturated": ("saturated", "saturated_fraction")}


@dataclass(frozen=True)
class TrialResult:
    """What nets have shown, and what is found in it."""

    shown: Sequence[Shown]
    levels: Mapping[str, str]
    """By code of a finding, its level."""


def trial_result(nets: Sequence[Shown]) -> TrialResult:
    """Return what a diagnosis finds in untrained nets."""
    return TrialResult(nets, {code: finding.level for code, finding in _findings_of(nets).items()})


class Trials:
    """Tries changes, in key=value words, on nets in which `before` was found; each change once.

    attempt(words): what copies of the nets show with the change; raises one of REFUSALS where it cannot be
    made.
    """

    def __init__(self, before: TrialResult, attempt: Callable[[str], TrialResult]) -> None:
        self._before, self._attempt = before, attempt
        self._after: dict[str, TrialResult | None] = {}

    def __call__(self, code: str, words: str) -> Checked | None:
        """Return what shows that `words` cure the finding; None where they do not, or cannot be tried."""
        code, over_steps, _ = code.partition(OVER_STEPS)
        after = self.harmless(words) if code in self._before.levels else None
        if after is None or code in after.levels:
            return None
        before = self._before.shown
        name, form, read = _quantity(code, before, over_steps=bool(over_steps))
        value, cured = read(before), read(after.shown)
        if value is not None and cured is None:  # a head that starts at 0 passes no gradient back
            remaining, _, last = words.rpartition(" ")
            after = self._try(remaining) if HEAD in last else None
            cured = None if after is None or code in after.levels else read(after.shown)
            if cured is None:
                return None
        return Checked(name, value, cured, form)

    def harmless(self, words: str) -> TrialResult | None:
        """Return what nets with the change show; None where it cannot be made, or brings a new warning."""
        after = self._try(words)
        if after is None:
            return None
        warnings = {code for code, level in after.levels.items() if level == "warning"}
        return after if warnings <= self._before.levels.keys() else None

    def _try(self, words: str) -> TrialResult | None:
        """Return what nets with the change show; None if the change cannot be made."""
        if words not in self._after:
            try:
                self._after[words] = self._attempt(words)
            except REFUSALS:
                self._after[words] = None
        return self._after[words]


def most_telling(nets: Sequence[Shown], count: int) -> list[int]:
    """Return the places of `count` nets: those with the most findings, in the order of the nets."""
    places = sorted(range(len(nets)), key=lambda place: -len(_findings_of([nets[place]])))
    return sorted(places[:count])


def _findings_of(nets: Sequence[Shown]) -> dict[str, Finding]:
    """Return by code the first finding at init of any of the nets."""
    found: dict[str, Finding] = {}
    for net in nets:
        snapshot = {"when": "init", "step": 0, "layers": net.layers}
        for finding in diagnose([snapshot], None, None, conditions=net.conditions_found()):
            found.setdefault(finding.code, finding)
    return found


Quantity = tuple[str, Form, Callable[[Sequence[Shown]], float | None]]


def _quantity(code: str, before: Sequence[Shown], *, over_steps: bool) -> Quantity:
    """Return the number that stands for a finding: its name, its form, and how it is read off nets."""
    if code in _SHARES:
        name, statistic = _SHARES[code]
        return name, "percent", lambda nets: _largest_share(nets, statistic)
    if code in _BESIDE:
        return _BESIDE[code]
    finding = _findings_of(before).get(code)
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


def _mean_loss(nets: Sequence[Shown]) -> float | None:
    losses = [net.conditions.loss for net in nets if net.conditions.loss is not None]
    return math.fsum(losses) / len(losses) if losses else None


def _input_square(nets: Sequence[Shown]) -> float | None:
    """Return the largest mean square of a column of what the first layer is given."""
    first = nets[0].conditions.first_input
    return None if first is None else max(first.q, first.column_q)


_BESIDE: dict[str, Quantity] = {
    "head_scale": ("loss before training", "number", _mean_loss),
    "input_scale": ("largest E[x²] of the input", "number", _input_square),
}
"""By code, the number that stands for what is found beside the layers."""


def _factor(nets: Sequence[Shown], read: Reader, *, is_backward: bool) -> float | None:
    """Return the mean factor of a hidden layer, or in a residual net of a sum."""
    rows = []
    for net in nets:
        sums = residual_sums(net.layers)
        hidden = hidden_layers(outside_branches(net.layers))
        rows.append([read(layer) for layer in (sums if len(sums) > 1 else hidden)])
    factor = _mean_factor(rows)
    return 1.0 / factor if factor is not None and is_backward else factor


def _mean_factor(rows: Sequence[Sequence[float | None]]) -> float | None:
    """Return the geometric mean of the factor from one number of a row to the next."""
    logs = []
    for row in rows:
        usable = [value for value in row if value is not None and 0.0 < value < math.inf]
        if len(usable) > 1:
            logs.append(math.log(usable[-1] / usable[0]) / (len(usable) - 1))
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def _steps_of(nets: Sequence[Shown], index: int | None) -> list[Record]:
    return [
        layer["steps"] for net in nets for layer in net.layers if layer["index"] == index and "steps" in layer
    ]


def _largest_share(nets: Sequence[Shown], statistic: str) -> float:
    shares = [layer["act"].get(statistic) or 0.0 for net in nets for layer in net.layers if layer["act"]]
    return max(shares, default=0.0)


def _unit_spread(nets: Sequence[Shown], index: int | None) -> float:
    found = [layer for net in nets for layer in net.layers if layer["index"] == index]
    spreads = [min(layer["unit_spread"], layer.get("row_spread", math.inf)) for layer in found]
    return float(min(spreads))
