"""The residual stream of a net: judged at its sums, since what a branch adds may well be small."""

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
    """Layers that every signal has to pass: those of short residual branches left out."""
    return [layer for layer in layers if not layer.get("in_branch")]


def residual_sums(layers: Sequence[Record]) -> list[Record]:
    """What was measured at the sums, in order, each under the index of the last layer of its branch."""
    return [{"index": layer["index"], "act": None, **layer["sum"]} for layer in layers if "sum" in layer]


def are_branches_normed(sums: Sequence[Record]) -> bool:
    """Whether all branches end in a norm, so that what they add is as large whatever their weights are."""
    return all(record.get("is_normed") for record in sums)


def stream_sentence(code: str, slope: float, span: tuple[int, int], sums: int) -> str:
    """Say how much, for a log-slope over so many sums, behind the layers span[0] to span[1]."""
    factor = math.exp(slope) if slope < 700 else math.inf
    what = (
        f"{_SUBJECT[code]} {format_factor(factor)} a sum ({sums} sums, behind layers {span[0]} to {span[1]})."
    )
    if code.startswith("exploding"):
        return f"{what} Every branch adds as much as what it is added to."
    return f"{what} Look for what scales the stream itself down from block to block."
