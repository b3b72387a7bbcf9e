"""A stack of layers as mean-field theory sees it: what each layer's statistics should be, and how far one
net of finite width strays from that.

The length map and χ are those of Poole et al. 2016 and Schoenholz et al. 2017. To leading order in 1/width, a
layer's expected second moment K(x) = σ_w² mean φ(h)² + σ_b² is a random variable of the layers below, with the
covariance over two inputs

    v_ab ← χ∥² v_ab + (σ_w⁴/n)·Cov(φ(h_a)², φ(h_b)²),   n units of the layer below,

and a statistic T = mean of ψ(h) over a layer's units and a batch has, as the mean over pairs of its inputs,

    Var T = Cov(ψ(h_a), ψ(h_b))/units + (∂E[ψ]/∂K)² v_ab.

For relu with σ_w² = 2, one net and one input, that makes (5(L−1) + 2)/n for the relative variance of q.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from initbench.theory.law import Law, nodes_of, values_at
from initbench.theory.nonlinearity import Nonlinearity
from initbench.theory.pairs import Products, products

FADED = 1e-70
"""A second moment that float32 has nothing left of: no further layer is predicted."""
OVERFLOWED = 1e70
_SAME_Q, _SAME_C = 1e-3, 1e-3
"""Relative change of q, and change of c, up to which the products over pairs are not computed anew."""
Pair = tuple[float, float]
"""A value for one input with itself, and for two different inputs."""


@dataclass(frozen=True)
class Layer:
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
    """What every bias is, or is moved by."""
    activation: Nonlinearity | None = None
    """None for the head."""

    def law(self, second_moment: float) -> Law:
        """Of the pre-activation, given the mean square of what goes in."""
        return Law(self.sigma_w2 * second_moment + self.bias_variance, self.bias_shift, self.bias_half_width)


@dataclass(frozen=True)
class Source:
    """The batch that goes in, the same for every net."""

    q: float
    """Mean square of its entries."""
    correlation: float
    """Mean cosine of two different inputs."""
    samples: int


@dataclass(frozen=True)
class Statistic:
    """A predicted value, and the standard deviation over nets of what one net shows on the batch."""

    value: float
    sd: float


@dataclass(frozen=True)
class Predicted:
    """What theory says of one layer."""

    statistics: dict[str, Statistic] = field(default_factory=dict)
    """By name: q, log_q, act_mean, act_std, zero_fraction, saturated_fraction, grad_ratio. `log_q` is lower
    than the logarithm of q by half its variance. grad_ratio is E[δ²] over that of the next layer."""
    chi_1: float | None = None
    """σ_w² E[φ′²] with the next layer's σ_w²; None for the head."""
    chi_parallel: float | None = None
    """σ_w² ∂E[φ²]/∂K with the next layer's σ_w²: the factor of a small change of q."""
    correlation: float | None = None
    """Of two inputs' pre-activations, biases left aside."""


@dataclass(frozen=True)
class _Covariances:
    """Cov(f(h_a), g(h_b)) at one law and correlation."""

    law: Law
    correlation: float
    mean: dict[str, float]
    same: Products
    other: Products

    def between(self, f: str, g: str) -> Pair:
        means = self.mean[f] * self.mean[g]
        return self.same[f, g] - means, self.other[f, g] - means

    def serves(self, law: Law, correlation: float) -> bool:
        """Whether a layer of that law has the same, as far as standard deviations need it."""
        alike = abs(law.second_moment / self.law.second_moment - 1.0) < _SAME_Q
        return alike and abs(correlation - self.correlation) < _SAME_C


@dataclass(frozen=True)
class _State:
    """One layer of the walk. Expectations by the names of `law.values_at`, and their slopes ∂/∂K."""

    layer: Layer
    following: Layer | None
    law: Law
    mean: dict[str, float]
    slope: dict[str, float]
    covariances: _Covariances
    v: Pair

    def variance(self, scatter: Pair, slope: float, samples: int) -> float:
        """Var of a batch's mean of ψ, given Cov(ψ_a, ψ_b) and ∂E[ψ]/∂K."""
        pair = [s / self.layer.units + slope**2 * v for s, v in zip(scatter, self.v, strict=True)]
        return max(0.0, pair[0] / samples + pair[1] * (1.0 - 1.0 / samples))


def propagate(layers: Sequence[Layer], source: Source) -> list[Predicted]:
    """What to expect of each layer. The input goes through no activation; the last layer is the head.

    Layers past the point where float32 has lost the signal, or it has overflowed, are predicted nothing.
    """
    states = list(_walk(layers, source))
    predicted = [_predicted(state, source.samples) for state in states]
    correlation = math.sqrt(1.0 / max(1, layers[-1].units - 1))
    for state, one in reversed(list(zip(states, predicted, strict=True))):
        if state.following is not None:
            one.statistics["grad_ratio"] = _gradient_ratio(state, correlation, source.samples)
            pair = state.covariances.other["slope", "slope"]
            correlation *= pair / state.covariances.same["slope", "slope"] if pair else 0.0
    return predicted + [Predicted() for _ in range(len(layers) - len(states))]


