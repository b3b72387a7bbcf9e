"""Colour scales of numbers, with a legend of their own: the legend of the page has only the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

SCHEME = "viridis"
"""Perceptually uniform colours that are distinguishable with colour blindness and in grey."""


def logarithmic_colour(values: Sequence[float], title: str) -> dict[str, Any]:
    """Return a logarithmic channel `color`, without its field, for these positive values.

    Args:
        values: All values of the figure, so that the colours do not depend on the hidden rows.
        title: Title of the legend, with the unit.
    """
    low, high = min(values), max(values)
    if low == high:
        low, high = low / 2, high * 2
    return {
        "type": "quantitative",
        "scale": {"type": "log", "scheme": SCHEME, "domain": [low, high], "nice": False, "clamp": True},
        "legend": {
            **_gradient_legend(title),
            "values": _log_ticks(low, high),
            "format": "~g" if low > 1e-4 and high < 1e5 else "~e",
        },
    }


def linear_colour(values: Sequence[float], title: str) -> dict[str, Any]:
    """Return a linear channel `color`, without its field, for these values; see `logarithmic_colour`."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 1, high + 1
    return {
        "type": "quantitative",
        "scale": {"scheme": SCHEME, "domain": [low, high], "nice": False},
        "legend": {**_gradient_legend(title), "tickCount": 4},
    }


def _gradient_legend(title: str) -> dict[str, Any]:
    return {"title": title, "orient": "top", "gradientLength": 240, "titleFontWeight": "normal"}


def _log_ticks(low: float, high: float) -> list[float]:
    """Return about five values between both ends: powers of ten, or the ends if these are close."""
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    if last - first < 1:
        middle = math.sqrt(low * high)
        return [float(f"{value:.2g}") for value in (low, middle, high)]
    stride = max(1, math.ceil((last - first) / 5))
    return [10.0**exponent for exponent in range(first, last + 1, stride)]
