"""Where the mean over a few nets should lie, and when that can be said."""

from __future__ import annotations

import math

from initbench.theory.types import PredictedStatistic

SIGMAS = 3.0
"""Half the width of a band, in standard errors: 1 layer in 370 of a correct net lies outside."""


def q_band(q: PredictedStatistic, nets: int) -> tuple[float, float]:
    """Band of the mean over so many nets of a positive statistic whose logarithm is close to Gaussian.

    The mean of the logarithm of a positive variable is lower than that of its mean by half its variance.
    """
    variance = math.log1p(math.expm1((q.sd / q.value) ** 2) / nets)
    centre, reach = math.log(q.value) - 0.5 * variance, SIGMAS * math.sqrt(variance)
    return math.exp(centre - reach), math.exp(centre + reach)


def band(statistic: PredictedStatistic, nets: int) -> tuple[float, float]:
    """Band of the mean over so many nets of a statistic that is close to Gaussian."""
    reach = SIGMAS * statistic.sd / math.sqrt(nets)
    return statistic.value - reach, statistic.value + reach
