"""Sentences and diagrams that show which entries share one statistic of a norm layer.

Both are derived from the axes that the norm averages over: axes of activations (N, C, H, W) or of weights
(O, I, H, W), whole or in equal parts such as C/G.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

SIZES = {"N": 4, "C": 6, "O": 4, "I": 6, "H": 2, "W": 4}
"""Number of samples, channels, units, inputs, rows and columns in a diagram."""
PARTS = 2
"""Number of parts into which a diagram divides an axis such as C/G."""
_ACTIVATIONS, _WEIGHTS = "NCHW", "OIHW"
_SINGULAR = {"N": "sample", "C": "channel", "O": "unit", "I": "input", "H": "row", "W": "column"}
_PART = {
    "N": "part of the batch",
    "C": "group of channels",
    "O": "group of units",
    "I": "group of inputs",
    "H": "band of rows",
    "W": "band of columns",
}

Entry = tuple[int, int, int, int]


def of_weights(axes: Sequence[str]) -> bool:
    """Return whether `axes` are axes of a weight (O, I, H, W): outputs, inputs and kernel."""
    return any(axis[0] in "OI" for axis in axes)


def _space(axes: Sequence[str]) -> str:
    return _WEIGHTS if of_weights(axes) else _ACTIVATIONS


def is_drawable(axes: Sequence[str]) -> bool:
    """Return whether there are axes, and all of them in (N, C, H, W) or all in (O, I, H, W)."""
    return bool(axes) and all(axis.partition("/")[0] in list(_space(axes)) for axis in axes)


def shared_entries(axes: Sequence[str]) -> set[Entry]:
    """Return the entries of the drawn tensor that share the statistic of the first one, (0, 0, 0, 0)."""
    a, b, h, w = (range(_reach(axis, axes)) for axis in _space(axes))
    return set(product(a, b, h, w))


def _reach(axis: str, axes: Sequence[str]) -> int:
    if axis in axes:
        return SIZES[axis]
    return SIZES[axis] // PARTS if _parted(axis, axes) else 1


def _parted(axis: str, axes: Sequence[str]) -> bool:
    return any(name.startswith(f"{axis}/") for name in axes)


def describe_statistic(axes: Sequence[str]) -> str:
    """Return a phrase such as `one statistic for each channel, over all its samples and positions`."""
    space = _space(axes)
    separate = [_PART[axis] if _parted(axis, axes) else _SINGULAR[axis] for axis in space if axis not in axes]
    whole = [f"{_SINGULAR[axis]}s" for axis in space if axis in axes or _parted(axis, axes)]
    each = f" for each {_join_words(_positions(separate))}" if separate else ""
    return f"one statistic{each}, over all {'its ' if separate else ''}{_join_words(_positions(whole))}"


def _positions(words: list[str]) -> list[str]:
    """Return the words with row and column replaced by position."""
    for row, column, both in (("row", "column", "position"), ("rows", "columns", "positions")):
        if row in words and column in words:
            return [word for word in words if word not in (row, column)] + [both]
    return words


def _join_words(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def draw_diagram(axes: Sequence[str], *, ascii_only: bool = False) -> list[str]:
    """Draw a table of samples × channels, or units × inputs, filled where entries share a statistic.

    Each cell is one H × W map. A heavy line separates groups of columns.
    """
    filled, empty = ("#", ".") if ascii_only else ("█", "·")
    down, across = _space(axes)[0], _space(axes)[1]
    together = shared_entries(axes)
    numbers = "".join(f"{column + 1:^{SIZES['W'] + 1}}" for column in range(SIZES[across]))
    margin = " " * 7
    lines = [
        f"{margin}  {_SINGULAR[across]}",
        f"{_SINGULAR[down]:<8}{numbers.rstrip()}",
        margin + _rule(axes, 0, ascii_only=ascii_only),
    ]
    for a, h in product(range(SIZES[down]), range(SIZES["H"])):
        marks = [
            "".join(filled if (a, b, h, w) in together else empty for w in range(SIZES["W"]))
            for b in range(SIZES[across])
        ]
        lines.append((margin if h else f"{a + 1:>5}  ") + _join_cells(marks, axes, ascii_only=ascii_only))
        if h == SIZES["H"] - 1:
            rule_kind = 2 if a == SIZES[down] - 1 else 1
            lines.append(margin + _rule(axes, rule_kind, ascii_only=ascii_only))
    return lines


def _ends(axes: Sequence[str]) -> list[bool]:
    """Return for each column but the last whether a group ends with it."""
    across = _space(axes)[1]
    group = SIZES[across] // PARTS
    return [_parted(across, axes) and (column + 1) % group == 0 for column in range(SIZES[across] - 1)]


def _join_cells(cells: Sequence[str], axes: Sequence[str], *, ascii_only: bool) -> str:
    thin, heavy = ("|", "H") if ascii_only else ("│", "┃")
    fences = [heavy if end else thin for end in _ends(axes)]
    return thin + "".join(cell + fence for cell, fence in zip(cells, [*fences, thin], strict=True))


def _rule(axes: Sequence[str], rule_kind: int, *, ascii_only: bool) -> str:
    """Return the line above (0), between (1) or below (2) the rows of cells."""
    if ascii_only:
        left_end = right_end = thin = heavy = "+"
    else:
        left_end, thin, heavy, right_end = ("┌┬┰┐", "├┼╂┤", "└┴┸┘")[rule_kind]
    dashes = ("-" if ascii_only else "─") * SIZES["W"]
    joints = [heavy if end else thin for end in _ends(axes)]
    return left_end + "".join(dashes + joint for joint in [*joints, right_end])


def diagram_legend(axes: Sequence[str], *, ascii_only: bool = False) -> list[str]:
    """Return the legend of the diagram, with the number of groups that it shows."""
    filled, empty = ("#", ".") if ascii_only else ("█", "·")
    height, width = SIZES["H"], SIZES["W"]
    times = "x" if ascii_only else "×"
    lines = [
        f"{filled * 2} averaged together   {empty * 2} averaged in other sets of the same shape",
        f"each cell is one map of {height}{times}{width} positions (H{times}W); in an mlp, one number",
    ]
    for name in (name for name in axes if "/" in name):
        axis = name[0]
        lines.append(f"{name}: drawn as {PARTS} parts of {SIZES[axis] // PARTS} {_SINGULAR[axis]}s each")
    return lines
