"""What theory is told of a net, and the form of what it says."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from initbench.theory.nonlinearity import Nonlinearity
from initbench.theory.preactivation import PreactivationDistribution


@dataclass(frozen=True)
class TheoryLayer:
    """A weight layer of independent weights, and the activation that its output goes into."""

    fan_in: float
    fan_out: float
    units: int
    sigma_w2: float
    """Variance of a weight times fan_in."""
    bias_variance: float = 0.0
    """Of a Gaussian bias."""
    bias_half_width: float = 0.0
    """Of a bias drawn from U(±half_width)."""
    bias_shift: float = 0.0
    """What every bias is."""
    activation: Nonlinearity | None = None
    """None for the head."""

    def law(self, second_moment: float) -> PreactivationDistribution:
        """Of the pre-activation, given the mean square of what goes in."""
        return PreactivationDistribution(
            self.sigma_w2 * second_moment + self.bias_variance, self.bias_shift, self.bias_half_width
        )

    def law_at(self, q: float) -> PreactivationDistribution:
        """Of a pre-activation with E[h²] = q, as far as the biases leave anything to the weights."""
        shared = self.bias_shift**2 + self.bias_half_width**2 / 3.0
        return PreactivationDistribution(max(q - shared, 1e-6 * q), self.bias_shift, self.bias_half_width)


@dataclass(frozen=True)
class InputStatistics:
    """The batch that goes in, the same for every net."""

    q: float
    """Mean square of its entries."""
    correlation: float
    """Mean cosine of two different inputs."""
    samples: int
    spread: float = 0.0
    """Variance over the inputs of their own mean squares, relative to q²."""
    correlation_spread: float = 0.0
    """Variance over pairs of inputs of their cosine."""


@dataclass(frozen=True)
class PredictedStatistic:
    """A predicted value, and the standard deviation over nets of what one net shows on the batch."""

    value: float
    sd: float = math.nan
    """NaN where it is not known, and then the layer is not trusted."""


@dataclass(frozen=True)
class LayerPrediction:
    """What theory says of one layer."""

    statistics: dict[str, PredictedStatistic] = field(default_factory=dict)
    """By name: q, log_q, act_mean, act_std, zero_fraction, saturated_fraction, grad_ratio. `log_q` is lower
    than the logarithm of q by half its variance; grad_ratio is E[δ²] over that of the next layer. Where the
    layer is not trusted, the values are those of infinitely wide nets."""
    trusted: bool = True
    """Whether the leading order in 1/width is known and holds here: no layer up to this one strays too far in
    one net."""
    backward_trusted: bool = True
    """Whether it holds for the grad_ratio too, which every layer up to the head has a part in."""
    wide_q: float | None = None
    """q of an infinitely wide net."""
    chi_1: float | None = None
    """σ_w² E[φ′²] with the next layer's σ_w²; None for the head."""
    chi_parallel: float | None = None
    """σ_w² ∂E[φ²]/∂K with the next layer's σ_w²: the factor of a small change of q."""
    correlation: float | None = None
    """Of two inputs' pre-activations, biases left aside."""
