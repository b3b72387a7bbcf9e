"""Whether a remedy that was tried on a copy of the net cures what was found, and the words that show it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from initbench.probing.diagnose import diagnose, hidden_layers
from initbench.probing.recurrent import OVER_STEPS
from initbench.probing.stream import outside_branches, residual_sums

Records = list[dict[str, Any]]
"""What a pass shows of every layer of one net."""

_PER_LAYER: dict[str, tuple[str, Callable[[dict[str, Any]], float | None], bool]] = {
    "vanishing_forward": ("signal per layer", lambda layer: layer["pre"]["signal"], False),
    "exploding_forward": ("q per layer", lambda layer: layer["pre"]["q"], False),
    "vanishing_backward": ("E[δ²] per layer", lambda layer: layer["grad"]["pre_q"], True),
    "exploding_backward": ("E[δ²] per layer", lambda layer: layer["grad"]["pre_q"], True),
}
"""By code, what is followed through the hidden layers, and whether from the last to the first."""
_SHARES = {"dead": ("dead units", "dead_fraction"), "saturated": ("saturated", "saturated_fraction")}


def warnings_of(nets: Sequence[Records]) -> set[str]:
    """The codes of all warnings that any of the nets, as probed, shows at init."""
    found = (diagnose([{"when": "init", "step": 0, "layers": layers}], None, None) for layers in nets)
    return {finding.code for findings in found for finding in findings if finding.level == "warning"}


def proof(code: str, before: Sequence[Records], after: Sequence[Records]) -> str | None:
    """Return "checked: …" where no net shows `code` any more, nor a warning that is new; else None."""
    code, over_steps, _ = code.partition(OVER_STEPS)
    remaining = warnings_of(after)
    if code in remaining or not remaining <= warnings_of(before):
        return None
    if code in _SHARES:
        name, statistic = _SHARES[code]
        shares = [_largest_share(nets, statistic) for nets in (before, after)]
        return f"checked: {name} {100 * shares[0]:.0f} % → {100 * shares[1]:.0f} %"
    if over_steps or code not in _PER_LAYER:
        return "checked: it is gone"
    name, read, is_backward = _PER_LAYER[code]
    factors = [_factor(nets, read, is_backward=is_backward) for nets in (before, after)]
    if None in factors:
        return "checked: it is gone"
    first, second = (_times(factor) for factor in factors if factor is not None)
    return f"checked: {name} {first} → {second}"


def _factor(
    nets: Sequence[Records], read: Callable[[dict[str, Any]], float | None], *, is_backward: bool
) -> float | None:
    """Geometric mean of what a hidden layer, or in a residual net a sum, multiplies the statistic by."""
    logs = []
    for layers in nets:
        sums = residual_sums(layers)
        hidden = hidden_layers(outside_branches(layers))
        values = [read(layer) for layer in (sums if len(sums) > 1 else hidden)]
        usable = [value for value in values if value is not None and 0.0 < value < math.inf]
        if len(usable) > 1:
            logs.append(math.log(usable[-1] / usable[0]) / (len(usable) - 1))
    if not logs:
        return None
    mean = math.fsum(logs) / len(logs)
    return math.exp(-mean if is_backward else mean)


def _times(factor: float) -> str:
    return f"×{factor:.0e}" if factor >= 1e4 or factor < 1e-2 else f"×{factor:.2f}"


def _largest_share(nets: Sequence[Records], statistic: str) -> float:
    shares = [layer["act"].get(statistic) or 0.0 for layers in nets for layer in layers if layer["act"]]
    return max(shares, default=0.0)
