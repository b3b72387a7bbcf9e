"""One layer of the walk through a stack: its law, its expectations, and how nets of finite width scatter."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from initbench.theory.expectations import Covariances, Expectations, SelfAndCross
from initbench.theory.preactivation import PreactivationDistribution
from initbench.theory.types import PredictedStatistic, TheoryLayer

_ROUNDING = 1e-15
"""Of a quadrature, relative: a mean below it is that of an odd function."""


@dataclass(frozen=True)
class LayerStep:
    """A layer, what is known of its pre-activations, and of their expected second moment K over nets."""

    layer: TheoryLayer
    following: TheoryLayer | None
    law: PreactivationDistribution
    expected: Expectations
    correlation: float
    """Of two inputs' pre-activations, biases left aside."""
    covariances: Covariances
    v: SelfAndCross
    """Cov(K(x_a), K(x_b)) over nets, and over the inputs of the batch."""
    shift: float
    """What curvature adds to the mean of K."""
    samples: int
    wide: bool = False
    """Whether the curvature of expectations is left aside."""

    def average(self, pair: SelfAndCross) -> float:
        """Mean over all pairs of inputs of the batch."""
        return pair[0] / self.samples + pair[1] * (1.0 - 1.0 / self.samples)

    def variance(self, scatter: SelfAndCross, slope: float) -> float:
        """Var of a batch's mean of ψ, given Cov(ψ_a, ψ_b) and ∂E[ψ]/∂K."""
        same, cross = (s / self.layer.units + slope**2 * v for s, v in zip(scatter, self.v, strict=True))
        return max(0.0, self.average((same, cross)))

    def corrected_mean(self, name: str) -> float:
        """E[f] over nets: with what a shift and a scatter of K add to it."""
        e = self.expected
        if self.wide:
            return e.mean[name]
        return e.mean[name] + e.slope[name] * self.shift + 0.5 * e.curve[name] * self.v[0]

    def infinite_width(self) -> LayerStep:
        """The same without what finite width does to the mean of K."""
        return replace(self, shift=0.0, wide=True)

    @property
    def relative_spread(self) -> float:
        """Standard deviation of one net's K, or twice what that adds to its mean, relative to q."""
        q = self.law.second_moment
        return max(math.sqrt(max(0.0, self.v[0])), 2.0 * abs(self.shift)) / q

    @property
    def next_covariance(self) -> SelfAndCross:
        """Cov(K(x_a), K(x_b)) of the next layer."""
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
        """What curvature adds to the mean of the next layer's K."""
        assert self.following is not None
        return self.following.sigma_w2 * (self.corrected_mean("act2") - self.expected.mean["act2"])


def forward_statistics(step: LayerStep) -> dict[str, PredictedStatistic]:
    """Those of the pre-activation, and of what the activation puts out, if one follows."""
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
        elif sd <= std / 2:  # beyond that the delta method says nothing
            predicted["act_std"] = PredictedStatistic(std - sd**2 / (2 * std), sd)
    return predicted


class BackwardState(NamedTuple):
    """What the layers above hand down."""

    correlation2: float
    """Mean square of the correlation of two samples' δ."""
    tilt: float
    """∂ ln E[δ²]/∂K: how the gradient of an input depends on that input's own signal."""
    aligned: float
    """E[(g·δ)²]/(E[g²]‖δ‖²) for g, the part of h that is not bias; 1 where it has nothing to do with δ."""


def at_the_head(classes: int, q: float) -> BackwardState:
    """For the cross-entropy of random labels and logits of that second moment.

    Two samples' p − y correlate by 1 if they share a label, else by −1/(classes − 1). Logits lean towards
    their own p by q to first order, and by no more than about 1 where the softmax saturates.
    """
    return BackwardState(1.0 / max(1, classes - 1), 0.0, 1.0 + q / (1.0 + q))


def gradient_ratio(step: LayerStep, above: BackwardState) -> tuple[PredictedStatistic, BackwardState]:
    """E[δ²] of the layer over the next one's: (fan_out/fan_in)·σ_w² of the next layer, times E[φ′²].

    The weights on the way back count as independent of those on the way forward (Schoenholz et al. 2017),
    except in the one direction that the forward pass has seen, φ(h): a share 1/units of them.
    Inputs with more signal than others may have more gradient as well, and weigh more in the batch.
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
    if step.wide:  # what finite width adds is not to be trusted, here or handed down
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
