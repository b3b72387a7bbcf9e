"""What a pass shows of one layer, as plain data that a run stores and a diagnosis reads."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from initbench.probing import tensor_statistics
from initbench.probing.tensor_statistics import ProbeDetail


def start_record(output: Tensor, units_second: Tensor, detail: ProbeDetail) -> dict[str, Any]:
    """Statistics of a pre-activation; a hook on its gradient δ adds those on the way back.

    `output` is the tensor in the graph, `units_second` the same as (B, C, …).
    """
    x = units_second.detach().double()
    statistics: dict[str, Any] = dict(tensor_statistics.moments(x))
    statistics["signal"] = tensor_statistics.signal_variance(x)
    if detail >= ProbeDetail.EVALUATION:
        statistics["correlation"] = tensor_statistics.correlation(x)
    if detail >= ProbeDetail.FULL:
        statistics["quantiles"] = tensor_statistics.quantiles(units_second.detach())
    record: dict[str, Any] = {
        "pre": statistics,
        "act": None,
        "grad": {"pre_q": None},
        "unit_spread": tensor_statistics.spread_over_units(tensor_statistics.channels_last(x)),
    }

    def on_gradient(delta: Tensor) -> None:
        d = delta.detach().double()
        record["grad"]["pre_q"] = tensor_statistics.mean_square(d)
        if detail >= ProbeDetail.EVALUATION:
            record["grad"]["zero_fraction"] = float((d == 0).double().mean())

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
    """The record of the layer called by `place` (index, name, units), with what its weight and gradient say.

    weight, gradient: (units, …). Units are told apart by their rows in both.
    """
    stored = detail >= ProbeDetail.EVALUATION
    if stored or record["unit_spread"] <= tensor_statistics.ALIKE:
        rows = [part.detach().double().flatten(1).mT for part in (weight, gradient) if part is not None]
        record["unit_spread"] = max(record["unit_spread"], *map(tensor_statistics.spread_over_units, rows))
    if stored:
        record["grad"]["weight_norm"] = None if gradient is None else float(gradient.double().norm())
        record["weight_std"] = float(weight.detach().double().std(correction=0))
    return {**layer, **record}
