"""Bands in which the mean of a statistic over a few nets should lie."""

from __future__ import annotations

import math

from initbench.theory.types import PredictedStatistic

SIGMAS = 3.0
"""Half the width of a band, in standard errors: 1 layer in 370 of a correct net lies outside."""


def q_band(q: PredictedStatistic, nets: int) -> tuple[float, float]:
    """Return the band of the mean over `nets` nets, for a positive statistic that is nearly log-normal.

    The mean of the logarithm is lower than the logarithm of the mean by half the logarithm's variance.
    """
    variance = math.log1p(math.expm1((q.sd / q.value) ** 2) / nets)
    centre, reach = math.log(q.value) - 0.5 * variance, SIGMAS * math.sqrt(variance)
    return math.exp(centre - reach), math.exp(centre + reach)


def band(statistic: PredictedStatistic, nets: int) -> tuple[float, float]:
    """Return the band of the mean over `nets` nets, for a statistic that is nearly Gaussian."""
    reach = SIGMAS * statistic.sd / math.sqrt(nets)
    return statistic.value - reach, statistic.value + reach
