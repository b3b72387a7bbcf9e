"""Measurements of one layer in a pass, as plain data that a run stores and a diagnosis reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from initbench.components.activation import BoundActivation
from initbench.probing import tensor_statistics
from initbench.probing.tensor_statistics import ProbeDetail


def start_record(
    output: Tensor,
    units_second: Tensor,
    detail: ProbeDetail,
    *,
    positions: float,
    bins: int | None = None,
) -> dict[str, Any]:
    """Return the statistics of a pre-activation, to which a hook adds those of its gradient δ.

    Args:
        output: The pre-activation in the autograd graph.
        units_second: The same tensor as (B, C, …).
        detail: The statistics to compute.
        positions: The number of positions per sample and unit at which the pass multiplies by the weight,
            such as H·W of a map; stored unless it is 1.
        bins: The number of bins of the histograms of the pre-activation and of δ, or None for no histograms.
    """
    raw = units_second.detach()
    x = raw.double()
    statistics: dict[str, Any] = dict(tensor_statistics.moments(x))
    q = statistics["q"]
    statistics["signal"] = tensor_statistics.signal_variance(x, q)
    if detail >= ProbeDetail.EVALUATION:
        statistics["correlation"] = tensor_statistics.correlation(x)
    if detail >= ProbeDetail.FULL:
        statistics["quantiles"] = tensor_statistics.quantiles(raw)
    if bins is not None:
        statistics["histogram"] = tensor_statistics.scaled_histogram(x, q, bins)
    record: dict[str, Any] = {
        "pre": statistics,
        "act": None,
        "grad": {"pre_q": None},
        "unit_spread": tensor_statistics.spread_over_units(tensor_statistics.channels_last(x), q),
    }

    if positions != 1.0:
        record["positions"] = positions

    def on_gradient(delta: Tensor) -> None:
        """Add the statistics of δ to the record."""
        d = delta.detach().double()
        q = tensor_statistics.mean_square(d)
        record["grad"]["pre_q"] = q
        if detail >= ProbeDetail.EVALUATION:
            record["grad"]["zero_fraction"] = tensor_statistics.zero_fraction(delta.detach())
        if bins is not None:
            record["grad"]["histogram"] = tensor_statistics.scaled_histogram(d, q, bins)

    if output.requires_grad:
        output.register_hook(on_gradient)  # type: ignore[no-untyped-call]
    return record


def activation_record(
    pre: Tensor | None,
    act: Tensor,
    activation: BoundActivation | None,
    detail: ProbeDetail,
    bins: int | None = None,
) -> dict[str, Any]:
    """Return the statistics of an activation: moments, and the shares of zeros, dead units and flat parts.

    Args:
        pre: The pre-activation in the precision of the net, or None.
        act: The output (B, C, …) of the activation in the precision of the net.
        activation: The activation, or None if it is unknown.
        detail: The statistics to compute.
        bins: The number of bins of the histogram, or None for no histogram. Its range is that of the
            activation, or follows the entries if the activation is unknown.

    Returns:
        The statistics; the saturated share is None without a pre-activation or a known activation.
    """
    raw = act.detach()
    x = raw.double()
    moments = tensor_statistics.moments(x)
    has_nan = math.isnan(moments["mean"]) and bool(raw.isnan().any())
    zero, dead = (math.nan, math.nan) if has_nan else tensor_statistics.zero_shares(raw)
    statistics: dict[str, Any] = {
        **moments,
        "zero_fraction": zero,
        "dead_fraction": dead,
        "saturated_fraction": (
            None if pre is None else tensor_statistics.saturated_fraction(pre.detach(), activation)
        ),
    }
    if bins is not None:
        statistics["histogram"] = (
            tensor_statistics.scaled_histogram(x, moments["q"], bins)
            if activation is None
            else tensor_statistics.histogram(x, activation.entry.histogram_range, bins)
        )
    if detail >= ProbeDetail.FULL:
        statistics["effective_rank"] = tensor_statistics.effective_rank(x)
    return statistics


@dataclass(frozen=True)
class MeasuredLayer:
    """Measurements of one layer in a pass, before `finish_records`."""

    record: dict[str, Any]
    """Record of the pass."""
    labels: dict[str, Any]
    """Index, name and number of units of the layer."""
    weight: Tensor
    """The weight (units, …); its rows distinguish the units."""
    gradient: Tensor | None
    """Gradient of the weight (units, …), or None."""


def finish_records(layers: Sequence[MeasuredLayer], detail: ProbeDetail) -> list[dict[str, Any]]:
    """Return the complete records of layers, with the statistics of their weights and weight gradients."""
    stored = detail >= ProbeDetail.EVALUATION
    needed = [layer for layer in layers if stored or layer.record["unit_spread"] <= tensor_statistics.ALIKE]
    weights = tensor_statistics.matrix_statistics([layer.weight for layer in needed])
    with_gradient = [layer for layer in needed if layer.gradient is not None]
    gradients = dict(
        zip(
            map(id, with_gradient),
            tensor_statistics.matrix_statistics(
                [layer.gradient for layer in with_gradient if layer.gradient is not None]
            ),
            strict=True,
        )
    )
    for layer, weight in zip(needed, weights, strict=True):
        record, gradient = layer.record, gradients.get(id(layer))
        spreads = [part.row_spread for part in (weight, gradient) if part is not None]
        record["unit_spread"] = max(record["unit_spread"], *spreads)
        if stored:
            record["grad"]["weight_norm"] = None if gradient is None else gradient.norm
            record["weight_std"] = weight.std
    return [{**layer.labels, **layer.record} for layer in layers]
