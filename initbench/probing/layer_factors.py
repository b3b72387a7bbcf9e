"""Predictions of mean-field theory for the factors of a net's hidden layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from initbench.components.activation import SATURATED_BELOW, BoundActivation
from initbench.models.init_weights import InitOptions, LayerRule, rule_for_layer
from initbench.models.network import Network, WeightLayer
from initbench.probing.log_slopes import UNDERFLOW, VANISHING_RATIO
from initbench.theory import mean_field
from initbench.theory.quadrature import gaussian_expectation
from initbench.theory.types import LayerPrediction

MAX_FLAT = 0.5
"""Maximum share of entries on the flat part of a bounded activation."""
SAFETY_MARGIN = 0.8
"""Share of a limit that a remedy may use; the rest is for effects of finite batches."""


@dataclass(frozen=True)
class StackFactors:
    """Per-layer factors of the hidden stack, as geometric means over its layers.

    A factor is None if theory makes no prediction: with a norm layer, with weights that are not independent
    draws, or with a constant bias, which moves the mean of the pre-activations away from zero.
    """

    forward: float | None
    """Factor of q from one pre-activation to the next."""
    signal: float | None
    """χ₁, the factor of the difference of two similar inputs (Schoenholz et al. 2017)."""
    backward: float | None
    """χ₁ times fan_out/fan_in, the factor of E[δ²] from one layer to the one below it."""
    sigma_w2: float | None
    """Weight variance times fan_in of the last hidden layer."""
    needed_sigma_w2: float
    """σ_w² that preserves q = 1 through the activation: 1/E[φ(z)²]."""
    chi_at_needed: float
    """χ₁ at that σ_w² and q = 1; if it is far from 1, no weight scale preserves both q and E[δ²]."""


def predict_stack_factors(
    network: Network, init: InitOptions, *, first_q: float, normed: bool
) -> StackFactors:
    """Propagate q from `first_q`, the measured q of the first layer, through the hidden layers."""
    activation = network.activation
    needed = activation.preserving_gain**2
    chi = activation.chi(1.0, sigma_w2=needed) / activation.widening
    hidden = [layer for layer in network.weight_layers() if layer.activation is not None]
    rules = [rule_for_layer(layer, init, activation) for layer in hidden]
    sigma_w2 = rules[-1].sigma_w2 if rules else None
    if not network.plain or normed or init.bias or len(rules) < 2 or not 0 < first_q < math.inf:
        return StackFactors(None, None, None, sigma_w2, needed, chi)
    biases = [_bias_variance(layer, rule, init) for layer, rule in zip(hidden, rules, strict=True)]
    variances = [(rule.sigma_w2, bias) for rule, bias in zip(rules[1:], biases[1:], strict=True)]
    walk = _walk(variances, activation, first_q)
    if walk is None:
        return StackFactors(None, None, None, sigma_w2, needed, chi)
    fans = [math.log(rule.fan_out / rule.fan_in) for rule in rules[1 : walk.steps + 1]]
    return StackFactors(
        forward=math.exp(walk.log_q / walk.steps),
        signal=math.exp(walk.log_chi / walk.steps),
        backward=math.exp((walk.log_chi + sum(fans)) / walk.steps),
        sigma_w2=sigma_w2,
        needed_sigma_w2=needed,
        chi_at_needed=chi,
    )


def module_stack_factors(
    activation: BoundActivation, sigma_w2: float | None, layers: Sequence[LayerPrediction]
) -> StackFactors:
    """Return the factors that follow from the predictions for a module's layers, head included."""
    if not activation.entry.elementwise:
        return StackFactors(None, None, None, None, 1.0, 1.0)
    needed = activation.natural_sigma_w2
    chi = activation.chi(activation.natural_q, sigma_w2=needed)
    hidden = [layer for layer in layers if layer.wide_q and layer.chi_1]
    if len(hidden) < 2:
        return StackFactors(None, None, None, sigma_w2, needed, chi)
    steps = len(hidden) - 1
    first, last = hidden[0].wide_q, hidden[-1].wide_q
    assert first is not None and last is not None
    signal = math.exp(math.fsum(math.log(layer.chi_1) for layer in hidden[:-1] if layer.chi_1) / steps)
    return StackFactors((last / first) ** (1.0 / steps), signal, None, sigma_w2, needed, chi)


