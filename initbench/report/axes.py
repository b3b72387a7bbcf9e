"""Which entries of a batch share one statistic of a norm layer, as a sentence and as a picture.

Both are made from the axes that the norm states: of (N, C, H, W), whole, or in equal parts as C/G.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

SHAPE = {"N": 4, "C": 6, "H": 2, "W": 4}
"""What is drawn: samples, channels, rows and columns of a map."""
PARTS = 2
"""Parts that an axis such as C/G is drawn in."""
_PLURAL = {"N": "samples", "C": "channels", "H": "rows", "W": "columns"}
_SINGULAR = {"N": "sample", "C": "channel", "H": "row", "W": "column"}
_PART = {"N": "part of the batch", "C": "group of channels", "H": "band of rows", "W": "band of columns"}

Entry = tuple[int, int, int, int]


def drawable(axes: Sequence[str]) -> bool:
    """Whether `axes` are some of (N, C, H, W), and so can be drawn."""
    return bool(axes) and all(axis.partition("/")[0] in SHAPE for axis in axes)


def shared(axes: Sequence[str]) -> set[Entry]:
    """The entries (n, c, h, w), from 0, of a batch of SHAPE that share the first entry's statistic."""
    n, c, h, w = (range(_reach(axis, axes)) for axis in SHAPE)
    return set(product(n, c, h, w))


def _reach(axis: str, axes: Sequence[str]) -> int:
    if axis in axes:
        return SHAPE[axis]
    return SHAPE[axis] // PARTS if _parted(axis, axes) else 1


def _parted(axis: str, axes: Sequence[str]) -> bool:
    return any(name.startswith(f"{axis}/") for name in axes)


def sentence(axes: Sequence[str]) -> str:
    """`one statistic for each channel, over all its samples and positions`."""
    kept = [_PART[axis] if _parted(axis, axes) else _SINGULAR[axis] for axis in SHAPE if axis not in axes]
    whole = [_PLURAL[axis] for axis in SHAPE if axis in axes or _parted(axis, axes)]
    each = f" for each {_listed(_positions(kept))}" if kept else ""
    return f"one statistic{each}, over all {'its ' if kept else ''}{_listed(_positions(whole))}"


def _positions(words: list[str]) -> list[str]:
    """Row and column are said as one."""
    for row, column, both in (("row", "column", "position"), ("rows", "columns", "positions")):
        if row in words and column in words:
            return [word for word in words if word not in (row, column)] + [both]
    return words


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def picture(axes: Sequence[str], *, ascii_only: bool = False) -> list[str]:
    """A table of samples × channels, each cell one H × W map, filled where entries share a statistic.

    A heavy line parts the channels where a group of them ends.
    """
    filled, empty = ("#", ".") if ascii_only else ("█", "·")
    together = shared(axes)
    numbers = "".join(f"{channel + 1:^{SHAPE['W'] + 1}}" for channel in range(SHAPE["C"]))
    indent = " " * 9
    lines = [
        f"{indent}channel",
        f"sample  {numbers.rstrip()}",
        indent[:-2] + _rule(axes, 0, ascii_only=ascii_only),
    ]
    for sample, row in product(range(SHAPE["N"]), range(SHAPE["H"])):
        cells = [
            "".join(
                filled if (sample, channel, row, column) in together else empty
                for column in range(SHAPE["W"])
            )
            for channel in range(SHAPE["C"])
        ]
        label = f"{sample + 1:>5}  " if row == 0 else indent[:-2]
        lines.append(label + _fenced(cells, axes, ascii_only=ascii_only))
        if row == SHAPE["H"] - 1:
            place = 2 if sample == SHAPE["N"] - 1 else 1
            lines.append(indent[:-2] + _rule(axes, place, ascii_only=ascii_only))
    return lines


def _ends(axes: Sequence[str]) -> list[bool]:
    """For each channel but the last, whether a group of channels ends with it."""
    group = SHAPE["C"] // PARTS
    return [_parted("C", axes) and (channel + 1) % group == 0 for channel in range(SHAPE["C"] - 1)]


def _fenced(cells: Sequence[str], axes: Sequence[str], *, ascii_only: bool) -> str:
    thin, heavy = ("|", "H") if ascii_only else ("│", "┃")
    fences = [heavy if end else thin for end in _ends(axes)]
    return thin + "".join(cell + fence for cell, fence in zip(cells, [*fences, thin], strict=True))


def _rule(axes: Sequence[str], place: int, *, ascii_only: bool) -> str:
    """The line above (0), between (1) or below (2) the samples."""
    if ascii_only:
        left = right = thin = heavy = "+"
    else:
        left, thin, heavy, right = ("┌┬┰┐", "├┼╂┤", "└┴┸┘")[place]
    dashes = ("-" if ascii_only else "─") * SHAPE["W"]
    joints = [heavy if end else thin for end in _ends(axes)]
    return left + "".join(dashes + joint for joint in [*joints, right])


def legend(axes: Sequence[str], *, ascii_only: bool = False) -> list[str]:
    """What the marks of the picture mean, with the groups that it draws."""
    filled, empty = ("#", ".") if ascii_only else ("█", "·")
    height, width = SHAPE["H"], SHAPE["W"]
    times = "x" if ascii_only else "×"
    lines = [
        f"{filled * 2} averaged together   {empty * 2} the rest: sets of this shape, each with its own",
        f"a cell is one map of {height}{times}{width} positions (H{times}W); in an mlp it is one number",
    ]
    parted = [axis for axis in SHAPE if _parted(axis, axes)]
    for axis in parted:
        name = next(name for name in axes if name.startswith(f"{axis}/"))
        each = SHAPE[axis] // PARTS
        lines.append(f"{name}: drawn with {PARTS} parts of {each} {_PLURAL[axis]} each")
    return lines
