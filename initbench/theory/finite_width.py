"""Finite-width theory of one layer in a stack: its statistics and their standard deviation over nets."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from initbench.theory.bands import PredictedStatistic
from initbench.theory.expectations import Covariances, Expectations, SelfAndCross
from initbench.theory.preactivation import PreactivationDistribution
from initbench.theory.types import TheoryLayer

_ROUNDING = 1e-15
"""Relative rounding error of quadrature: smaller means count as 0, as those of odd functions are."""


@dataclass(frozen=True)
class LayerStep:
    """A layer, its pre-activations, and the distribution of their expected second moment K over nets."""

    layer: TheoryLayer
    following: TheoryLayer | None
    law: PreactivationDistribution
    expected: Expectations
    correlation: float
    """Correlation of two inputs' pre-activations, without biases."""
    covariances: Covariances
    v: SelfAndCross
    """Cov(K(x_a), K(x_b)) over nets and over the inputs of the batch."""
    shift: float
    """Change of the mean of K due to curvature of the length map."""
    samples: int
    wide: bool = False
    """Whether to ignore the effects of finite width on means."""

    def average(self, pair: SelfAndCross) -> float:
        """Return the mean over all pairs of inputs of the batch."""
        return pair[0] / self.samples + pair[1] * (1.0 - 1.0 / self.samples)

    def variance(self, scatter: SelfAndCross, slope: float) -> float:
        """Return the variance of a batch's mean of ψ, given Cov(ψ_a, ψ_b) and ∂E[ψ]/∂K."""
        same, cross = (s / self.layer.units + slope**2 * v for s, v in zip(scatter, self.v, strict=True))
        return max(0.0, self.average((same, cross)))

    def corrected_mean(self, name: str) -> float:
        """Return E[f] over nets, corrected for the shift and the variance of K."""
        e = self.expected
        if self.wide:
            return e.mean[name]
        return e.mean[name] + e.slope[name] * self.shift + 0.5 * e.curve[name] * self.v[0]

    def infinite_width(self) -> LayerStep:
        """Return this step without the effects of finite width on means."""
        return replace(self, shift=0.0, wide=True)

    @property
    def relative_spread(self) -> float:
        """Standard deviation of K over nets or, if larger, twice the shift of its mean; relative to q."""
        q = self.law.second_moment
        return max(math.sqrt(max(0.0, self.v[0])), 2.0 * abs(self.shift)) / q

    @property
    def next_covariance(self) -> SelfAndCross:
        """Cov(K(x_a), K(x_b)) in the next layer."""
        assert self.following is not None
        factor = self.following.sigma_w2
        chi_parallel = factor * self.expected.slope["act2"]
        same, cross = (
            chi_parallel**2 * old + factor**2 * drawn / self.layer.units
            for old, drawn in zip(self.v, self.covariances.between("act2", "act2"), strict=True)
        )
        return same, cross

    @property
    def shift_next(self) -> float:
        """Change of the mean of the next layer's K due to curvature."""
        assert self.following is not None
        return self.following.sigma_w2 * (self.corrected_mean("act2") - self.expected.mean["act2"])


def forward_statistics(step: LayerStep) -> dict[str, PredictedStatistic]:
    """Return the predicted statistics of the pre-activation and, if an activation follows, of its output."""
    q = step.law.second_moment
    mean = q + step.shift
    sd = math.sqrt(step.variance(step.covariances.between("h2", "h2"), 1.0))
    predicted = {"q": PredictedStatistic(mean, sd)}
    if mean > 0.0:
        predicted["log_q"] = PredictedStatistic(math.log(mean) - 0.5 * (sd / mean) ** 2, sd / mean)
    return predicted if step.layer.activation is None else predicted | _of_activation(step)


