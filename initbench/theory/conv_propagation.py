"""Mean-field theory of nets whose places differ: convolutions padded with zeros, and norms within a sample.

In a wide layer, a pre-activation at place p of sample x is Gaussian over the channels, and its variance
follows from the layer below (Poole et al. 2016, and Xiao et al. 2018 for convolutions):

    v_l(x, p) = σ_w²·(1/k²)·Σ_o E[φ(h_{l−1}(x, s·p + o))²] + σ_b²,

o running over the offsets of a k × k kernel that fall on the map, s being the stride. Places at a border miss
what the padding has instead, which is why a map loses signal in every layer: a 3 × 3 kernel on a map of H × H
keeps ((1 + 2cos(π/(H + 1)))/3)² of it in the long run, relu at its gain, 0.921 for H = 8. A layer norm or rms
norm over the sample divides by r(x)² = mean over p of E[h²], and ε:

    v_l(x, p) ← v_l(x, p)/(r_l(x)² + ε),

and a uniform bias then counts as a Gaussian one of its variance, which is a small share of the whole.

Gradients go the other way, each step the adjoint of the one above (Schoenholz et al. 2017):

    E[δ_l(x, p)²] = E[φ′(h_l)²]·(σ_w²·C/fan_in)·Σ_p′ E[δ_{l+1}(x, p′)²]/(r_{l+1}(x)² + ε),

over the places p′ of the C channels above that see p. A norm's Jacobian also takes out the direction of h,
and the mean: 1/units of E[δ²], nothing in wide nets. All samples start with the same E[δ²] at the head.

A fully connected layer is a kernel of 1 on maps of one place. The mean of the places that a head may look at
depends on how places go together, of which nothing is known here: its q is not predicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torch.nn.grad import conv2d_input

from initbench.theory.interpolated_expectations import InterpolatedExpectations
from initbench.theory.nonlinearity import Nonlinearity
from initbench.theory.propagation import Q_OVERFLOW, Q_UNDERFLOW
from initbench.theory.types import LayerPrediction, PredictedStatistic, TheoryLayer

NOTHING = LayerPrediction(trusted=False, backward_trusted=False)
"""Of a layer that theory has no word on."""


@dataclass(frozen=True)
class MapLayer:
    """A hidden layer: its weights are kernels of odd side, padded with zeros."""

    layer: TheoryLayer
    kernel: int = 1
    stride: int = 1
    norm_eps: float | None = None
    """ε of a layer norm or rms norm before the activation. No bias that units share is left behind it."""

    def gathered(self, maps: Tensor) -> Tensor:
        """Sum over what each place sees: (B, H, W) → (B, ⌈H/stride⌉, ⌈W/stride⌉)."""
        sums = conv2d(maps[:, None], self._window(maps), stride=self.stride, padding=self.kernel // 2)
        return sums[:, 0]

    def scattered(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """The adjoint of `gathered`, onto maps of `size` (B, H, W)."""
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
    """The linear layer at the end, which sees all places or their mean."""

    layer: TheoryLayer
    averaged: bool = False


@dataclass(frozen=True)
class _Field:
    """One layer's pre-activations behind its norm: a law for every place of every sample."""

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
    """Expectations by the law of the bias; most layers share one."""

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
    """What to expect of each layer, head last, of infinitely wide nets: no standard deviations, no bands.

    `energy` (B, H, W) ≥ 0, float64, is the mean over channels of the squares of the batch that goes in.
    Layers past the point where float32 has lost the signal are predicted nothing, and then no layer's
    gradient.
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
    # Sums of floating point squares may end below 0.
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
    return without_bands(statistics)


def without_bands(statistics: dict[str, float]) -> LayerPrediction:
    """Values of infinitely wide nets, of whose scatter at finite width nothing is known."""
    values = {name: PredictedStatistic(value) for name, value in statistics.items()}
    return LayerPrediction(values, trusted=False, backward_trusted=False, wide_q=statistics["q"])


def _of_head(head: Head, square: float, places: int) -> LayerPrediction:
    if head.averaged and places > 1:
        return NOTHING
    return without_bands({"q": head.layer.law(square).second_moment})


def _gradient_ratios(
    layers: Sequence[MapLayer], head: Head, fields: Sequence[_Field], slopes: Sequence[Tensor]
) -> list[float]:
    """E[δ²] of each hidden layer over that of the next one."""
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
