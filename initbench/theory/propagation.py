"""Mean-field prediction of the statistics of every layer in a stack, and of their finite-width deviation.

The length map and χ are from Poole et al. 2016 and Schoenholz et al. 2017. To leading order in 1/width, a
layer's expected second moment K(x) = σ_w² mean φ(h)² + σ_b² is a random variable that depends on the layers
below; its covariance over two inputs propagates as

    v_ab ← χ∥² v_ab + (σ_w⁴/n)·Cov(φ(h_a)², φ(h_b)²),   n being the units of the layer below.

A statistic T, the mean of ψ(h) over a layer's units and a batch, has the variance (averaged over pairs of
inputs)

    Var T = Cov(ψ(h_a), ψ(h_b))/units + (∂E[ψ]/∂K)² v_ab.

For relu with σ_w² = 2, one net and one input, the relative variance of q is (5(L−1) + 2)/n. The curvature of
the length map turns v into a shift of the mean, m ← χ∥ m + ½σ_w² (∂²E[φ²]/∂K²) v_aa. Two uncorrelated inputs
get a random correlation with variance 1/n in each layer, which propagates in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from operator import and_

from initbench.theory.expectations import (
    LINEAR,
    Correlation,
    Covariances,
    covariances,
    expectations,
    next_correlation,
)
from initbench.theory.finite_width import LayerStep, at_the_head, forward_statistics, gradient_ratio
from initbench.theory.types import InputStatistics, LayerPrediction, TheoryLayer

MAX_RELATIVE_SPREAD = 0.5
"""Largest relative standard deviation over nets at which the leading order in 1/width is trusted."""
Q_UNDERFLOW = 1e-70
"""Second moment below which float32 has lost the signal: later layers are not predicted."""
Q_OVERFLOW = 1e70


def propagate(layers: Sequence[TheoryLayer], source: InputStatistics) -> list[LayerPrediction]:
    """Return the prediction for each layer. No activation precedes the first layer; the last one is the head.

    Layers after an underflow or overflow of the signal in float32 get an empty prediction.
    """
    steps = list(_walk(layers, source))
    trusted = list(accumulate((step.relative_spread <= MAX_RELATIVE_SPREAD for step in steps), and_))
    steps = [step if good else step.infinite_width() for step, good in zip(steps, trusted, strict=True)]
    predicted = [_predicted(step, trusted=good) for step, good in zip(steps, trusted, strict=True)]
    backward = at_the_head(layers[-1].units, steps[-1].law.second_moment if steps else 0.0)
    for step, layer in reversed(list(zip(steps, predicted, strict=True))):
        if step.following is not None:
            layer.statistics["grad_ratio"], backward = gradient_ratio(step, backward)
    if not all(trusted):  # the gradient of every layer depends on all layers above
        predicted = [replace(layer, backward_trusted=False) for layer in predicted]
    return predicted + [LayerPrediction() for _ in range(len(layers) - len(steps))]


def _predicted(step: LayerStep, *, trusted: bool) -> LayerPrediction:
    prediction = LayerPrediction(
        forward_statistics(step),
        trusted,
        wide_q=step.law.second_moment,
        correlation=step.correlation,
        bias_shift=step.law.shift,
        bias_half_width=step.law.half_width,
    )
    if step.following is None:
        return prediction
    sigma_w2 = step.following.sigma_w2
    return replace(
        prediction,
        chi_1=sigma_w2 * step.expected.mean["slope2"],
        chi_parallel=sigma_w2 * step.expected.slope["act2"],
    )


def _walk(layers: Sequence[TheoryLayer], source: InputStatistics) -> Iterator[LayerStep]:
    law = layers[0].law(source.q)
    correlation = Correlation(_first_correlation(layers[0], source), source.correlation_spread)
    spread, shift = (layers[0].sigma_w2 * source.q) ** 2 * source.spread, 0.0
    # The batch is the same for every net, so the deviations of its inputs average to 0 over all pairs.
    v = (spread, -spread / max(1, source.samples - 1))
    last: Covariances | None = None
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if not Q_UNDERFLOW < law.second_moment < Q_OVERFLOW or law.variance <= 0.0:
            return
        activation = layer.activation or LINEAR
        expected = expectations(activation, law)
        if (
            last is None
            or layer.activation is None
            or not last.is_close_enough(law, correlation.mean, correlation.chance)
        ):
            last = covariances(activation, law, expected.mean, correlation.mean, correlation.chance)
        step = LayerStep(layer, following, law, expected, correlation.mean, last, v, shift, source.samples)
        yield step
        if following is None:
            return
        scales = (following.sigma_w2, following.bias_variance)
        drawn = last.drawn_chance(layer.units)
        correlation = next_correlation(activation, law, expected, correlation, drawn, scales)
        law, v, shift = following.law(expected.mean["act2"]), step.next_covariance, step.shift_next


def _first_correlation(first: TheoryLayer, source: InputStatistics) -> float:
    variance = first.sigma_w2 * source.q + first.bias_variance
    shared = first.sigma_w2 * source.q * source.correlation + first.bias_variance
    return shared / variance if variance > 0.0 else 1.0