@dataclass(frozen=True)
class DepthWalk:
    """Changes of q and E[δ²] over a stack of layers, as logarithms of the products of the factors."""

    log_q: float
    log_chi: float
    q: float
    """q after the last step."""
    steps: int


def _walk(
    variances: Sequence[tuple[float | None, float]], activation: BoundActivation, q: float
) -> DepthWalk | None:
    """Propagate q through layers of (σ_w², σ_b²) until it underflows float32; None if it overflows."""
    log_q = log_chi = 0.0
    steps = 0
    for sigma_w2, sigma_b2 in variances:
        if sigma_w2 is None or q > 1e250:
            return None
        if q <= UNDERFLOW:
            break
        chi = activation.chi(q, sigma_w2=sigma_w2)
        following = activation.length_map(q, sigma_w2=sigma_w2, sigma_b2=sigma_b2)
        if chi <= 0 or following <= 0:
            return None
        log_q, log_chi, steps = log_q + math.log(following / q), log_chi + math.log(chi), steps + 1
        q = following
    return DepthWalk(log_q, log_chi, q, steps) if steps else None


@lru_cache(maxsize=256)  # all runs of an experiment have the same arguments
def scale_holds(activation: BoundActivation, sigma_w2: float, *, layers: int, width: int) -> bool:
    """Whether square layers with this σ_w² and without bias keep q and E[δ²] within VANISHING_RATIO.

    At width n, the logarithm of a product of L factors deviates from the mean-field value by −κL/2n on
    average, with variance κL/n, where κ = 3E[φ′⁴]/E[φ′²]² − 1 (5 for relu, 2 for linear; Hanin & Nica
    2020). Two standard deviations must stay within the limits. A bounded activation must also not be flat
    for most of its inputs. The answer is False for activations that mix channels, since it is unknown.
    """
    if not activation.entry.elementwise:
        return False
    walk = _walk([(sigma_w2, 0.0)] * (layers - 1), activation, sigma_w2) if layers > 1 else None
    if walk is None:
        return layers <= 1
    fourth = mean_field.second_moment(lambda h: activation.derivative(h).square(), walk.q, activation.kinks)
    square = mean_field.second_moment(activation.derivative, walk.q, activation.kinks)
    scatter = (3.0 * fourth / square**2 - 1.0) * walk.steps / width
    of_q = 0.0 if activation.entry.bounded else scatter  # a bounded activation pulls q back
    flat = max(flat_share(activation, q) for q in (sigma_w2, walk.q))
    in_range = _stays(walk.log_q, of_q) and _stays(walk.log_chi, scatter)
    return in_range and walk.steps == layers - 1 and flat < SAFETY_MARGIN * MAX_FLAT


def _stays(logarithm: float, scatter: float) -> bool:
    """Whether a log-normal product with this mean-field value stays within VANISHING_RATIO."""
    return abs(logarithm - scatter / 2.0) + 2.0 * math.sqrt(scatter) < -math.log(VANISHING_RATIO)


@lru_cache(maxsize=256)
def batch_norm_holds(activation: BoundActivation, *, layers: int) -> bool:
    """Whether E[δ²] does not explode over `layers` layers with batch norm before the activation.

    Each layer increases it by E[φ′²]/Var[φ], both for h ~ N(0, 1): 1.47 for relu (Yang et al. 2019).
    The answer is True for activations that mix channels, for which this is unknown.
    """
    if not activation.entry.elementwise:
        return True
    kinks = activation.kinks
    mean = gaussian_expectation(activation.phi, kinks=kinks)
    variance = mean_field.second_moment(activation.phi, 1.0, kinks) - mean**2
    factor = mean_field.second_moment(activation.derivative, 1.0, kinks) / variance
    return (layers - 1) * math.log(factor) < -SAFETY_MARGIN * math.log(VANISHING_RATIO)


def flat_share(activation: BoundActivation, q: float) -> float:
    """Return the share of h ~ N(0, q) for which the activation is flat; 0 for unbounded activations."""
    if not activation.entry.saturates:
        return 0.0
    limit = SATURATED_BELOW * activation.max_derivative
    return gaussian_expectation(lambda h: (activation.derivative(h).abs() < limit).double(), std=math.sqrt(q))


def _bias_variance(layer: WeightLayer, rule: LayerRule, init: InitOptions) -> float:
    """Return σ_b² of a layer; 0 without a bias or if it is initialised to a constant."""
    if init.bias is not None or getattr(layer.module, "bias", None) is None:
        return 0.0
    return rule.bias_std**2