def _walk(layers: Sequence[Layer], source: Source) -> Iterator[_State]:
    law, correlation = layers[0].law(source.q), _first_correlation(layers[0], source)
    v: Pair = (0.0, 0.0)
    covariances: _Covariances | None = None
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if not FADED < law.second_moment < OVERFLOWED or law.variance <= 0.0:
            return
        activation = layer.activation or _LINEAR
        nodes = nodes_of(law, activation.breaks)
        values = values_at(activation, nodes.h)
        mean = {name: nodes.mean(value) for name, value in values.items()}
        slope = {name: nodes.slope(value, law.variance) for name, value in values.items()}
        if covariances is None or layer.activation is None or not covariances.serves(law, correlation):
            same, other = products(activation, law, 1.0), products(activation, law, correlation)
            covariances = _Covariances(law, correlation, mean, same, other)
        state = _State(layer, following, law, mean, slope, covariances, v)
        yield state
        if following is None:
            return
        v = _carried(state, following.sigma_w2)
        law = following.law(mean["act2"])
        shared = following.sigma_w2 * covariances.other["act", "act"] + following.bias_variance
        whole = following.sigma_w2 * covariances.mean["act2"] + following.bias_variance
        correlation = shared / whole if whole > 0.0 else 1.0


_LINEAR = Nonlinearity(lambda h: h, lambda h: h * 0.0 + 1.0)


def _first_correlation(first: Layer, source: Source) -> float:
    variance = first.sigma_w2 * source.q + first.bias_variance
    shared = first.sigma_w2 * source.q * source.correlation + first.bias_variance
    return shared / variance if variance > 0.0 else 1.0


def _carried(state: _State, sigma_w2: float) -> Pair:
    """v_ab of the next layer."""
    chi_parallel = sigma_w2 * state.slope["act2"]
    own, other = (
        chi_parallel**2 * old + sigma_w2**2 * new / state.layer.units
        for old, new in zip(state.v, state.covariances.between("act2", "act2"), strict=True)
    )
    return own, other


def _predicted(state: _State, samples: int) -> Predicted:
    q = state.law.second_moment
    sd = math.sqrt(state.variance(state.covariances.between("h2", "h2"), 1.0, samples))
    statistics = {
        "q": Statistic(q, sd),
        "log_q": Statistic(math.log(q) - 0.5 * (sd / q) ** 2, sd / q),
    }
    if state.layer.activation is None or state.following is None:
        return Predicted(statistics, correlation=state.covariances.correlation)
    statistics |= _of_activation(state, samples)
    sigma_w2 = state.following.sigma_w2
    return Predicted(
        statistics,
        chi_1=sigma_w2 * state.mean["slope2"],
        chi_parallel=sigma_w2 * state.slope["act2"],
        correlation=state.covariances.correlation,
    )


def _of_activation(state: _State, samples: int) -> dict[str, Statistic]:
    """Statistics of what the activation puts out."""
    mean, slope, between = state.mean, state.slope, state.covariances.between

    def simple(name: str) -> Statistic:
        return Statistic(mean[name], math.sqrt(state.variance(between(name, name), slope[name], samples)))

    m = mean["act"]
    std = math.sqrt(max(0.0, mean["act2"] - m * m))
    found = {"act_mean": simple("act"), "zero_fraction": simple("zero")}
    if std > 0.0:  # by the delta method, with ψ = (φ² − 2mφ)/(2·std)
        parts = zip(between("act2", "act2"), between("act", "act2"), between("act", "act"), strict=True)
        own, other = ((aa - 4 * m * am + 4 * m * m * mm) / (4 * std**2) for aa, am, mm in parts)
        tilt = (slope["act2"] - 2 * m * slope["act"]) / (2 * std)
        found["act_std"] = Statistic(std, math.sqrt(state.variance((own, other), tilt, samples)))
    assert state.layer.activation is not None
    if state.layer.activation.flat_below is not None:
        found["saturated_fraction"] = simple("flat")
    return found


def _gradient_ratio(state: _State, correlation: float, samples: int) -> Statistic:
    """E[δ²] of the layer over the next one's: (fan_out/fan_in)·σ_w² of the next layer, times E[φ′²].

    The weights on the way back count as independent of those on the way forward (Schoenholz et al. 2017);
    `correlation` is that of two samples' δ in the next layer.
    """
    following = state.following
    assert following is not None
    at = state.covariances
    square = at.mean["slope2"] ** 2
    value = following.fan_out / following.fan_in * following.sigma_w2 * state.mean["slope2"]
    if square <= 0.0:
        return Statistic(value, 0.0)
    own = 3.0 * at.same["slope2", "slope2"] / square - 1.0
    other = (1.0 + 2.0 * correlation**2) * at.other["slope2", "slope2"] / square - 1.0
    tilt = state.slope["slope2"] / state.mean["slope2"]
    return Statistic(value, value * math.sqrt(state.variance((own, other), tilt, samples)))
