"""Profile of one snapshot over the depth of a net: a bar per layer, and where the signal is lost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from initbench.probing.log_slopes import VANISHING_RATIO
from initbench.render import text
from initbench.render.layer_means import LayerView, layer_views
from initbench.store.strict_json import parse_number_or_none

_LOG_FROM = 30.0
"""Ratio of the largest to the smallest positive value from which bars have a logarithmic scale."""


@dataclass(frozen=True)
class ProfileRow:
    """One statistic of all layers, from the input to the head."""

    label: str
    values: list[float | None]
    is_share: bool = False
    """Whether the values are shares, whose bars have the scale 0 to 1."""

    @property
    def is_log(self) -> bool:
        """Whether the bars have a logarithmic scale."""
        positive = [value for value in self.values if value is not None and 0.0 < value < math.inf]
        return not self.is_share and bool(positive) and max(positive) >= _LOG_FROM * min(positive)

    def bars(self, cells: int, *, ascii_only: bool) -> str:
        """Return one character per layer, or per evenly spaced layer if there are more than `cells`.

        `0` stands for 0, `!` for a value that is not finite, a space for a missing one.
        """
        drawn = [self.values[position] for position in evenly_spaced_layers(len(self.values), cells)]
        return text.value_bars(drawn, is_log=self.is_log, is_share=self.is_share, ascii_only=ascii_only)

    @property
    def ends(self) -> str:
        """The first and the last value, in text."""
        present = [value for value in self.values if value is not None]
        if not present:
            return text.DASH
        form = text.format_percent if self.is_share else text.format_number
        words = f"{form(present[0])} → {form(present[-1])}"
        return f"{words} %" if self.is_share else words + (" (log)" if self.is_log else "")


@dataclass(frozen=True)
class LossOfSignal:
    """The first layer in which a quantity is lost or not finite."""

    layer: int
    """Index of the layer, from 1."""
    kind: str
    """`not_finite`, or one of the codes of slopes, such as `vanishing_forward`."""

    @property
    def words(self) -> str:
        """The measurement in words."""
        return f"layer {self.layer}: {_WORDS[self.kind]}"


_WORDS = {
    "not_finite": "not finite",
    "vanishing_forward": f"signal < {VANISHING_RATIO:g} × first",
    "exploding_forward": f"q > {1 / VANISHING_RATIO:g} × first",
    "vanishing_backward": f"E[δ²] < {VANISHING_RATIO:g} × last",
    "exploding_backward": f"E[δ²] > {1 / VANISHING_RATIO:g} × last",
}
"""Measurements in words; first and last: the hidden layers from which signal and gradient start."""


def evenly_spaced_layers(count: int, cells: int) -> list[int]:
    """Return the positions of at most `cells` of `count` layers, evenly spaced and with both ends."""
    if count <= cells:
        return list(range(count))
    return [round(i * (count - 1) / (cells - 1)) for i in range(cells)]


def profile_rows(snapshot: dict[str, Any]) -> list[ProfileRow]:
    """Return std, E[δ²], and the shares of zeros, dead and saturated units of a snapshot.

    Statistics that no layer has are omitted.
    """
    views = layer_views([snapshot])
    rows = [
        ProfileRow("std", [view.act_std for view in views]),
        ProfileRow("E[δ²]", [view.gradient for view in views]),
        ProfileRow("zeros %", _shares(views, "zero"), is_share=True),
        ProfileRow("dead %", _shares(views, "dead"), is_share=True),
        ProfileRow("saturated %", _shares(views, "saturated"), is_share=True),
    ]
    return [row for row in rows if any(value is not None for value in row.values)]


def _shares(views: Sequence[LayerView], name: str) -> list[float | None]:
    return [getattr(view, name) for view in views]


def losses_of_signal(snapshot: dict[str, Any]) -> list[LossOfSignal]:
    """Return where a snapshot's signal or gradient is lost, explodes or stops being finite.

    This is a plain measurement with the ratios of the diagnosis, which a run has only when it ends.
    """
    layers = snapshot["layers"]
    return [*_forward_losses(layers), *_backward_losses([layer for layer in layers if layer["act"]])]


def _forward_losses(layers: Sequence[dict[str, Any]]) -> Iterator[LossOfSignal]:
    for layer in layers:
        q = parse_number_or_none(layer["pre"]["q"])
        if q is not None and not math.isfinite(q):
            yield LossOfSignal(layer["index"], "not_finite")
            break
    hidden = [layer for layer in layers if layer["act"]]
    yield from _first_below(hidden, [_signal(layer) for layer in hidden], "vanishing_forward")
    squares = [parse_number_or_none(layer["pre"]["q"]) for layer in hidden]
    yield from _first_above(hidden, squares, "exploding_forward")


def _backward_losses(hidden: Sequence[dict[str, Any]]) -> Iterator[LossOfSignal]:
    backward = hidden[::-1]
    squares = [parse_number_or_none(layer["grad"]["pre_q"]) for layer in backward]
    yield from _first_below(backward, squares, "vanishing_backward")
    yield from _first_above(backward, squares, "exploding_backward")


def _signal(layer: dict[str, Any]) -> float | None:
    """Return the variance over samples of a pre-activation, or its q if the record lacks it."""
    pre = layer["pre"]
    return parse_number_or_none(pre.get("signal", pre["q"]))


def _first_below(
    layers: Sequence[dict[str, Any]], values: Sequence[float | None], kind: str
) -> Iterator[LossOfSignal]:
    last = max((i for i, value in enumerate(values) if value), default=-1)
    for i, (layer, value) in enumerate(zip(layers, values, strict=True)):
        is_skipped = value == 0.0 and i < last  # the skip connection of its branch passes it on
        if (
            value is not None
            and values[0]
            and not is_skipped
            and value <= VANISHING_RATIO * values[0] < math.inf
        ):
            yield LossOfSignal(layer["index"], kind)
            return


def _first_above(
    layers: Sequence[dict[str, Any]], values: Sequence[float | None], kind: str
) -> Iterator[LossOfSignal]:
    for layer, value in zip(layers, values, strict=True):
        if value is not None and values[0] and math.inf > value * VANISHING_RATIO >= values[0]:
            yield LossOfSignal(layer["index"], kind)
            return