def _of_activation(step: LayerStep) -> dict[str, PredictedStatistic]:
    slope, cov = step.expected.slope, step.covariances
    activation = step.layer.activation
    assert activation is not None

    def simple(name: str) -> PredictedStatistic:
        value = step.corrected_mean(name)
        exact = 0.0 if abs(value) < _ROUNDING * scale else value
        return PredictedStatistic(exact, math.sqrt(step.variance(cov.between(name, name), slope[name])))

    scale = max(1.0, math.sqrt(step.expected.mean["act2"]))

    predicted = {"act_mean": simple("act"), "zero_fraction": simple("zero")}
    if activation.flat_below is not None:
        predicted["saturated_fraction"] = simple("flat")
    m, square = predicted["act_mean"].value, step.corrected_mean("act2")
    if square > m * m:  # by the delta method, with ψ = (φ² − 2mφ)/(2·std)
        std = math.sqrt(square - m * m)
        parts = zip(
            cov.between("act2", "act2"), cov.between("act", "act2"), cov.between("act", "act"), strict=True
        )
        same, cross = ((aa - 4 * m * am + 4 * m * m * mm) / (4 * std**2) for aa, am, mm in parts)
        tilt = (slope["act2"] - 2 * m * slope["act"]) / (2 * std)
        sd = math.sqrt(step.variance((same, cross), tilt))
        if step.wide:
            predicted["act_std"] = PredictedStatistic(std, sd)
        elif sd <= std / 2:  # above that, the delta method is invalid
            predicted["act_std"] = PredictedStatistic(std - sd**2 / (2 * std), sd)
    return predicted


class BackwardState(NamedTuple):
    """Statistics of the gradient that are passed from a layer to the one below."""

    correlation2: float
    """Mean square of the correlation of two samples' δ."""
    tilt: float
    """∂ ln E[δ²]/∂K: dependence of an input's gradient on the size of its own signal."""
    aligned: float
    """E[(g·δ)²]/(E[g²]‖δ‖²), g being h without the bias; 1 if g and δ are independent."""


def at_the_head(classes: int, q: float) -> BackwardState:
    """Return the state at the logits, for cross-entropy with random labels and logits of second moment q.

    Two samples' p − y have the correlation 1 if they share a label, else −1/(classes − 1). The alignment of
    logits with their own p is q to first order, and at most about 1 if the softmax saturates.
    """
    return BackwardState(1.0 / max(1, classes - 1), 0.0, 1.0 + q / (1.0 + q))


def gradient_ratio(step: LayerStep, above: BackwardState) -> tuple[PredictedStatistic, BackwardState]:
    """Return E[δ²] divided by E[δ²] of the next layer, and the state to pass to the layer below.

    The ratio is (fan_out/fan_in)·σ_w² of the next layer, times E[φ′²]. The weights of the backward pass count
    as independent of those of the forward pass (Schoenholz et al. 2017), except in one direction, φ(h), which
    the forward pass uses: a fraction 1/units of them. Inputs with a larger signal may also have a larger
    gradient and then contribute more to the batch mean.
    """
    following, cov, mean, slope = step.following, step.covariances, step.expected.mean, step.expected.slope
    assert following is not None
    if mean["slope2"] ** 2 <= 0.0 or mean["act2"] <= 0.0:
        return PredictedStatistic(0.0, 0.0), BackwardState(0.0, 0.0, 1.0)
    factor, square = following.sigma_w2, mean["slope2"] ** 2
    tilt, units = slope["slope2"] / mean["slope2"], step.layer.units
    slope_variance = 3.0 * cov.same["slope2", "slope2"] / square - 1.0
    other = (1.0 + 2.0 * above.correlation2) * cov.other["slope2", "slope2"] / square - 1.0
    together = cov.between("act2", "slope2")
    drawn = factor * (together[0] - together[1]) / (mean["slope2"] * units)
    passed = factor * slope["act2"] * above.tilt
    weighed = (tilt * passed * (step.v[0] - step.v[1]) + drawn * above.tilt) * (1.0 - 1.0 / step.samples)
    shared_term = cov.same["act2", "slope2"] / (mean["act2"] * mean["slope2"] * units) * (above.aligned - 1.0)
    through = step.corrected_mean("slope2") + mean["slope2"] * (weighed + shared_term)
    if step.wide:  # finite-width corrections are not trusted, neither here nor in the layers below
        through = mean["slope2"]
    value = following.fan_out / following.fan_in * factor * through
    alike = cov.other["slope", "slope"] / mean["slope2"]
    chance = cov.other["slope2", "slope2"] / (square * units)
    weighted = step.law.variance - step.layer.bias_variance
    coherent = weighted * slope["act2"] ** 2 / (mean["act2"] * mean["slope2"])
    below = BackwardState(
        alike**2 * above.correlation2 + chance,
        tilt + passed,
        1.0 + 2.0 * weighted * tilt + coherent * (above.aligned - 1.0),
    )
    if step.wide:
        below = below._replace(tilt=0.0, aligned=1.0)
    return PredictedStatistic(value, value * math.sqrt(step.variance((slope_variance, other), tilt))), below
