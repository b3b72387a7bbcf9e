"""Residual stream of a net, which is measured at its sums, since the output of a branch may be small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from initbench.probing.finding import format_factor

Record = dict[str, Any]

_SUBJECT = {
    "vanishing_forward": "the signal in the residual stream falls",
    "exploding_forward": "E[x²] of the residual stream grows",
    "vanishing_backward": "E[δ²] at the residual sums falls on the way back",
    "exploding_backward": "E[δ²] at the residual sums grows on the way back",
}


def outside_branches(layers: Sequence[Record]) -> list[Record]:
    """Return the layers outside of short residual branches, which every signal passes through."""
    return [layer for layer in layers if not layer.get("in_branch")]


def residual_sums(layers: Sequence[Record]) -> list[Record]:
    """Return the records of the sums, in order, each with the index of the last layer of its branch."""
    return [{"index": layer["index"], "act": None, **layer["sum"]} for layer in layers if "sum" in layer]


def are_branches_normed(sums: Sequence[Record]) -> bool:
    """Whether all branches end in a norm, so that the size of their output is independent of the weights."""
    return all(record.get("is_normed") for record in sums)


def stream_sentence(code: str, slope: float, span: tuple[int, int], sums: int) -> str:
    """Return the size of a log-slope over residual sums, after layers span[0] to span[1], as text."""
    factor = math.exp(slope) if slope < 700 else math.inf
    where = f"({sums} sums, after layers {span[0]} to {span[1]})"
    what = f"{_SUBJECT[code]} {format_factor(factor)} a sum {where}."
    if code.startswith("exploding"):
        return f"{what} The branches are as large as the residual stream."
    return f"{what} Look for an operation that scales the stream itself down from block to block."
