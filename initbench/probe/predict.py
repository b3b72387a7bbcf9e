"""What mean-field theory predicts for a net's hidden layers, where it predicts anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from initbench.components.activation import BoundActivation
from initbench.models.initialise import InitOptions, LayerRule, layer_rule
from initbench.models.network import Network, WeightLayer


@dataclass(frozen=True)
class Prediction:
    """Per-layer factors of the hidden stack, as geometric means over its layers.

    Each is None where theory has no word: shortcuts or pooling between the layers, a norm layer, weights
    that are not independent draws, or one value for every bias, which shifts the pre-activations off their
    mean of zero. Of convolutions it is the theory of endless maps (Xiao et al. 2018): the zeros around real
    ones take from q and E[δ²] at the borders.
    """

    forward: float | None
    """Factor of q from one pre-activation to the next."""
    backward: float | None
    """χ₁, the factor of E[δ²] from one layer to the one below it."""
    sigma_w2: float | None
    """Weight variance times fan_in of the last hidden layer."""
    needed_sigma_w2: float
    """The σ_w² that would keep q = 1 through the activation: 1/E[φ(z)²]."""
    chi_at_needed: float
    """χ₁ at that σ_w² and q = 1: far from 1, no scale of the weights keeps both q and E[δ²]."""


def predict(network: Network, init: InitOptions, *, first_q: float, normed: bool) -> Prediction:
    """Walk q from `first_q` (the first layer's, measured) through the hidden layers."""
    activation = network.activation
    needed = activation.preserving_gain**2
    chi = activation.chi(1.0, sigma_w2=needed) / activation.widening
    hidden = [layer for layer in network.weight_layers() if layer.activation is not None]
    rules = [layer_rule(layer, init, activation) for layer in hidden]
    sigma_w2 = rules[-1].sigma_w2 if rules else None
    if (
        not network.plain
        or normed
        or init.bias
        or len(rules) < 2
        or sigma_w2 is None
        or not 0 < first_q < math.inf
    ):
        return Prediction(None, None, sigma_w2, needed, chi)
    biases = [_bias_variance(layer, rule, init) for layer, rule in zip(hidden, rules, strict=True)]
    forward, backward = _walk(rules[1:], biases[1:], activation, first_q)
    if backward is not None:
        backward /= math.prod(_stride(layer) for layer in hidden[1:]) ** (1 / (len(hidden) - 1))
    return Prediction(forward, backward, sigma_w2, needed, chi)


def _stride(layer: WeightLayer) -> int:
    """Positions of its input for one of its output: each δ is shared out among so many."""
    return math.prod(layer.module.stride) if isinstance(layer.module, nn.Conv2d) else 1


def _walk(
    rules: Sequence[LayerRule], biases: Sequence[float], activation: BoundActivation, q: float
) -> tuple[float | None, float | None]:
    log_forward = log_backward = 0.0
    for rule, sigma_b2 in zip(rules, biases, strict=True):
        sigma_w2 = rule.sigma_w2
        if sigma_w2 is None or not 1e-250 < q < 1e250:
            return None, None
        chi = activation.chi(q, sigma_w2=sigma_w2)
        following = activation.length_map(q, sigma_w2=sigma_w2, sigma_b2=sigma_b2)
        if chi <= 0 or following <= 0:
            return None, None
        log_forward += math.log(following / q)
        # E[δ²] shrinks by fan_out/fan_in more than χ where a layer is not square.
        log_backward += math.log(chi * rule.fan_out / rule.fan_in)
        q = following
    return math.exp(log_forward / len(rules)), math.exp(log_backward / len(rules))


def _bias_variance(layer: WeightLayer, rule: LayerRule, init: InitOptions) -> float:
    """σ_b² of a layer: 0 where there is no bias or it starts at 0."""
    if init.bias is not None or getattr(layer.module, "bias", None) is None:
        return 0.0
    return rule.bias_std**2
