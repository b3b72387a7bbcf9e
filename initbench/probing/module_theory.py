"""Theoretical predictions for a user's module, from its weights and their traced uses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from initbench.components.activation import Activation, BoundActivation, bound
from initbench.probing.layer_factors import StackFactors
from initbench.probing.messages import as_apply_init_call
from initbench.probing.remedies import DiagnosisContext
from initbench.probing.theory import TheoryPrediction, input_statistics
from initbench.registry import Options
from initbench.theory.fixed_points import fixed_point
from initbench.theory.propagation import propagate
from initbench.theory.types import LayerPrediction, TheoryLayer
from initbench.trace.weight_use import WeightUse

_ORTHOGONAL = 1e-3
"""Largest cosine of two weight rows or columns that are orthogonal up to rounding."""
_UNIFORM = 1.02
_MIN_BIASES = 16


@dataclass(frozen=True)
class WeightStatistics:
    """Statistics of the weights and biases of one layer, over all nets."""

    sigma_w2: float
    """fan_in times the mean square of the weights."""
    bias_mean: float
    bias_std: float
    uniform: bool
    """Whether the range of the biases is that of a uniform distribution, not of a Gaussian one."""


def predict_module(nets: Sequence[Sequence[WeightUse]], x: Tensor) -> TheoryPrediction:
    """Return the theoretical predictions for nets that were drawn in the same way.

    Args:
        nets: The weight uses of each net.
        x: The batch (B, …).
    """
    first = nets[0]
    reason = _why_unpredictable(first)
    if reason is not None:
        return TheoryPrediction([LayerPrediction() for _ in first], None, reason)
    layers = [_layer(index, nets) for index in range(len(first))]
    predicted = propagate(layers, input_statistics(x))
    hidden = [layer.wide_q for layer in predicted[:-1] if layer.wide_q is not None]
    fixed = fixed_point(layers[-2], start=hidden[-1]) if hidden else None
    return TheoryPrediction(predicted, fixed, None)


def module_context(nets: Sequence[Sequence[WeightUse]], expected: TheoryPrediction) -> DiagnosisContext:
    """Return the context of a diagnosis, inferred from the nets instead of a config."""
    first = nets[0]
    hidden = [index for index, use in enumerate(first) if use.activation is not None]
    activation = common_activation(first)
    norms = Counter(use.norm for use in first if use.norm is not None)
    sigma_w2 = layer_weight_statistics(hidden[-1], nets).sigma_w2 if hidden else None
    norm = norms.most_common(1)[0][0] if norms else "none"
    return DiagnosisContext(
        scheme="this init",
        gain=None,
        bias=0.0,
        activation=activation,
        norm=norm,
        norm_first=True,
        depth=None,
        layers=len(hidden),
        width=round(first[hidden[-1]].fan_in) if hidden else 1,
        sigma_w2=sigma_w2 or None,
        prediction=_prediction(activation, sigma_w2 or None, expected),
        phrase=lambda words: as_apply_init_call(words, activation),
    )


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


def _prediction(
    activation: BoundActivation, sigma_w2: float | None, expected: TheoryPrediction
) -> StackFactors:
    if not activation.entry.elementwise:
        return StackFactors(None, None, None, None, 1.0, 1.0)
    needed = activation.natural_sigma_w2
    chi = activation.chi(activation.natural_q, sigma_w2=needed)
    hidden = [layer for layer in expected.layers if layer.wide_q and layer.chi_1]
    if len(hidden) < 2:
        return StackFactors(None, None, None, sigma_w2, needed, chi)
    steps = len(hidden) - 1
    first, last = hidden[0].wide_q, hidden[-1].wide_q
    assert first is not None and last is not None
    signal = math.exp(math.fsum(math.log(layer.chi_1) for layer in hidden[:-1] if layer.chi_1) / steps)
    return StackFactors((last / first) ** (1.0 / steps), signal, None, sigma_w2, needed, chi)


def _why_unpredictable(uses: Sequence[WeightUse]) -> str | None:
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


def _layer(index: int, nets: Sequence[Sequence[WeightUse]]) -> TheoryLayer:
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


def common_activation(uses: Sequence[WeightUse]) -> BoundActivation:
    """Return the most frequent activation, or a placeholder if it is not in the catalogue."""
    labels = Counter(use.activation.label for use in uses if use.activation is not None)
    if not labels:
        return bound("linear")
    label = labels.most_common(1)[0][0]
    bound_activation: Any = next(
        use.activation.bound for use in uses if use.activation and use.activation.label == label
    )
    if bound_activation is not None:
        return bound_activation  # type: ignore[no-any-return]
    unknown = Activation(name=label, summary="", source="", build=lambda _options, _features: nn.Identity())
    return unknown.bind(Options())
