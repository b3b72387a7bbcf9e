"""What a pass shows of one layer, as plain data that a run stores and a diagnosis reads."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from initbench.probing import moments
from initbench.probing.moments import Detail


def begin(output: Tensor, units_second: Tensor, detail: Detail) -> dict[str, Any]:
    """Statistics of a pre-activation; a hook on its gradient δ adds those on the way back.

    `output` is the tensor in the graph, `units_second` the same as (B, C, …).
    """
    x = units_second.detach().double()
    statistics: dict[str, Any] = dict(moments.moments(x))
    statistics["signal"] = moments.signal(x)
    if detail >= Detail.EVALUATION:
        statistics["correlation"] = moments.correlation(x)
    if detail >= Detail.FULL:
        statistics["quantiles"] = moments.quantiles(units_second.detach())
    record: dict[str, Any] = {
        "pre": statistics,
        "act": None,
        "grad": {"pre_q": None},
        "unit_spread": moments.spread_over_units(moments.channels_last(x)),
    }

    def on_gradient(delta: Tensor) -> None:
        d = delta.detach().double()
        record["grad"]["pre_q"] = moments.mean_square(d)
        if detail >= Detail.EVALUATION:
            record["grad"]["zero_fraction"] = float((d == 0).double().mean())

    if output.requires_grad:
        output.register_hook(on_gradient)  # type: ignore[no-untyped-call]
    return record


def finish(
    record: dict[str, Any],
    place: dict[str, Any],
    weight: Tensor,
    gradient: Tensor | None,
    detail: Detail,
) -> dict[str, Any]:
    """The record of the layer called by `place` (index, name, units), with what its weight and gradient say.

    weight, gradient: (units, …). Units are told apart by their rows in both.
    """
    stored = detail >= Detail.EVALUATION
    if stored or record["unit_spread"] <= moments.ALIKE:
        rows = [part.detach().double().flatten(1).mT for part in (weight, gradient) if part is not None]
        record["unit_spread"] = max(record["unit_spread"], *map(moments.spread_over_units, rows))
    if stored:
        record["grad"]["weight_norm"] = None if gradient is None else float(gradient.double().norm())
        record["weight_std"] = float(weight.detach().double().std(correction=0))
    return {**place, **record}
