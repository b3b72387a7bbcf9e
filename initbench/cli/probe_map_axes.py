"""The axes of `initbench probe --map`, as they are typed: sigma_w=0.5:3:26 depth=1:200."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from initbench.errors import UsageError
from initbench.registry import unknown_name_message

if TYPE_CHECKING:
    from initbench.diagnostics.trainability_map import MapAxes

NAMES = ("sigma_w", "depth")
DEFAULT_POINTS = {"sigma_w": 26, "depth": 20}
"""Of an axis whose number of points is not given; 26 columns fit a terminal of 80."""
MAX_POINTS = 100
EXAMPLE = "--map sigma_w=0.5:3:26 depth=1:200"
_RANGE = re.compile(r"\s*(\w+)\s*=\s*[-+.\w]*:[-+.\w:]*\s*")
_CONFIG_WORDS = {"kind", "name", "notes", "seeds", "data", "model", "init", "train", "probe"}
"""Top-level keys of a config, whose values may hold a colon."""


def split_axes(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(axes, what is left) of positional arguments: an axis is NAME=… of a known one, or NAME=A:B[:N]."""
    axes: list[str] = []
    rest: list[str] = []
    for argument in arguments:
        (axes if _is_axis(argument) else rest).append(argument)
    return axes, rest


def _is_axis(argument: str) -> bool:
    name = argument.partition("=")[0].strip()
    if "=" in argument and name in NAMES:
        return True
    match = _RANGE.fullmatch(argument)
    return match is not None and match[1] not in _CONFIG_WORDS


def parse_axes(texts: Sequence[str]) -> MapAxes:
    """The axes of texts such as "sigma_w=0.5:3:26"; one text may hold several, in any order.

    Raises UsageError, naming the axis, for what is no axis, is given twice, or is missing.
    """
    from initbench.diagnostics.trainability_map import MapAxes

    ranges: dict[str, str] = {}
    for word in " ".join(texts).replace(",", " ").split():
        name, equals, values = word.partition("=")
        if not equals:
            raise UsageError(f"--map takes two axes, as in {EXAMPLE}; found {word!r}")
        if name not in NAMES:
            raise UsageError(unknown_name_message("axis", name, NAMES) + f" Write {EXAMPLE}")
        if name in ranges:
            raise UsageError(f"the axis {name} is given twice: {ranges[name]} and {values}")
        ranges[name] = values
    for name in NAMES:
        if name not in ranges:
            raise UsageError(f"--map lacks the axis {name}; write {EXAMPLE}")
    return MapAxes(sigma_w=linear_axis(ranges["sigma_w"]), depth=depth_axis(ranges["depth"]))


def linear_axis(text: str) -> tuple[float, ...]:
    """Values of the axis sigma_w, equally far apart, both ends included."""
    low, high, count = _parse_range("sigma_w", text)
    if low == high:
        return (low,)
    step = (high - low) / (count - 1)
    return (*(float(f"{low + step * i:.12g}") for i in range(count - 1)), high)


def depth_axis(text: str) -> tuple[int, ...]:
    """Values of the axis depth: whole, each once, both ends included, and about equal ratios between them."""
    low, high, count = _parse_range("depth", text)
    if low % 1 or high % 1:
        raise UsageError(f"depth={text}: depths are whole numbers")
    first, last = int(low), int(high)
    values = [first]
    for remaining in range(min(count, last - first + 1) - 1, 0, -1):
        ratio = (last / values[-1]) ** (1.0 / remaining)
        values.append(min(max(values[-1] + 1, round(values[-1] * ratio)), last - remaining + 1))
    return tuple(values)


def _parse_range(name: str, text: str) -> tuple[float, float, int]:
    """A, B and the number of points."""
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise UsageError(f"{name}={text}: write {name}=A:B or {name}=A:B:POINTS")
    low, high = (_parse_number(name, text, part) for part in parts[:2])
    if low <= 0.0:
        raise UsageError(f"{name}={text}: {name} starts above 0, not at {parts[0]}")
    if low > high:
        raise UsageError(f"{name}={text}: {parts[0]} is above {parts[1]}; write the smaller end first")
    return (
        low,
        high,
        _parse_point_count(name, text, parts[2], low == high) if len(parts) == 3 else DEFAULT_POINTS[name],
    )


def _parse_number(name: str, text: str, part: str) -> float:
    try:
        value = float(part)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{name}={text}: {part!r} is not a number; write {name}=A:B or {name}=A:B:POINTS")
    return value


def _parse_point_count(name: str, text: str, part: str, one_value: bool) -> int:
    if not part.isascii() or not part.isdigit() or int(part) < 1:
        raise UsageError(f"{name}={text}: the number of points is a whole number from 1, not {part!r}")
    count = int(part)
    if count > MAX_POINTS:
        raise UsageError(f"{name}={text}: {count:,} points are too many; {MAX_POINTS} at most")
    if count == 1 and not one_value:
        raise UsageError(f"{name}={text}: one point cannot be both ends; write {name}=A:A for one value")
    return count
