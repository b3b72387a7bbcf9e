"""Text plot of a function: braille dots, or three heights per line in ASCII."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

LOW, HIGH = -4.0, 4.0
WIDTH, HEIGHT = 37, 12
"""Characters of the plot; an odd width has a column at 0."""
_SAMPLES = 16  # per column of dots; a curve that rises by fewer dots per column has no gaps
_BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_HEIGHTS = "'-."
_LABEL = 7
_TICKS = (-4, -2, 0, 2, 4)

Function = Callable[[Sequence[float]], Sequence[float]]


@dataclass(frozen=True)
class _Grid:
    """Resolution of the plot in dots per character, and its range of y."""

    across: int
    down: int
    bottom: float
    top: float

    def row(self, y: float) -> int:
        """Return the row of dots of `y`, counted from the top and clipped to the plot."""
        rows = HEIGHT * self.down
        return min(rows - 1, max(0, round((self.top - y) / (self.top - self.bottom) * (rows - 1))))


def plot_function(function: Function, title: str, *, ascii_only: bool = False) -> list[str]:
    """Return the curve of `function` over [LOW, HIGH] with axes: a title, HEIGHT lines, tick labels.

    All lines have the same width. The y-axis is labelled at its ends and at 0.
    """
    columns = WIDTH * (1 if ascii_only else 2)
    step = (HIGH - LOW) / (columns * _SAMPLES)
    xs = [LOW + (i + 0.5) * step for i in range(columns * _SAMPLES)]
    ys = function(xs)
    bottom, top = _bounds(ys)
    grid = _Grid(1 if ascii_only else 2, 3 if ascii_only else 4, bottom, top)
    dots = {(i // _SAMPLES, grid.row(y)) for i, y in enumerate(ys)}
    zero = grid.row(0.0) // grid.down
    labels = {0: f"{top:g}", HEIGHT - 1: f"{bottom:g}", zero: "0"}
    lines = [
        f"{labels.get(row, ''):>{_LABEL}} " + _line(dots, row, grid, zero, ascii_only=ascii_only)
        for row in range(HEIGHT)
    ]
    return [f"{'':{_LABEL}} {title:<{WIDTH}}", *lines, f"{'':{_LABEL}} {_ticks()}"]


def _bounds(ys: Iterable[float]) -> tuple[float, float]:
    """Return round limits that enclose 0 and all finite `ys`."""
    values = [0.0, *(y for y in ys if math.isfinite(y))]
    low, high = min(values), max(values)
    if low == high:
        return low, low + 1.0
    step = round_step((high - low) / 10)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def round_step(least: float) -> float:
    """Return the smallest number ≥ `least` that is 1, 2 or 5 times a power of ten."""
    scale = 10.0 ** math.floor(math.log10(least))
    return next(factor * scale for factor in (1, 2, 5, 10, 20) if factor * scale >= least * (1 - 1e-9))


def _line(dots: set[tuple[int, int]], row: int, grid: _Grid, zero: int, *, ascii_only: bool) -> str:
    characters = []
    for column in range(WIDTH):
        marks = [
            (dx, dy)
            for dx in range(grid.across)
            for dy in range(grid.down)
            if (column * grid.across + dx, row * grid.down + dy) in dots
        ]
        on_axes = (column == WIDTH // 2, row == zero)
        characters.append(_mark(marks, ascii_only) if marks else _axis(*on_axes, ascii_only))
    return "".join(characters)


def _mark(marks: list[tuple[int, int]], ascii_only: bool) -> str:
    if ascii_only:
        return "|" if len(marks) > 1 else _HEIGHTS[marks[0][1]]
    return chr(0x2800 + sum(_BRAILLE[dy][dx] for dx, dy in marks))


def _axis(upright: bool, level: bool, ascii_only: bool) -> str:
    return (" -:+" if ascii_only else " ─│┼")[2 * upright + level]


def _ticks() -> str:
    line = [" "] * WIDTH
    for tick in _TICKS:
        text = f"{tick:d}"
        at = round((tick - LOW) / (HIGH - LOW) * (WIDTH - 1))
        start = min(WIDTH - len(text), max(0, at - (len(text) - 1)))
        line[start : start + len(text)] = text
    return "".join(line)


def side_by_side(left_plot: Sequence[str], right_plot: Sequence[str], gap: int = 3) -> list[str]:
    """Join two plots of the same height, line by line."""
    return [(a + " " * gap + b).rstrip() for a, b in zip(left_plot, right_plot, strict=True)]
