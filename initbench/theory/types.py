"""Inputs and results of the theory: a net's layers and its batch, and predictions with their bands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from initbench.theory.nonlinearity import Nonlinearity
from initbench.theory.preactivation import PreactivationDistribution

BAND_SIGMAS = 3.0
"""Half the width of a prediction band, in standard errors: 1 layer in 370 of a correct net lies outside."""


@dataclass(frozen=True)
class TheoryLayer:
    """A weight layer with independent weights, and the activation that follows it."""

    fan_in: float
    fan_out: float
    units: int
    sigma_w2: float
    """Variance of a weight times fan_in."""
    bias_variance: float = 0.0
    """Variance of a Gaussian bias."""
    bias_half_width: float = 0.0
    """Half-width of a bias drawn from U(±half_width)."""
    bias_shift: float = 0.0
    """Constant that is added to every bias."""
    activation: Nonlinearity | None = None
    """None for the head."""

    def law(self, second_moment: float) -> PreactivationDistribution:
        """Return the distribution of the pre-activation, given the mean square of the layer's input."""
        return PreactivationDistribution(
            self.sigma_w2 * second_moment + self.bias_variance, self.bias_shift, self.bias_half_width
        )

    def law_at(self, q: float) -> PreactivationDistribution:
        """Return the distribution with E[h²] = q.

        The variance is at least 1e-6·q, even if the biases alone account for more than q.
        """
        shared = self.bias_shift**2 + self.bias_half_width**2 / 3.0
        return PreactivationDistribution(max(q - shared, 1e-6 * q), self.bias_shift, self.bias_half_width)


@dataclass(frozen=True)
class InputStatistics:
    """Statistics of the input batch, which is the same for every net."""

    q: float
    """Mean square of its entries."""
    correlation: float
    """Mean cosine of two different inputs."""
    samples: int
    spread: float = 0.0
    """Variance over the inputs of each input's mean square, relative to q²."""
    correlation_spread: float = 0.0
    """Variance of the cosine over pairs of inputs."""


@dataclass(frozen=True)
class PredictedStatistic:
    """A predicted value, and the standard deviation over nets of the statistic on the batch."""

    value: float
    sd: float = math.nan
    """NaN if unknown; the layer is then not trusted."""


@dataclass(frozen=True)
class LayerPrediction:
    """Predictions for one layer."""

    statistics: dict[str, PredictedStatistic] = field(default_factory=dict)
    """Statistics by name: q, log_q, act_mean, act_std, zero_fraction, saturated_fraction, grad_ratio.

    `log_q` is lower than the logarithm of q by half its variance. `grad_ratio` is E[δ²] divided by E[δ²] of
    the next layer. If the layer is not trusted, the values are those of infinitely wide nets."""
    trusted: bool = True
    """Whether the leading order in 1/width is known and accurate: up to this layer, no layer's statistics
    vary too much between nets."""
    backward_trusted: bool = True
    """Whether the same is true of grad_ratio, which depends on all layers, up to the head."""
    wide_q: float | None = None
    """q in an infinitely wide net."""
    chi_1: float | None = None
    """σ_w² E[φ′²] with the next layer's σ_w²; None for the head."""
    chi_parallel: float | None = None
    """σ_w² ∂E[φ²]/∂K with the next layer's σ_w²: the factor of a small change of q."""
    correlation: float | None = None
    """Correlation of two inputs' pre-activations, without biases."""


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
