"""The expectations of one layer that the next one, and its statistics, are made of."""

from __future__ import annotations

from dataclasses import dataclass

from initbench.theory.nonlinearity import Nonlinearity
from initbench.theory.pair_expectations import Products, difference, pair_expectations
from initbench.theory.preactivation import PreactivationDistribution, evaluate_moments, quadrature_nodes

SelfAndCross = tuple[float, float]
"""A value for one input with itself, and for two different inputs."""

LINEAR = Nonlinearity(lambda h: h, lambda h: h * 0.0 + 1.0)
_SAME_Q, _SAME_C = 1e-3, 1e-3
_SAME_GAP, _LEAST_GAP = 0.2, 1e-5
"""1 − c may change by that share of itself, or by that much, before covariances are computed anew."""


@dataclass(frozen=True)
class Expectations:
    """E[f(h)] with its first two derivatives in the variance, by the names of `law.values_at`."""

    mean: dict[str, float]
    slope: dict[str, float]
    curve: dict[str, float]


def expectations(activation: Nonlinearity, law: PreactivationDistribution) -> Expectations:
    """Those of a pre-activation of that law, whose variance is positive."""
    nodes = quadrature_nodes(law, activation.breaks)
    values = evaluate_moments(activation, nodes.h)
    return Expectations(
        mean={name: nodes.mean(value) for name, value in values.items()},
        slope={name: nodes.slope(value, law.variance) for name, value in values.items()},
        curve={name: nodes.curve(value, law.variance) for name, value in values.items()},
    )


@dataclass(frozen=True)
class Covariances:
    """Cov(f(h_a), g(h_b)) of one law, for one input and for two; pairs of two differ in their correlation."""

    law: PreactivationDistribution
    correlation: float
    chance: float
    """Variance of the correlation over pairs of inputs."""
    mean: dict[str, float]
    same: Products
    other: Products

    def between(self, f: str, g: str) -> SelfAndCross:
        """Cov(f(h_a), g(h_b))."""
        means = self.mean[f] * self.mean[g]
        return self.same[f, g] - means, self.other[f, g] - means

    def is_close_enough(self, law: PreactivationDistribution, correlation: float, chance: float) -> bool:
        """Whether those of that law are the same, as far as standard deviations need it."""
        alike = abs(law.second_moment / self.law.second_moment - 1.0) < _SAME_Q
        gap = 1.0 - max(correlation, self.correlation)
        near = min(_SAME_C, max(_SAME_GAP * gap, _LEAST_GAP))
        return alike and abs(correlation - self.correlation) + abs(chance - self.chance) < near

    def drawn_chance(self, units: int) -> float:
        """Return the variance over pairs of the correlation of so many units' activations, means included."""
        square, other = self.mean["act2"], self.other
        if square**2 == 0.0:  # nothing is left that floating point could tell
            return 0.0
        c = other["act", "act"] / square
        product = other["act2", "act2"] - other["act", "act"] ** 2
        mixed = other["act3", "act"] - other["act", "act"] * square
        norms = self.same["act2", "act2"] + other["act2", "act2"] - 2.0 * square**2
        return max(0.0, product - 2.0 * c * mixed + 0.5 * c * c * norms) / (square**2 * units)


@dataclass(frozen=True)
class Correlation:
    """The correlation of two inputs' pre-activations, biases left aside, over pairs of inputs."""

    mean: float
    chance: float
    """Its variance over pairs."""


def next_correlation(
    activation: Nonlinearity,
    law: PreactivationDistribution,
    expected: Expectations,
    now: Correlation,
    drawn: float,
    following: tuple[float, float],
) -> Correlation:
    """Return that of the next layer (Poole et al. 2016), computed anew at every layer.

    A step of the map may be small: 1 − c of relu falls by 2/l of itself at layer l. A map that skips steps
    below some size stops there, so nothing is taken over from the layer below.

    Args:
        activation: What the pre-activations go into.
        law: Theirs.
        expected: Expectations under that law.
        now: Their correlation.
        drawn: What the layer's finite number of units adds to its variance (`Covariances.drawn_chance`).
        following: σ_w² of the next layer and the variance of its Gaussian bias.
    """
    sigma_w2, bias_variance = following
    square = expected.mean["act2"]
    whole = sigma_w2 * square + bias_variance
    if whole <= 0.0:
        return Correlation(1.0, 0.0)
    deviation = now.chance**0.5
    ends = [now.mean] if deviation == 0.0 else [now.mean - deviation, now.mean + deviation]
    differences = [difference(activation, law, c) for c in ends]
    gap = sum(term.gap for term in differences) / len(ends)
    slope = sum(term.slope_product for term in differences) / len(ends)
    passed = sigma_w2 * slope * law.variance / whole
    share = sigma_w2 * square / whole
    return Correlation(1.0 - sigma_w2 * gap / whole, passed**2 * now.chance + share**2 * drawn)


def covariances(
    activation: Nonlinearity,
    law: PreactivationDistribution,
    mean: dict[str, float],
    correlation: float,
    chance: float,
) -> Covariances:
    """Those of two inputs whose correlation has that mean and variance over pairs."""
    spread = chance**0.5
    ends = [pair_expectations(activation, law, correlation + step) for step in (-spread, spread)]
    other = {pair: 0.5 * (ends[0][pair] + ends[1][pair]) for pair in ends[0]}
    return Covariances(law, correlation, chance, mean, pair_expectations(activation, law, 1.0), other)
