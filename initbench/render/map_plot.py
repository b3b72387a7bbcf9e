"""Output of `initbench probe --map`: a plot of σ_w against depth, or JSON."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console, Group
from rich.text import Text

from initbench.diagnostics.trainability_map import MapPoint, TrainabilityMap
from initbench.render import text
from initbench.render.condition_notes import condition_words
from initbench.render.terminal import print_uncut
from initbench.store import strict_json
from initbench.theory.depth_scales import TRAINABLE, DepthScales

SCHEMA = "initbench.map/1"
HEALTHY, OTHER = ".", "?"
_MARKS = {
    "vanishing_forward": "v",
    "vanishing_backward": "v",
    "exploding_forward": "x",
    "exploding_backward": "x",
    "saturated": "s",
    "dead": "d",
    "symmetric": "=",
}
FINDING_WORDS = {
    HEALTHY: "healthy",
    "v": "vanishing",
    "x": "exploding",
    "s": "saturated",
    "d": "dead",
    "=": "symmetric",
    OTHER: "another finding",
}
_STYLES = {HEALTHY: "green", "v": "blue", "x": "red", "s": "magenta", "d": "yellow", "=": "yellow"}
_LEARNED, _REACH, _BOTH, _BOTH_ASCII = "+", "_", "±", "#"
_LABEL, _CELL, _TICK = 9, 2, 5
_MARKS_A_LINE = 5  # each at most 15 columns wide


def map_document(result: TrainabilityMap) -> dict[str, Any]:
    """Return the map as plain data, in the schema initbench.map/1."""
    config, bar = result.config, result.bar
    scales = zip(result.axes.sigma_w, result.theory or [], strict=False)
    return {
        "schema": SCHEMA,
        "experiment": config.name,
        "config": config.resolved(),
        "dataset": result.dataset,
        "dataset_requested": result.requested,
        "seeds": list(config.seed_list),
        "samples": result.samples,
        "axes": {"sigma_w": list(result.axes.sigma_w), "depth": list(result.axes.depth)},
        "points": [_point_document(point) for point in result.points],
        "theory": [{"sigma_w": sigma_w, **vars(scale)} for sigma_w, scale in scales],
        "critical_sigma_w": result.critical,
        "no_prediction": result.reason,
        "train": None if bar is None else {**vars(bar), "learned_above": bar.accuracy},
    }


def _point_document(point: MapPoint) -> dict[str, Any]:
    document = {**vars(point), "diagnosis": list(point.diagnosis)}
    del document["profile"]  # only reports show it
    return document


def map_json(result: TrainabilityMap) -> str:
    """Return the document as strict JSON."""
    return strict_json.dumps(map_document(result))


def print_map(console: Console, result: TrainabilityMap) -> None:
    """Print heading, plot and legend; a narrow console shows only every second (third, …) column."""
    ascii_only = console.options.ascii_only
    picture = _MapPlot(result, max(_CELL, console.width - _LABEL), ascii_only=ascii_only)
    parts = [
        map_heading(result),
        Text(""),
        *picture.lines(),
        Text(""),
        *_legend(result, picture.both),
        Text(""),
    ]
    print_uncut(console, Group(*parts))


def map_heading(result: TrainabilityMap) -> Text:
    """Return one line that says what was mapped."""
    config, depth = result.config, result.axes.depth
    model = config.model
    width = getattr(model, "width", None)
    parts = [
        f"{model.family}, depth {depth[0]} to {depth[-1]}" + ("" if width is None else f", width {width}"),
        *text.layer_words(model.activation.name, model.norm.name),
        "weights N(0, σ_w²/fan_in)",
        text.dataset_used(result.dataset, result.requested),
        *condition_words(config.data.model_dump()),
        f"{text.plural(len(result.points), 'point')}, {text.plural(len(config.seed_list), 'net')} each",
        f"{result.samples} samples",
        "not trained" if result.bar is None else text.plural(result.bar.steps, "step"),
    ]
    return Text.assemble((config.name, "bold"), "   ", " · ".join(parts))


class _MapPlot:
    """Plot with a column for each σ_w and a row for each depth.

    A cell has the marker of its diagnosis and, to the right, an overlay for training and theory.
    """

    def __init__(self, result: TrainabilityMap, room: int, *, ascii_only: bool) -> None:
        self._found = result
        self.both = _BOTH_ASCII if ascii_only else _BOTH
        self._sigma_w, self._chi_1 = ("sigma_w", "chi_1") if ascii_only else ("σ_w", "χ₁")
        count = len(result.axes.sigma_w)
        self._columns = range(0, count, -(-count * _CELL // room))

    def lines(self) -> list[Text]:
        """Return the lines of the plot, from the label of the depth axis down to the σ_w axis."""
        depths = self._found.axes.depth
        return [
            self._top(),
            *(self._row(row, depth) for row, depth in enumerate(depths)),
            *self._critical(),
            self._ticks(),
        ]

    def _top(self) -> Text:
        """Return the line above the first row: axis name, and columns whose reach ends above that row."""
        marks = "".join(" " + (_REACH if self._ends(column, -1) else " ") for column in self._columns)
        return _line("depth", marks)

    def _row(self, row: int, depth: int) -> Text:
        line = _line(f"{depth:,}", "")
        width = len(self._found.axes.sigma_w)
        for column in self._columns:
            point = self._found.points[row * width + column]
            mark = mark_of(point)
            line.append(mark, _STYLES.get(mark))
            line.append(self._overlay_mark(point, ends=self._ends(column, row)), "bold")
        return line

    def _overlay_mark(self, point: MapPoint, *, ends: bool) -> str:
        if ends:
            return self.both if point.learned else _REACH
        return _LEARNED if point.learned else " "

    def _ends(self, column: int, row: int) -> bool:
        """Return whether the depth that theory calls trainable ends between `row` and the next row.

        Row −1 is before the first.
        """
        if self._found.theory is None:
            return False
        depths, reach = self._found.axes.depth, self._found.theory[column].reach
        below = reach < depths[row + 1] if row + 1 < len(depths) else False
        return below and (row < 0 or depths[row] <= reach)

    def _critical(self) -> list[Text]:
        critical, sigma_w = self._found.critical, self._found.axes.sigma_w
        if critical is None:
            return []
        nearest = min(self._columns, key=lambda column: abs(sigma_w[column] - critical))
        offset, width = self._columns.index(nearest) * _CELL, len(self._columns) * _CELL
        words = f"critical {self._sigma_w} = {critical:.3g} ({self._chi_1} = 1)"
        if offset + 2 + len(words) <= width or offset < 1 + len(words):
            return [_line("", f"{'':{offset}}^ {words}")]
        return [_line("", f"{'':{offset - 1 - len(words)}}{words} ^")]

    def _ticks(self) -> Text:
        """Return the line with σ_w under every fifth column, and under the last if there is room."""
        marks, last = "", len(self._columns) - 1
        for position, column in enumerate(self._columns):
            room = position * _CELL - len(marks)
            if position % _TICK == 0 or (position == last and room > 0):
                marks += " " * room + f"{self._found.axes.sigma_w[column]:.3g}"
        return _line(self._sigma_w, marks)


def mark_of(point: MapPoint) -> str:
    """Return the marker of the point's first finding."""
    return _MARKS.get(point.diagnosis[0], OTHER) if point.diagnosis else HEALTHY


