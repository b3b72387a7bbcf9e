"""Theoretical predictions for a declared net, or the reason why there are none."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from initbench.models.fans import shape_of
from initbench.models.init_weights import InitOptions, LayerRule, rule_for_layer
from initbench.models.network import Network, WeightLayer, has_maps
from initbench.probing.tensor_statistics import correlation
from initbench.probing.wide_limit import predict_wide_limit, why_no_bands, why_unpredictable
from initbench.theory.fixed_points import FixedPoint, fixed_point
from initbench.theory.propagation import propagate
from initbench.theory.types import InputStatistics, LayerPrediction, TheoryLayer

MAX_PAIRS = 512
"""Maximum number of samples for the cosines of pairs."""


@dataclass(frozen=True)
class TheoryPrediction:
    """Predictions for the weight layers in order, head included."""

    layers: list[LayerPrediction]
    fixed: FixedPoint | None
    """Fixed point of layers like the last hidden one; None without hidden layers or a prediction."""
    reason: str | None
    """Reason why there is no prediction, as text."""
    no_band: str | None = None
    """Reason why there are values but no bands, as text."""

    @property
    def hidden_q(self) -> list[float]:
        """Predicted q of the hidden layers of wide nets, without layers that lack a prediction."""
        return [layer.wide_q for layer in self.layers[:-1] if layer.wide_q is not None]


def predict_network(network: Network, init: InitOptions, norm: str, x: Tensor) -> TheoryPrediction:
    """Return the theoretical predictions for the untrained net and the batch x (B, …)."""
    weighted = network.weight_layers()
    norm = norm if len(weighted) > 1 else "none"  # a head has none
    if why_no_prediction(network, init, norm) is None:
        layers = theory_layers(network, init)
        predicted = propagate(layers, input_statistics(x))
        return TheoryPrediction(predicted, _fixed(layers, predicted), None)
    reason = why_unpredictable(network, init, norm, len(x)) or _why_not_independent(network, init)
    if reason is not None:
        return TheoryPrediction([LayerPrediction() for _ in weighted], None, reason)
    predicted = predict_wide_limit(network, theory_layers(network, init), x)
    return TheoryPrediction(predicted, None, None, no_band=why_no_bands(network))


def _fixed(layers: list[TheoryLayer], predicted: list[LayerPrediction]) -> FixedPoint | None:
    hidden = [layer.wide_q for layer in predicted[:-1] if layer.wide_q is not None]
    return fixed_point(layers[-2], start=hidden[-1]) if hidden else None


def why_no_prediction(network: Network, init: InitOptions, norm: str) -> str | None:
    """Return why the theory of plain stacks, with bands and fixed points, does not apply, or None."""
    if norm != "none":
        return f"model.norm={norm} couples the layers to their statistics"
    if not network.plain:
        return "layers have other inputs than the activations of the previous one"
    if has_maps(network.weight_layers()):
        return "zero padding and pooling make the positions of a map differ"
    return _why_not_independent(network, init)


def _why_not_independent(network: Network, init: InitOptions) -> str | None:
    """Return why units of this net are not sums of many independent terms, or None."""
    if network.activation.nonlinearity is None:
        return f"{network.activation.entry.name} mixes channels"
    for layer in network.weight_layers():
        rule = rule_for_layer(layer, init, network.activation)
        if rule.sigma_w2 is None:
            return f"under {rule.scheme.name}, weights are not independent draws"
    return None


def input_statistics(x: Tensor) -> InputStatistics:
    """Return the statistics of the batch x (B, …) that theory needs."""
    rows = x.detach().double().cpu().flatten(1)
    squares = rows.square().mean(1)
    q, sample = float(squares.mean()), rows[:MAX_PAIRS]
    cosine = correlation(sample)
    mean = 0.0 if cosine is None else cosine
    return InputStatistics(
        q=q,
        correlation=mean,
        samples=len(rows),
        spread=float(squares.var(correction=0)) / q**2 if q > 0.0 else 0.0,
        correlation_spread=_cosine_spread(sample, mean),
    )


def _cosine_spread(rows: Tensor, mean: float) -> float:
    unit = torch.nn.functional.normalize(rows, dim=1)
    cosines = unit @ unit.mT
    count = len(rows) * (len(rows) - 1)
    total = float(cosines.square().sum() - cosines.diagonal().square().sum())
    return max(0.0, total / count - mean**2) if count else 0.0


def theory_layers(network: Network, init: InitOptions) -> list[TheoryLayer]:
    """Return the weight layers, head included, as inputs of the theory; their weights are independent."""
    return [_layer(layer, network, init) for layer in network.weight_layers()]


def _layer(layer: WeightLayer, network: Network, init: InitOptions) -> TheoryLayer:
    rule = rule_for_layer(layer, init, network.activation)
    assert rule.sigma_w2 is not None
    half_width, variance, shift = _bias(layer, rule, init)
    return TheoryLayer(
        fan_in=rule.fan_in,
        fan_out=rule.fan_out,
        units=shape_of(layer.module)[0],
        sigma_w2=rule.sigma_w2,
        bias_variance=variance,
        bias_half_width=half_width,
        bias_shift=shift,
        activation=None if layer.activation is None else network.activation.nonlinearity,
    )


def _bias(layer: WeightLayer, rule: LayerRule, init: InitOptions) -> tuple[float, float, float]:
    """Return the half width of a uniform bias, the variance of a Gaussian and the value of a constant one."""
    if getattr(layer.module, "bias", None) is None:
        return 0.0, 0.0, 0.0
    if init.bias is not None:
        return 0.0, 0.0, init.bias
    if rule.scheme.bias_distribution == "uniform":
        return math.sqrt(3.0) * rule.bias_std, 0.0, 0.0
    return 0.0, rule.bias_std**2, 0.0
