"""Mean-field theory for each position of a feature map: zero-padded convolutions, and norms within a sample.

In a wide layer, the pre-activation at position p of sample x is Gaussian over the channels, and its variance
follows from the layer below (Poole et al. 2016, and Xiao et al. 2018 for convolutions):

    v_l(x, p) = σ_w²·(1/k²)·Σ_o E[φ(h_{l−1}(x, s·p + o))²] + σ_b²,

where o runs over the offsets of a k × k kernel that fall on the map, and s is the stride. Positions at a
border see zeros of the padding, so a map loses signal in every layer: with relu at its gain, a 3 × 3 kernel
on a map of H × H keeps a fraction ((1 + 2cos(π/(H + 1)))/3)² per layer in the long run, 0.921 for H = 8. A
layer norm or rms norm over the sample divides by r(x)² + ε, where r(x)² is the mean of E[h²] over p:

    v_l(x, p) ← v_l(x, p)/(r_l(x)² + ε).

In that case a uniform bias is treated as a Gaussian one with the same variance, which is a small part of the
total.

In the backward pass, each step is the adjoint of the forward step (Schoenholz et al. 2017):

    E[δ_l(x, p)²] = E[φ′(h_l)²]·(σ_w²·C/fan_in)·Σ_p′ E[δ_{l+1}(x, p′)²]/(r_{l+1}(x)² + ε),

summed over the positions p′ of the C channels above that see p. The Jacobian of a norm also removes the
direction of h, and the mean: a fraction 1/units of E[δ²], which is negligible in wide nets. All samples start
with the same E[δ²] at the head.

A fully connected layer is a kernel of size 1 on maps of size 1. If the head takes the mean over positions,
its q depends on correlations between positions, which are not computed; it is not predicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torch.nn.grad import conv2d_input

from initbench.theory.bands import PredictedStatistic
from initbench.theory.interpolated_expectations import InterpolatedExpectations
from initbench.theory.nonlinearity import Nonlinearity
from initbench.theory.preactivation import PreactivationDistribution
from initbench.theory.propagation import Q_OVERFLOW, Q_UNDERFLOW
from initbench.theory.types import LayerPrediction, TheoryLayer

NOTHING = LayerPrediction(trusted=False, backward_trusted=False)
"""Prediction of a layer about which the theory makes no statement."""


@dataclass(frozen=True)
class MapLayer:
    """A hidden layer whose weights are kernels of odd size, padded with zeros."""

    layer: TheoryLayer
    kernel: int = 1
    stride: int = 1
    norm_eps: float | None = None
    """ε of a layer norm or rms norm before the activation, after which units share no bias; None without."""

    def gathered(self, maps: Tensor) -> Tensor:
        """Return the sum over each position's receptive field: (B, H, W) → (B, ⌈H/stride⌉, ⌈W/stride⌉)."""
        sums = conv2d(maps[:, None], self._window(maps), stride=self.stride, padding=self.kernel // 2)
        return sums[:, 0]

    def scattered(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """Apply the adjoint of `gathered`; returns maps of shape `size` (B, H, W)."""
        shape = (size[0], 1, size[1], size[2])
        below: Tensor = conv2d_input(  # type: ignore[no-untyped-call]
            shape,
            self._window(maps),
            maps[:, None].contiguous(),
            stride=self.stride,
            padding=self.kernel // 2,
        )
        return below[:, 0]

    def _window(self, maps: Tensor) -> Tensor:
        return torch.ones(1, 1, self.kernel, self.kernel, dtype=maps.dtype)


@dataclass(frozen=True)
class Head:
    """The linear layer at the end, whose input is all positions or their mean."""

    layer: TheoryLayer
    averaged: bool = False


@dataclass(frozen=True)
class _Field:
    """One layer's pre-activations after its norm: a distribution for every position of every sample."""

    variance: Tensor
    shift: float
    half_width: float
    scale2: Tensor | float
    """r² + ε of each sample, (B, 1, 1), or 1."""

    @property
    def second_moment(self) -> float:
        """E[h²]."""
        return float(self.variance.mean()) + self.shift**2 + self.half_width**2 / 3.0


class _Tables:
    """Cache of interpolation tables by activation and bias; most layers share one."""

    def __init__(self) -> None:
        self._made: dict[tuple[Nonlinearity, float, float], InterpolatedExpectations] = {}

    def of(self, activation: Nonlinearity, field: _Field) -> dict[str, Tensor]:
        key = (activation, field.shift, field.half_width)
        if key not in self._made:
            self._made[key] = InterpolatedExpectations(
                activation, shift=field.shift, half_width=field.half_width
            )
        return self._made[key].at(field.variance)


def propagate_maps(layers: Sequence[MapLayer], head: Head, energy: Tensor) -> list[LayerPrediction]:
    """Return the predictions for infinitely wide nets, without standard deviations; one per layer, head last.

    Layers after the signal underflows or overflows in float32 get an empty prediction; in that case, no layer
    gets a prediction of its gradient.

    Args:
        layers: Hidden layers.
        head: The linear layer at the end.
        energy: Mean square of the input batch over its channels; (B, H, W) float64, ≥ 0.
    """
    predicted, slopes, fields, tables = [], [], [], _Tables()
    for layer in layers:
        field = _field(layer, energy)
        if not Q_UNDERFLOW < field.second_moment < Q_OVERFLOW:
            break
        assert layer.layer.activation is not None
        means = tables.of(layer.layer.activation, field)
        predicted.append(_predicted(field, means, layer.layer.activation))
        energy = means["act2"]
        slopes.append(means["slope2"])
        fields.append(field)
    if len(predicted) < len(layers):
        return [*predicted, *(NOTHING for _ in range(len(layers) + 1 - len(predicted)))]
    places = energy[0].numel()
    for prediction, ratio in zip(predicted, _gradient_ratios(layers, head, fields, slopes), strict=True):
        prediction.statistics["grad_ratio"] = PredictedStatistic(ratio)
    return [*predicted, _of_head(head, float(energy.mean()), places)]


def _field(layer: MapLayer, energy: Tensor) -> _Field:
    drawn, window = layer.layer, layer.kernel**2
    # The convolution may return values slightly below 0 due to rounding.
    variance = (drawn.sigma_w2 / window * layer.gathered(energy)).clamp(min=0.0) + drawn.bias_variance
    if layer.norm_eps is None:
        return _Field(variance, drawn.bias_shift, drawn.bias_half_width, 1.0)
    variance = variance + drawn.bias_half_width**2 / 3.0
    scale2 = variance.mean((1, 2), keepdim=True) + layer.norm_eps
    return _Field(variance / scale2, 0.0, 0.0, scale2)


def _predicted(field: _Field, means: dict[str, Tensor], activation: Nonlinearity) -> LayerPrediction:
    mean, square = float(means["act"].mean()), float(means["act2"].mean())
    statistics = {
        "q": field.second_moment,
        "act_mean": mean,
        "act_std": math.sqrt(max(0.0, square - mean**2)),
        "zero_fraction": float(means["zero"].mean()),
    }
    if activation.flat_below is not None:
        statistics["saturated_fraction"] = float(means["flat"].mean())
    return replace(without_bands(statistics), bias_shift=field.shift, bias_half_width=field.half_width)


def without_bands(statistics: dict[str, float]) -> LayerPrediction:
    """Return a prediction with the values of infinitely wide nets and unknown standard deviations."""
    values = {name: PredictedStatistic(value) for name, value in statistics.items()}
    return LayerPrediction(values, trusted=False, backward_trusted=False, wide_q=statistics["q"])


def _of_head(head: Head, square: float, places: int) -> LayerPrediction:
    if head.averaged and places > 1:
        return NOTHING
    return predict_head(head.layer.law(square))


def predict_head(law: PreactivationDistribution) -> LayerPrediction:
    """Return the prediction for logits with the distribution `law`, without a standard deviation."""
    return replace(
        without_bands({"q": law.second_moment}), bias_shift=law.shift, bias_half_width=law.half_width
    )


def _gradient_ratios(
    layers: Sequence[MapLayer], head: Head, fields: Sequence[_Field], slopes: Sequence[Tensor]
) -> list[float]:
    """Return, for each hidden layer, E[δ²] divided by E[δ²] of the next layer."""
    if not layers:
        return []
    top = head.layer
    positions = slopes[-1][0].numel() ** 2 if head.averaged else 1
    below = slopes[-1] * (top.sigma_w2 * top.units / (top.fan_in * positions))
    ratios = [float(below.mean())]
    for index in range(len(layers) - 1, 0, -1):
        drawn, whole = layers[index].layer, float(below.mean())
        if whole <= 0.0:
            ratios.append(0.0)
            continue
        delta = below / whole / fields[index].scale2
        factor = drawn.sigma_w2 * drawn.units / drawn.fan_in
        below = slopes[index - 1] * factor * layers[index].scattered(delta, slopes[index - 1].shape)
        ratios.append(float(below.mean()))
    return ratios[::-1]