def _line(label: str, rest: str) -> Text:
    return Text(f"{label:>{_LABEL - 2}}  {rest}", no_wrap=True, overflow="ignore")


def _legend(result: TrainabilityMap, both: str) -> list[Text]:
    counts = Counter(map(mark_of, result.points))
    marks = [f"{mark} {word} {counts[mark]:,}" for mark, word in FINDING_WORDS.items() if counts[mark]]
    lines = _theory_legend(result.theory, result.reason, result.critical)
    bar = result.bar
    if bar is not None:
        learned = sum(bool(point.learned) for point in result.points)
        points = text.plural(len(result.points), "point")
        accuracy, majority = (text.format_percent(share, 1) for share in (bar.accuracy, bar.majority))
        lines += [
            f"+ learned ({learned:,} of {points}): validation accuracy above {accuracy} %",
            f"  after {text.plural(bar.steps, 'step')} (majority class {majority} %, n = {bar.samples:,});"
            f" {both} means both + and _",
        ]
    return [
        Text("points by their first finding:"),
        *(Text("  ".join(marks[i : i + _MARKS_A_LINE])) for i in range(0, len(marks), _MARKS_A_LINE)),
        *(Text(line, no_wrap=True, overflow="ignore") for line in lines),
    ]


def _theory_legend(theory: list[DepthScales] | None, reason: str | None, critical: float | None) -> list[str]:
    if theory is None:
        return [f"theory predicts no depth scale for this net: {reason}"]
    edge = [] if critical is not None else ["  χ₁ is not 1 anywhere on this axis"]
    return [
        f"_ greatest trainable depth according to theory: {TRAINABLE:.0f} ξ (Schoenholz et al. 2017)",
        "  ξ: the shorter of the depth scales of correlations and gradient, 1/|ln χ₁|",
        *edge,
    ]
