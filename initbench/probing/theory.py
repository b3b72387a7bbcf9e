"""Theoretical predictions for declared nets and for modules, or the reason why there are none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from initbench.components.fans import shape_of
from initbench.models.custom_network import CustomNetwork
from initbench.models.init_weights import InitOptions, LayerRule, rule_for_layer
from initbench.models.network import Network, WeightLayer, has_maps
from initbench.probing.network_probe import MAP_SAMPLES
from initbench.probing.tensor_statistics import correlation
from initbench.probing.wide_limit import predict_wide_limit, why_no_bands, why_unpredictable
from initbench.theory.fixed_points import FixedPoint, fixed_point
from initbench.theory.propagation import propagate
from initbench.theory.types import InputStatistics, LayerPrediction, TheoryLayer
from initbench.trace.module_pass import trace_pass
from initbench.trace.preserve_state import preserve_state
from initbench.trace.weight_use import WeightUse

MAX_PAIRS = 512
"""Maximum number of samples for the cosines of pairs."""
_ORTHOGONAL = 1e-3
"""Largest cosine of two weight rows or columns that are orthogonal up to rounding."""
_UNIFORM = 1.02
_MIN_BIASES = 16


@dataclass(frozen=True)
class TheoryPrediction:
    """Predictions for the weight layers in order, head included."""

    layers: list[LayerPrediction]
    reason: str | None = None
    """Reason why there is no prediction, as text."""
    no_band: str | None = None
    """Reason why there are values but no bands, as text."""
    last_hidden: TheoryLayer | None = None
    """The last hidden layer of a plain stack."""

    @cached_property
    def fixed(self) -> FixedPoint | None:
        """Fixed point of layers like the last hidden one; None without hidden layers or a prediction."""
        if self.last_hidden is None or not self.hidden_q:
            return None
        return fixed_point(self.last_hidden, start=self.hidden_q[-1])

    @property
    def hidden_q(self) -> list[float]:
        """Predicted q of the hidden layers of wide nets, without layers that lack a prediction."""
        return [layer.wide_q for layer in self.layers[:-1] if layer.wide_q is not None]


def predict_network(network: Network, init: InitOptions, norm: str, x: Tensor) -> TheoryPrediction:
    """Return the theoretical predictions for the untrained net and the probe batch x (B, …).

    They depend on the config and the batch, but not on the weights. As in a probe, nets with maps see the
    first MAP_SAMPLES samples only.
    """
    if isinstance(network, CustomNetwork):
        return _predict_custom(network, init, x)
    weighted = network.weight_layers()
    if has_maps(weighted):
        x = x[:MAP_SAMPLES]
    norm = norm if len(weighted) > 1 else "none"  # a head has none
    if why_no_prediction(network, init, norm) is None:
        return _predict_stack(theory_layers(network, init), x)
    reason = why_unpredictable(network, init, norm, len(x)) or _why_not_independent(network, init)
    if reason is not None:
        return no_prediction(len(weighted), reason)
    predicted = predict_wide_limit(network, theory_layers(network, init), norm, x)
    return TheoryPrediction(predicted, no_band=why_no_bands(network))


def _predict_custom(network: CustomNetwork, init: InitOptions, x: Tensor) -> TheoryPrediction:
    """Return the predictions for a net of the user, from the structure of a pass and the declared init."""
    with preserve_state(network.module), torch.no_grad():
        _, trace = trace_pass(network.module.train(), x[:MAP_SAMPLES])
    reason = _why_not_a_stack(trace.uses)
    rules = network.layer_rules(init)
    drawn = {name for name, rule in rules.items() if rule.sigma_w2 is not None}
    undrawn = next((use.name for use in trace.uses if use.name not in drawn), None)
    if reason is None and undrawn is not None:
        reason = f"the weights of {undrawn} are not independent draws under init.scheme={init.scheme.name}"
    if reason is not None:
        return no_prediction(len(trace.uses), reason)
    return _predict_stack([_declared_layer(use, rules[use.name], init) for use in trace.uses], x)


def _declared_layer(use: WeightUse, rule: LayerRule, init: InitOptions) -> TheoryLayer:
    assert rule.sigma_w2 is not None
    half_width, variance, shift = _bias(use.bias is not None, rule, init)
    activation = None if use.activation is None else use.activation.bound
    return TheoryLayer(
        fan_in=rule.fan_in,
        fan_out=rule.fan_out,
        units=use.units,
        sigma_w2=rule.sigma_w2,
        bias_variance=variance,
        bias_half_width=half_width,
        bias_shift=shift,
        activation=None if activation is None else activation.nonlinearity,
    )


def predict_module(nets: Sequence[Sequence[WeightUse]], x: Tensor) -> TheoryPrediction:
    """Return the theoretical predictions for modules of the user that were drawn in the same way.

    Args:
        nets: The weight uses of each net.
        x: The batch (B, …).
    """
    reason = _why_not_a_stack(nets[0])
    if reason is not None:
        return no_prediction(len(nets[0]), reason)
    return _predict_stack([_measured_layer(index, nets) for index in range(len(nets[0]))], x)


def no_prediction(layers: int, reason: str) -> TheoryPrediction:
    """Return the result for a net of `layers` weight layers that theory does not predict, with the reason."""
    return TheoryPrediction([LayerPrediction() for _ in range(layers)], reason)


def _predict_stack(layers: list[TheoryLayer], x: Tensor) -> TheoryPrediction:
    predicted = propagate(layers, input_statistics(x))
    return TheoryPrediction(predicted, last_hidden=layers[-2] if len(layers) > 1 else None)


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
    has_bias = getattr(layer.module, "bias", None) is not None
    half_width, variance, shift = _bias(has_bias, rule, init)
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


def _bias(has_bias: bool, rule: LayerRule, init: InitOptions) -> tuple[float, float, float]:
    """Return the half width of a uniform bias, the variance of a Gaussian and the value of a constant one."""
    if not has_bias:
        return 0.0, 0.0, 0.0
    if init.bias is not None:
        return 0.0, 0.0, init.bias
    if rule.scheme.bias_distribution == "uniform":
        return math.sqrt(3.0) * rule.bias_std, 0.0, 0.0
    return 0.0, rule.bias_std**2, 0.0


@dataclass(frozen=True)
class WeightStatistics:
    """Statistics of the weights and biases of one layer, over all nets."""

    sigma_w2: float
    """fan_in times the mean square of the weights."""
    bias_mean: float
    bias_std: float
    uniform: bool
    """Whether the range of the biases is that of a uniform distribution, not of a Gaussian one."""


def layer_weight_statistics(index: int, nets: Sequence[Sequence[WeightUse]]) -> WeightStatistics:
    """Return the statistics of the layer with this index."""
    uses = [net[index] for net in nets]
    squares = [float(use.weight.detach().double().square().mean()) for use in uses]
    sigma_w2 = uses[0].fan_in * math.fsum(squares) / len(squares)
    bias_values = [use.bias.detach().double().flatten() for use in uses if use.bias is not None]
    if not bias_values:
        return WeightStatistics(sigma_w2, 0.0, 0.0, uniform=False)
    biases = torch.cat(bias_values)
    std = float(biases.std(correction=0))
    reach = float((biases - biases.mean()).abs().max())
    uniform = len(biases) >= _MIN_BIASES and reach <= _UNIFORM * math.sqrt(3.0) * std
    return WeightStatistics(sigma_w2, float(biases.mean()), std, uniform)


def _why_not_a_stack(uses: Sequence[WeightUse]) -> str | None:
    """Return why mean-field theory makes no prediction for a net of these uses, or None."""
    *hidden, head = uses
    if not uses[0].from_input or any(
        after.source is not use for use, after in zip(hidden, uses[1:], strict=True)
    ):
        return "layers have other inputs than the activations of the previous one"
    reasons = (
        next(
            (
                f"{use.name} is a {use.operation}: positions of a map differ"
                for use in uses
                if use.weight.ndim > 2
            ),
            None,
        ),
        next((f"{use.name} is followed by {use.norm} norm" for use in uses if use.norm is not None), None),
        next((f"no activation follows {use.name}" for use in hidden if use.activation is None), None),
        None
        if head.activation is None
        else f"the last layer, {head.name}, goes into {head.activation.label}",
        next((f"{use.name} is used {use.use_count} times" for use in uses if use.use_count > 1), None),
        next((f"{label} is not in the catalogue" for label in _unknown_activations(hidden)), None),
        next(
            (f"the weights of {use.name} are not independent draws" for use in uses if _is_dependent(use)),
            None,
        ),
    )
    return next((reason for reason in reasons if reason is not None), None)


def _unknown_activations(uses: Sequence[WeightUse]) -> list[str]:
    """Return the labels of activations for which theory has no φ."""
    activations = [use.activation for use in uses if use.activation is not None]
    return [
        activation.label
        for activation in activations
        if activation.bound is None or activation.bound.nonlinearity is None
    ]


def _is_dependent(use: WeightUse) -> bool:
    """Whether the weights are all equal, or their rows or columns orthogonal."""
    weight = use.rows.detach().double()
    if float(weight.std(correction=0)) <= _ORTHOGONAL * float(weight.abs().max()):
        return True
    narrow = weight if weight.shape[0] <= weight.shape[1] else weight.mT
    rows = nn.functional.normalize(narrow[:64], dim=1)
    cosines = (rows @ rows.mT).fill_diagonal_(0.0)
    return len(rows) > 1 and float(cosines.abs().max()) <= _ORTHOGONAL


def _measured_layer(index: int, nets: Sequence[Sequence[WeightUse]]) -> TheoryLayer:
    use, drawn = nets[0][index], layer_weight_statistics(index, nets)
    activation = use.activation
    constant = drawn.bias_std == 0.0
    return TheoryLayer(
        fan_in=use.fan_in,
        fan_out=use.fan_out,
        units=use.units,
        sigma_w2=drawn.sigma_w2,
        bias_variance=0.0 if drawn.uniform or constant else drawn.bias_std**2 + drawn.bias_mean**2,
        bias_half_width=math.sqrt(3.0) * drawn.bias_std if drawn.uniform else 0.0,
        bias_shift=drawn.bias_mean if constant else 0.0,
        activation=None if activation is None or activation.bound is None else activation.bound.nonlinearity,
    )
