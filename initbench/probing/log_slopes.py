"""Log-slopes of second moments over the layers, with the limits of float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

VANISHING_RATIO = 1e-4
"""Share of its first value below which a second moment vanishes over the hidden layers.

It explodes at the inverse. Finite width alone gives log q a variance of about 5(L−1)/n for relu (a standard
deviation of 0.86 at depth 20, width 128), and batch norm with relu increases E[δ²] by 1.47 per layer (Yang
et al. 2019). Both stay within these limits.
"""
RECURRENT_FALL = 1e-6
"""The same share for nets with recurrent layers, whose gates pass on only a part of the signal.

With torch's init, the signal falls to 7e-5 over 4 LSTM layers, which learn like a single one, and to 4e-7
over 6 layers, which learn more slowly.
"""
NORMED_GROWTH = 1e6
"""Growth of E[δ²] over residual sums above which it explodes if every branch ends in a norm.

The weights of such a branch have no scale: a step that is too large makes them longer, and thereby the next
step smaller (Arora et al. 2019). Nets of 64 units with three batch-normed layers per branch learn digits in
300 updates to a training accuracy of 0.93 to 0.97 if E[δ²] grows by 4e4 to 2e5, of 0.79 and 0.88 at 8e5 and
3e6, and of 0.50 at 3e7 (SGD at the better of two learning rates, one seed each).
"""
UNDERFLOW = 1.18e-38**2
"""Square of the smallest normal float32, below which second moments lose precision."""
ROUNDING = 1e-13
"""Share of q that float32 rounding errors can reach: ε² = 1.4e-14, times a few layers."""
_TINY = 1e-90  # the square of the smallest float32


@dataclass(frozen=True)
class LogSlope:
    """A log-slope, its threshold, and the number of layers of both."""

    value: float
    threshold: float
    layers: int


def finite_prefix(values: Sequence[float | None]) -> list[float]:
    """Return the values before the first missing or NaN one."""
    return [v for v in takewhile(lambda v: v is not None and not math.isnan(v), values) if v is not None]


def log_slope(values: Sequence[float]) -> float:
    """Return the least-squares slope of log(value) over the position; 0 for fewer than two values.

    Zeros count as the smallest square that float32 can represent. An infinite value makes the slope infinite.
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


def explosion_slope(values: Sequence[float], limit: float = 1 / VANISHING_RATIO) -> LogSlope | None:
    """Return the log-slope if it increases the values beyond `limit` times the first, else None."""
    if len(values) < 2:
        return None
    slope, threshold = log_slope(values), math.log(limit) / (len(values) - 1)
    return LogSlope(slope, threshold, len(values)) if slope >= threshold else None


def vanishing_slope(
    values: Sequence[float], floors: Sequence[float], *, full: float = 0.0, share: float = VANISHING_RATIO
) -> LogSlope | None:
    """Return the log-slope if it decreases the values below `share` of the first or to the floor, else None.

    Args:
        values: Second moments in the order of the layers. Values after the first one at its floor are
            rounding errors and are ignored.
        floors: For each value, the smallest one that float32 can distinguish from 0.
        full: The size of a first value that has lost nothing. If the values start at the floor and `full` is
            above it, the signal is already lost; otherwise there was none.
        share: The share of the first value below which the values vanish.
    """
    above = sum(1 for _ in takewhile(lambda pair: pair[0] > pair[1], zip(values, floors, strict=True)))
    if above == len(values):
        return _reached(values, share)
    if above == 0:
        return LogSlope(math.log(floors[0] / full), math.log(share), 1) if full > floors[0] else None
    fitted = _reached(values[:above], share)
    # A sudden fall below the floor is at least as steep as the slope down to the floor.
    return fitted or _steepness([*values[:above], max(values[above], floors[above])], share)


def _reached(values: Sequence[float], share: float) -> LogSlope | None:
    if len(values) < 2:
        return None
    slope, threshold = log_slope(values), math.log(share) / (len(values) - 1)
    return LogSlope(slope, threshold, len(values)) if slope <= threshold else None


def _steepness(values: Sequence[float], share: float) -> LogSlope:
    """Return the log-slope of a straight line from the first value to the last."""
    steps = len(values) - 1
    return LogSlope(math.log(values[-1] / values[0]) / steps, math.log(share) / steps, len(values))


def float32_floor(q: float) -> float:
    """Return the smallest variance that float32 can distinguish from 0 in a layer with E[h²] = q."""
    return max(ROUNDING * q, UNDERFLOW)
