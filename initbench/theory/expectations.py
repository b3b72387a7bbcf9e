"""Expectations over one layer's pre-activations, which determine its statistics and the next layer's."""

from __future__ import annotations

from dataclasses import dataclass

from initbench.theory.nonlinearity import Nonlinearity
from initbench.theory.pair_expectations import Products, difference, pair_expectations
from initbench.theory.preactivation import PreactivationDistribution, evaluate_moments, quadrature_nodes

SelfAndCross = tuple[float, float]
"""A covariance of one input with itself, and of two different inputs."""

LINEAR = Nonlinearity(lambda h: h, lambda h: h * 0.0 + 1.0)
_SAME_Q, _SAME_C = 1e-3, 1e-3
_SAME_GAP, _LEAST_GAP = 0.2, 1e-5
"""Relative and absolute change of 1 − c up to which covariances are reused."""


@dataclass(frozen=True)
class Expectations:
    """E[f(h)] and its first two derivatives in the variance, by the names of `evaluate_moments`."""

    mean: dict[str, float]
    slope: dict[str, float]
    curve: dict[str, float]


def expectations(activation: Nonlinearity, law: PreactivationDistribution) -> Expectations:
    """Return the expectations of a pre-activation with distribution `law` of positive variance."""
    nodes = quadrature_nodes(law, activation.breaks)
    values = evaluate_moments(activation, nodes.h)
    return Expectations(
        mean={name: nodes.mean(value) for name, value in values.items()},
        slope={name: nodes.slope(value, law.variance) for name, value in values.items()},
        curve={name: nodes.curve(value, law.variance) for name, value in values.items()},
    )


@dataclass(frozen=True)
class Covariances:
    """Cov(f(h_a), g(h_b)) for one input and for two different inputs, whose correlation varies over pairs."""

    law: PreactivationDistribution
    correlation: float
    chance: float
    """Variance of the correlation over pairs of inputs."""
    mean: dict[str, float]
    same: Products
    other: Products

    def between(self, f: str, g: str) -> SelfAndCross:
        """Return Cov(f(h_a), g(h_b)) for h_a = h_b, and for two different inputs."""
        means = self.mean[f] * self.mean[g]
        return self.same[f, g] - means, self.other[f, g] - means

    def is_close_enough(self, law: PreactivationDistribution, correlation: float, chance: float) -> bool:
        """Return whether these covariances are accurate enough for `law` to compute standard deviations."""
        alike = abs(law.second_moment / self.law.second_moment - 1.0) < _SAME_Q
        gap = 1.0 - max(correlation, self.correlation)
        near = min(_SAME_C, max(_SAME_GAP * gap, _LEAST_GAP))
        return alike and abs(correlation - self.correlation) + abs(chance - self.chance) < near

    def drawn_chance(self, units: int) -> float:
        """Return the variance over pairs of the cosine of the activations of `units` units."""
        square, other = self.mean["act2"], self.other
        if square**2 == 0.0:  # underflow
            return 0.0
        c = other["act", "act"] / square
        product = other["act2", "act2"] - other["act", "act"] ** 2
        mixed = other["act3", "act"] - other["act", "act"] * square
        norms = self.same["act2", "act2"] + other["act2", "act2"] - 2.0 * square**2
        return max(0.0, product - 2.0 * c * mixed + 0.5 * c * c * norms) / (square**2 * units)


@dataclass(frozen=True)
class Correlation:
    """Correlation of two inputs' pre-activations, without biases, over pairs of inputs."""

    mean: float
    chance: float
    """Variance of the correlation over pairs."""


def next_correlation(
    activation: Nonlinearity,
    law: PreactivationDistribution,
    expected: Expectations,
    now: Correlation,
    drawn: float,
    following: tuple[float, float],
) -> Correlation:
    """Return the correlation in the next layer (Poole et al. 2016).

    It is computed for every layer, without reusing the layer below. A step of the map may be small: for relu,
    1 − c falls by the fraction 2/l at layer l. If small steps were skipped, the map would stop there.

    Args:
        activation: Activation that is applied to the pre-activations.
        law: Distribution of the pre-activations.
        expected: Expectations under that distribution.
        now: Correlation of the pre-activations.
        drawn: Variance added by the layer's finite number of units (`Covariances.drawn_chance`).
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
    """Return the covariances for inputs whose correlation has mean `correlation` and variance `chance`."""
    spread = chance**0.5
    ends = [pair_expectations(activation, law, correlation + step) for step in (-spread, spread)]
    other = {pair: 0.5 * (ends[0][pair] + ends[1][pair]) for pair in ends[0]}
    return Covariances(law, correlation, chance, mean, pair_expectations(activation, law, 1.0), other)
