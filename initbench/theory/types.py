"""Inputs and results of the theory: a net's layers and its batch, and the predictions for each layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from initbench.theory.bands import STATISTICS, PredictedStatistic, band_of, statistic_record
from initbench.theory.nonlinearity import Nonlinearity
from initbench.theory.preactivation import PreactivationDistribution


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
    bias_shift: float = 0.0
    """Constant in the pre-activation, whose other parts are a Gaussian and U(±bias_half_width)."""
    bias_half_width: float = 0.0

    def is_trusted(self, name: str) -> bool:
        """Return whether the standard deviation of a statistic is known and accurate."""
        return self.trusted and (self.backward_trusted or name != "grad_ratio")

    def band(self, name: str, nets: int) -> tuple[float, float] | None:
        """Return the band of the mean of a statistic over `nets` nets; None if it is not trusted."""
        if name not in self.statistics or not self.is_trusted(name):
            return None
        return band_of(name, self.statistics[name], nets)

    def as_data(self) -> dict[str, Any]:
        """Return the predicted STATISTICS in the form that runs store, empty without a prediction.

        If a bias makes the pre-activation other than a Gaussian around 0, the key `bias` describes it.
        """
        theory = {
            name: statistic_record(self.statistics[name], trusted=self.is_trusted(name))
            for name in STATISTICS
            if name in self.statistics
        }
        if theory and (self.bias_shift or self.bias_half_width):
            theory["bias"] = {"shift": self.bias_shift, "half_width": self.bias_half_width}
        return theory
