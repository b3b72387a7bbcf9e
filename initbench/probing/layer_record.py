"""Measurements of one layer in a pass, as plain data that a run stores and a diagnosis reads."""

from __future__ import annotations

from typing import Any

from torch import Tensor

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
    x = units_second.detach().double()
    statistics: dict[str, Any] = dict(tensor_statistics.moments(x))
    statistics["signal"] = tensor_statistics.signal_variance(x)
    if detail >= ProbeDetail.EVALUATION:
        statistics["correlation"] = tensor_statistics.correlation(x)
    if detail >= ProbeDetail.FULL:
        statistics["quantiles"] = tensor_statistics.quantiles(units_second.detach())
    if bins is not None:
        statistics["histogram"] = tensor_statistics.scaled_histogram(x, statistics["q"], bins)
    record: dict[str, Any] = {
        "pre": statistics,
        "act": None,
        "grad": {"pre_q": None},
        "unit_spread": tensor_statistics.spread_over_units(tensor_statistics.channels_last(x)),
    }

    if positions != 1.0:
        record["positions"] = positions

    def on_gradient(delta: Tensor) -> None:
        d = delta.detach().double()
        q = tensor_statistics.mean_square(d)
        record["grad"]["pre_q"] = q
        if detail >= ProbeDetail.EVALUATION:
            record["grad"]["zero_fraction"] = int((d == 0).sum()) / d.numel()
        if bins is not None:
            record["grad"]["histogram"] = tensor_statistics.scaled_histogram(d, q, bins)

    if output.requires_grad:
        output.register_hook(on_gradient)  # type: ignore[no-untyped-call]
    return record


def finish_record(
    record: dict[str, Any],
    layer: dict[str, Any],
    weight: Tensor,
    gradient: Tensor | None,
    detail: ProbeDetail,
) -> dict[str, Any]:
    """Return the complete record of a layer, with the statistics of its weight and weight gradient.

    Args:
        record: The record of the pass.
        layer: Index, name and number of units of the layer.
        weight: The weight (units, …); its rows distinguish the units.
        gradient: The gradient of the weight (units, …), or None.
        detail: The statistics to compute.
    """
    stored = detail >= ProbeDetail.EVALUATION
    if stored or record["unit_spread"] <= tensor_statistics.ALIKE:
        rows = [part.detach().double().flatten(1).mT for part in (weight, gradient) if part is not None]
        record["unit_spread"] = max(record["unit_spread"], *map(tensor_statistics.spread_over_units, rows))
    if stored:
        record["grad"]["weight_norm"] = None if gradient is None else float(gradient.double().norm())
        record["weight_std"] = float(weight.detach().double().std(correction=0))
    return {**layer, **record}
