"""The report page: one self-contained HTML file that opens without a network and reads without scripts."""

from __future__ import annotations

import itertools
import json
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, ClassVar

from initbench import __version__
from initbench.errors import MissingExtraError
from initbench.report.drawing import PictureDrawer
from initbench.report.figure import TABLE, ReportFigure, require_vl_convert
from initbench.report.theme import RowStyle, vega_config

MAX_TABLE_ROWS = 200
"""Rows of the table behind a figure that the page contains; the CSV file has all."""

MANY_ROWS = 10
"""Number of rows beyond which the legend has a search field and buttons for all rows."""


@dataclass(frozen=True)
class Sparkline:
    """A small curve in a cell of a table."""

    WIDTH: ClassVar[int] = 120
    HEIGHT: ClassVar[int] = 32

    points: Sequence[tuple[float, float]]
    """Coordinates from 0 to 1, from left to right and from bottom to top."""
    style: RowStyle
    words: str
    """The ends of the curve in words."""

    @property
    def path(self) -> str:
        """The points of the curve in pixels of an SVG element of WIDTH × HEIGHT."""
        width, height = self.WIDTH - 4, self.HEIGHT - 4
        return " ".join(f"{2 + width * x:.1f},{2 + height * (1 - y):.1f}" for x, y in self.points)


@dataclass(frozen=True)
class HtmlTable:
    """A table of a section; cells are plain text or small curves, and the first of a row is text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Sparkline]]
    notes: Sequence[str] = ()
    targets: Sequence[str] = ()
    """For each row the key of the text that its first cell links to; none if empty."""
    title: str = ""
    """Heading above the table; none if empty."""


@dataclass(frozen=True)
class FoldedText:
    """A text below a line that unfolds it."""

    summary: str
    text: str
    key: str = ""
    """Name in links to the text."""
    is_code: bool = False
    """Whether line breaks and spaces of the text are kept."""


@dataclass(frozen=True)
class ReportSection:
    """A part of the page with a heading."""

    key: str
    title: str
    paragraphs: Sequence[str] = ()
    folds: Sequence[FoldedText] = ()
    tables: Sequence[HtmlTable] = ()
    figures: Sequence[ReportFigure] = ()


@dataclass(frozen=True)
class ReportPage:
    """Everything that the page contains."""

    title: str
    summary: Sequence[str]
    """Sentences at the top."""
    rows: Sequence[tuple[str, RowStyle]]
    """The rows of the legend that all figures share."""
    steps: Sequence[int]
    """Steps of the slider; no slider with fewer than two."""
    layers: int
    """Largest number of a layer."""
    sections: Sequence[ReportSection]
    baseline: str = ""
    """Row that is pinned as baseline at first."""
    footer: Sequence[str] = field(default_factory=list)


def require_packages() -> None:
    """Raise MissingExtraError if the packages of the extra `report` are not installed."""
    _environment()
    require_vl_convert()


def render_page(page: ReportPage, drawer: PictureDrawer | None = None) -> str:
    """Return the page as HTML.

    Args:
        page: The content.
        drawer: Draws the figures; it may have begun before. If None, a new one does.

    Raises:
        MissingExtraError: If the packages of the extra `report` are not installed.
    """
    environment = _environment()
    if drawer is None:
        with PictureDrawer() as new_drawer:
            return _rendered(environment, page, new_drawer)
    return _rendered(environment, page, drawer)


def _rendered(environment: Any, page: ReportPage, drawer: PictureDrawer) -> str:
    figures = [figure for section in page.sections for figure in section.figures]
    for figure in figures:
        drawer.start(figure)
    data = {figure.key: _figure_data(figure) for figure in figures}
    return str(
        environment.get_template("report.html.j2").render(
            page=page,
            version=__version__,
            picture=drawer.picture,  # called where a picture stands, while others are still drawn
            data=data,
            figure_rows=_table_rows,
            max_rows=MAX_TABLE_ROWS,
            many_rows=MANY_ROWS,
            style=_asset("report.css"),
            script=_asset("report.js"),
            library=drawer.library(),
            config=_json({"config": vega_config(legend=False), "table": TABLE, "baseline": page.baseline}),
        )
    )


def _environment() -> Any:
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("reports", "report") from error
    return Environment(
        loader=FunctionLoader(_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _asset(name: str) -> str:
    return files("initbench.report").joinpath("assets", name).read_text(encoding="utf-8")


def _figure_data(figure: ReportFigure) -> str:
    """Return what the script needs to draw the figure: its data by column, and its specification."""
    return _json(
        {
            "columns": {name: _packed(values) for name, values in figure.columns.items()},
            "spec": figure.spec,
            "log": list(figure.log_channels),
            "key": figure.key,
            "title": figure.title,
        }
    )


def _packed(values: list[Any]) -> list[Any] | dict[str, list[Any]]:
    """Return a column, or its runs of equal values as `{"values": …, "counts": …}` if they are fewer."""
    changes = [index for index, differs in enumerate(map(operator.ne, values, values[1:]), 1) if differs]
    starts = [0, *changes] if values else []
    if len(starts) >= len(values) / 2:
        return values
    counts = [end - start for start, end in itertools.pairwise([*starts, len(values)])]
    return {"values": [values[start] for start in starts], "counts": counts}


def _json(value: Any) -> str:
    """Return JSON that can stand inside a script element: no name can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _table_rows(figure: ReportFigure) -> list[list[str]]:
    """Return the first rows of a figure's data as text."""
    columns = [column[:MAX_TABLE_ROWS] for column in figure.columns.values()]
    return [[_cell(value) for value in values] for values in zip(*columns, strict=True)]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(map(_cell, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
