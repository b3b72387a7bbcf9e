"""Predicted statistics, the bands of their means, and the form in which runs store them; without torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

BAND_SIGMAS = 3.0
"""Half the width of a prediction band, in standard errors: 1 layer in 370 of a correct net lies outside."""
STATISTICS = ("q", "act_mean", "act_std", "zero_fraction", "saturated_fraction", "grad_ratio")
"""Names of the predicted statistics of a layer that are shown and stored."""


@dataclass(frozen=True)
class PredictedStatistic:
    """A predicted value, and the standard deviation over nets of the statistic on the batch."""

    value: float
    sd: float = math.nan
    """NaN if unknown; the layer is then not trusted."""


def q_band(q: PredictedStatistic, nets: int) -> tuple[float, float]:
    """Return the band of the mean over `nets` nets, for a positive statistic that is nearly log-normal.

    The mean of the logarithm is lower than the logarithm of the mean by half the logarithm's variance.
    """
    variance = math.log1p(math.expm1((q.sd / q.value) ** 2) / nets)
    centre, reach = math.log(q.value) - 0.5 * variance, BAND_SIGMAS * math.sqrt(variance)
    return math.exp(centre - reach), math.exp(centre + reach)


def gaussian_band(statistic: PredictedStatistic, nets: int) -> tuple[float, float]:
    """Return the band of the mean over `nets` nets, for a statistic that is nearly Gaussian."""
    reach = BAND_SIGMAS * statistic.sd / math.sqrt(nets)
    return statistic.value - reach, statistic.value + reach


def band_of(name: str, statistic: PredictedStatistic, nets: int) -> tuple[float, float]:
    """Return the band of the mean over `nets` nets of the trusted statistic called `name`."""
    return q_band(statistic, nets) if name == "q" else gaussian_band(statistic, nets)


def statistic_record(statistic: PredictedStatistic, *, trusted: bool) -> dict[str, Any]:
    """Return the statistic as plain data: {"value", "sd", "trusted"}; `sd` is None if it is unknown."""
    return {
        "value": statistic.value,
        "sd": None if math.isnan(statistic.sd) else statistic.sd,
        "trusted": trusted,
    }


def recorded_value(theory: Mapping[str, Any] | None, name: str) -> float | None:
    """Return a value in the theory of a layer's record; None without a finite one."""
    return _finite(((theory or {}).get(name) or {}).get("value"))


def recorded_band(theory: Mapping[str, Any] | None, name: str, nets: int) -> tuple[float, float] | None:
    """Return the band of a statistic from the theory of a layer's record.

    Args:
        theory: Records of `statistic_record` by the names in STATISTICS, or None for a layer without any.
        name: One of STATISTICS.
        nets: Number of nets whose mean the band is for.

    Returns:
        The band; None if there is no prediction, or none that is trusted.
    """
    value, record = recorded_value(theory, name), (theory or {}).get(name) or {}
    sd = _finite(record.get("sd"))
    if value is None or sd is None or not record.get("trusted"):
        return None
    return band_of(name, PredictedStatistic(value, sd), nets)


def recorded_distribution(theory: Mapping[str, Any] | None) -> Callable[[float], float] | None:
    """Return the distribution function of the pre-activation from the theory of a layer's record.

    It is that of a Gaussian plus, if the record has `bias`, of the constant and the uniform bias. Its second
    moment is the predicted q.

    Returns:
        x → P(h < x); None without a positive predicted q.
    """
    q, bias = recorded_value(theory, "q"), (theory or {}).get("bias") or {}
    if not q or q < 0.0:
        return None
    shift, half_width = float(bias.get("shift", 0.0)), float(bias.get("half_width", 0.0))
    std = math.sqrt(max(q - shift**2 - half_width**2 / 3.0, 1e-6 * q))

    def of_sum(x: float) -> float:
        low, high = (x - shift - half_width) / std, (x - shift + half_width) / std
        return std * (_integrated_normal(high) - _integrated_normal(low)) / (2.0 * half_width)

    return of_sum if half_width > 1e-3 * std else lambda x: _normal((x - shift) / std)


def _normal(z: float) -> float:
    """Return P(Z < z) of a standard normal Z."""
    return 0.5 * (1.0 + math.erf(z / math.sqrt(2.0)))


def _integrated_normal(z: float) -> float:
    """Return the integral of `_normal` up to z."""
    return z * _normal(z) + math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def _finite(value: Any) -> float | None:
    """Return a number of a record; None for null, and for numbers that are not finite, stored as text."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
