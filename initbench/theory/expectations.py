"""The expectations of one layer that the next one, and its statistics, are made of."""

from __future__ import annotations

from dataclasses import dataclass

from initbench.theory.law import Law, nodes_of, values_at
from initbench.theory.nonlinearity import Nonlinearity
from initbench.theory.pairs import Products, products

Pair = tuple[float, float]
"""A value for one input with itself, and for two different inputs."""

LINEAR = Nonlinearity(lambda h: h, lambda h: h * 0.0 + 1.0)
_SAME_Q, _SAME_C = 1e-3, 1e-3


@dataclass(frozen=True)
class Expectations:
    """E[f(h)] with its first two derivatives in the variance, by the names of `law.values_at`."""

    mean: dict[str, float]
    slope: dict[str, float]
    curve: dict[str, float]


def expectations(activation: Nonlinearity, law: Law) -> Expectations:
    """Those of a pre-activation of that law, whose variance is positive."""
    nodes = nodes_of(law, activation.breaks)
    values = values_at(activation, nodes.h)
    return Expectations(
        mean={name: nodes.mean(value) for name, value in values.items()},
        slope={name: nodes.slope(value, law.variance) for name, value in values.items()},
        curve={name: nodes.curve(value, law.variance) for name, value in values.items()},
    )


@dataclass(frozen=True)
class Covariances:
    """Cov(f(h_a), g(h_b)) of one law, for one input and for two; pairs of two differ in their correlation."""

    law: Law
    correlation: float
    chance: float
    """Variance of the correlation over pairs of inputs."""
    mean: dict[str, float]
    same: Products
    other: Products

    def between(self, f: str, g: str) -> Pair:
        """Cov(f(h_a), g(h_b))."""
        means = self.mean[f] * self.mean[g]
        return self.same[f, g] - means, self.other[f, g] - means

    def serve(self, law: Law, correlation: float, chance: float) -> bool:
        """Whether those of that law are the same, as far as standard deviations need it."""
        alike = abs(law.second_moment / self.law.second_moment - 1.0) < _SAME_Q
        near = abs(correlation - self.correlation) + abs(chance - self.chance) < _SAME_C
        return alike and near

    def next_correlation(self, sigma_w2: float, bias_variance: float) -> float:
        """Of the next layer's Gaussian parts (Poole et al. 2016)."""
        whole = sigma_w2 * self.mean["act2"] + bias_variance
        return (sigma_w2 * self.other["act", "act"] + bias_variance) / whole if whole > 0.0 else 1.0

    def next_chance(self, following: float, units: int) -> float:
        """Variance of the next layer's correlation `following`, from this one's and from so many units."""
        square, c = self.mean["act2"], following
        if square**2 == 0.0:  # nothing is left that floating point could tell
            return 0.0
        other = self.other
        product = other["act2", "act2"] - other["act", "act"] ** 2
        mixed = other["act3", "act"] - other["act", "act"] * square
        norms = self.same["act2", "act2"] + other["act2", "act2"] - 2.0 * square**2
        drawn = max(0.0, product - 2.0 * c * mixed + 0.5 * c * c * norms) / (square**2 * units)
        slope = other["slope", "slope"] * self.law.variance / square
        return slope**2 * self.chance + drawn


def covariances(
    activation: Nonlinearity, law: Law, mean: dict[str, float], correlation: float, chance: float
) -> Covariances:
    """Those of two inputs whose correlation has that mean and variance over pairs."""
    spread = chance**0.5
    ends = [products(activation, law, correlation + step) for step in (-spread, spread)]
    other = {pair: 0.5 * (ends[0][pair] + ends[1][pair]) for pair in ends[0]}
    return Covariances(law, correlation, chance, mean, products(activation, law, 1.0), other)
