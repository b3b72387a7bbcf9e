"""Text plots of several curves over steps: braille or ASCII lines with a different marker on each curve.

Existing libraries distinguish curves by colour alone, or draw into a figure that is global to the process.
`activation_curve` plots a single function and needs neither markers nor a logarithmic scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from initbench.render.activation_curve import round_step

MARKS, ASCII_MARKS = "●○■□▲△◆◇", "ox+*#@%&"
MAX_CURVES = len(MARKS)
HEIGHT = 16
_BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_LABEL = 8
_MARK_EVERY = 12
"""Characters between two markers of a curve."""
_HIGHEST = 1e300
"""Values are clipped to ± this, so that their sums stay finite."""
_LOG_FROM = 30.0
"""Ratio of the largest to the smallest value from which the y-axis may be logarithmic."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """Range of both axes in data units, and size of the plot in characters."""

    right: float
    bottom: float
    top: float
    log: bool
    width: int
    height: int = HEIGHT

    def to_characters(self, x: float, y: float) -> tuple[float, float]:
        """Return the position of a point, in characters from the left and from the top."""
        low, high, at = (self._scaled(value) for value in (self.bottom, self.top, y))
        down = (high - at) / (high - low) * (self.height - 1)
        return x / self.right * (self.width - 1), min(self.height - 1.0, max(0.0, down))

    def _scaled(self, y: float) -> float:
        return math.log10(y) if self.log else y


def plot_curves(
    curves: Sequence[Sequence[Point]],
    title: str,
    *,
    width: int,
    height: int = HEIGHT,
    right: float = 1.0,
    may_be_log: bool = False,
    log_note: str = ", logarithmic",
    ascii_only: bool = False,
) -> list[str]:
    """Return a plot of 1 to MAX_CURVES curves with axes; no line is longer than `width` (at least 30).

    Each curve consists of finite points with increasing x ≥ 0. With `may_be_log`, the y-axis is logarithmic
    if all values are positive and span a factor of at least 30; `log_note` then ends the title. Markers are
    staggered, so that curves that coincide show alternately. The plot has `height` rows, and its x-axis
    reaches at least to `right`.
    """
    assert 0 < len(curves) <= MAX_CURVES
    curves = [[(x, min(max(y, -_HIGHEST), _HIGHEST)) for x, y in curve] for curve in curves]
    points = [point for curve in curves for point in curve]
    frame = _frame(points, (width, height), right, may_be_log=may_be_log)
    canvas = _canvas(curves, frame, ascii_only)
    labels = dict(_y_labels(frame))
    edge, corner, line = ("|", "+", "-") if ascii_only else ("│", "└", "─")
    lines = [f"{labels.get(row, ''):>{_LABEL}} {edge}{''.join(canvas[row])}" for row in range(frame.height)]
    ticks = _x_labels(frame)
    scale = log_note if frame.log else ""
    return [
        f"{'':{_LABEL}} {title}{scale}",
        *(text_line.rstrip() for text_line in lines),
        f"{'':{_LABEL}} {corner}{line * frame.width}",
        f"{'':{_LABEL}}  {ticks}".rstrip(),
    ]


def _frame(points: Sequence[Point], size: tuple[int, int], right: float, *, may_be_log: bool) -> Frame:
    (width, height), values = size, [y for _, y in points]
    low, high = min(values), max(values)
    across = max(20, width - _LABEL - 2)
    right = max(right, *(x for x, _ in points))
    if may_be_log and low > 1.0 / _HIGHEST and high / low >= _LOG_FROM:
        bottom, top = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
        return Frame(right, bottom, top, True, across, height)
    if low == high:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    step = round_step((high - low) / 5)
    bottom, top = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return Frame(right, bottom, top, False, across, height)


def _canvas(curves: Sequence[Sequence[Point]], frame: Frame, ascii_only: bool) -> list[list[str]]:
    dots: dict[tuple[int, int], int] = {}
    for curve in curves:
        for across, down in _along([frame.to_characters(*point) for point in curve]):
            x, y = round(across * 2), round(down * 4)
            cell = x // 2, min(frame.height - 1, y // 4)
            dots[cell] = dots.get(cell, 0) | _BRAILLE[y % 4][x % 2]
    canvas = [[" "] * frame.width for _ in range(frame.height)]
    for (x, y), mask in dots.items():
        canvas[y][min(x, frame.width - 1)] = "." if ascii_only else chr(0x2800 + mask)
    marks = ASCII_MARKS if ascii_only else MARKS
    for number, curve in enumerate(curves):
        for x, y in _marked([frame.to_characters(*point) for point in curve], number, len(curves)):
            canvas[y][x] = marks[number]
    return canvas


def _along(points: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Yield points on the straight lines between `points`, closer together than dots."""
    yield from points[:1]
    for (x, y), (to_x, to_y) in pairwise(points):
        steps = max(1, math.ceil(8 * max(abs(to_x - x), abs(to_y - y))))
        yield from ((x + (to_x - x) * i / steps, y + (to_y - y) * i / steps) for i in range(1, steps + 1))


def _marked(points: Sequence[tuple[float, float]], number: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield the marker positions of a curve: at least one, if possible in columns without other markers."""
    step = max(_MARK_EVERY, 2 * count)
    offset = round((number + 0.5) * step / count)
    columns = {round(x): round(y) for x, y in _along(points)}
    wanted = [x for x in columns if x % step == offset % step]
    yield from ((x, columns[x]) for x in wanted or list(columns)[-1:])


def _y_labels(frame: Frame) -> Iterator[tuple[int, str]]:
    if frame.log:
        ends = round(math.log10(frame.bottom)), round(math.log10(frame.top))
        values = [10.0**power for power in range(ends[0], ends[1] + 1)]
    else:
        step = round_step((frame.top - frame.bottom) / 5)
        count = round((frame.top - frame.bottom) / step)
        values = [frame.bottom + i * step for i in range(count + 1)]
    for value in values:
        _, down = frame.to_characters(0.0, value)
        yield round(down), f"{round(value, 12):g}"


def _x_labels(frame: Frame) -> str:
    step = round_step(frame.right / 5)
    line = [" "] * (frame.width + _LABEL)
    free = 0
    for i in range(int(frame.right / step + 1e-9) + 1):
        label = f"{i * step:,.0f}"
        at = max(free, round(i * step / frame.right * (frame.width - 1)) - len(label) // 2)
        start = min(at, frame.width - len(label))
        if start >= free:
            line[start : start + len(label)] = label
            free = start + len(label) + 1
    return "".join(line).rstrip()
