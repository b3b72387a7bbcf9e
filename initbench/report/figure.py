"""A figure: its data, its Vega-Lite specification, its words, and its export to SVG, PNG, PDF and CSV."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.util import find_spec
from typing import Any, Literal

from initbench.errors import MissingExtraError
from initbench.render.compare.csv_long import plain_cell
from initbench.report.legend import with_row_legend, without_row_legends
from initbench.report.theme import text_width, vega_config

Spec = dict[str, Any]
Size = Literal["half", "full"]

SIZES: dict[Size, int] = {"half": 460, "full": 940}
"""Width in pixels of figures on a page, before a script fits them to the window."""
_AXIS_WIDTH = 50
"""Typical width in pixels of the labels and the title of the y axis."""
STATIC_WIDTHS: dict[Size, int] = {size: width - _AXIS_WIDTH for size, width in SIZES.items()}
"""Width in pixels of the plot in the static pictures of a page, without its y axis."""
TABLE = "table"
"""Name of the data set of a figure in its specification."""
_GEOMETRY = re.compile(r' (?:d|transform)="[^"]*"')
_LONG_FRACTION = re.compile(r"(\.\d\d)\d+(?![\de])")
DIGITS = 6
"""Significant digits of the numbers in a figure."""


@dataclass(frozen=True)
class ReportFigure:
    """A picture of runs with the numbers it shows.

    The specification refers to the data by the name `table`. Parameters of the specification that a page
    sets, if the figure declares them: `hidden` (names of rows), `baseline` (name of a row or ""), `layer`
    (number or null) and `step` (number or null).
    """

    key: str
    """Name in file names, links and `initbench figure`."""
    title: str
    takeaway: str
    """The sentence that a reader should remember; it describes the figure to screen readers."""
    caption: str
    """What is shown, of which data and config, with n."""
    columns: dict[str, list[Any]]
    """The data: equally long columns of numbers, strings, booleans and None."""
    spec: Spec = field(repr=False)
    size: Size = "half"
    log_channels: Sequence[str] = ()
    """Encoding channels, such as `y`, that readers can switch between a logarithmic and a linear axis."""
    named_rows: Sequence[str] = ()
    """Rows whose names the figure contains, so that it needs no legend if there is space for them."""
    name_space: float = 0.0
    """Width for such a name, as a share of that of the figure."""
    notes: Sequence[str] = ()
    """What the figure leaves out, and why."""
    is_comparison: bool = False
    """Whether the figure shows differences from the baseline of the comparison."""
    hint: str = ""
    """What a reader of a page can do with the figure."""
    static_spec: Spec | None = field(default=None, repr=False)
    """Specification of the static picture of a page, if one that looks the same has fewer marks."""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return the picture with its caption for notebooks; the caption alone without the extra `report`."""
        words = " ".join([self.caption, *self.notes])
        plain = {"text/plain": f"{self.title}. {words}"}
        try:
            svg = to_svg(self)
        except MissingExtraError:
            return plain
        caption = f"<figcaption><b>{escape(self.title)}.</b> {escape(words)}</figcaption>"
        html = f'<figure style="max-width: {SIZES[self.size]}px; margin: 0">{svg}{caption}</figure>'
        return {**plain, "image/svg+xml": svg, "text/html": html}

    @property
    def parameter_names(self) -> list[str]:
        """Names of the parameters of the specification."""
        return [parameter["name"] for parameter in self.spec.get("params", ())]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the data row by row."""
        for values in zip(*self.columns.values(), strict=True):
            yield dict(zip(self.columns, values, strict=True))

    def to_csv(self) -> str:
        """Return the data as CSV, in which no cell is taken for a formula."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        for values in zip(*self.columns.values(), strict=True):
            writer.writerow([_csv_cell(value) for value in values])
        return text.getvalue()

    def complete_spec(
        self, *, width: int | None = None, legend: bool = True, font_size: float = 11.0
    ) -> dict[str, Any]:
        """Return a specification with data, config and width, which any program for Vega-Lite can draw.

        Args:
            width: Width in pixels; that of `size` if None.
            legend: Whether the figure has a legend of its own, unless it names the rows itself.
            font_size: Size of labels in pixels.
        """
        width = SIZES[self.size] if width is None else width
        spec = self.spec
        if legend:
            space = self.name_space * width
            fits = bool(self.named_rows) and all(
                text_width(name, 1.1 * font_size) < space for name in self.named_rows
            )
            only = self.named_rows
            spec = without_row_legends(spec) if fits else with_row_legend(spec, width, font_size, only)
        return {
            "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
            "autosize": {"type": "fit", "contains": "padding"},
            **spec,
            "datasets": {TABLE: list(self.rows())},
            "data": {"name": TABLE},
            "config": vega_config(legend=legend, font_size=font_size),
            "width": width,
        }


def _csv_cell(value: Any) -> Any:
    """Return a cell of a CSV file, as the script of a page writes it too.

    Whole numbers have no fraction, lists are separated by spaces, and booleans are those of JSON.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(str(_csv_cell(each)) for each in value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        return int(value)
    return plain_cell(value)


def rounded(value: float | None) -> float | None:
    """Return a number with DIGITS significant digits; None if it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


def columns_of(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    """Return the columns of rows that are given as mappings; a missing value is None."""
    return {name: [row.get(name) for row in rows] for name in names}


def to_svg(figure: ReportFigure, **options: Any) -> str:
    """Return the figure as an SVG document; the options are those of `ReportFigure.complete_spec`."""
    return draw_svg(figure.complete_spec(**options), figure.key)


def draw_svg(spec: Spec, prefix: str) -> str:
    """Return the picture of a complete specification as an SVG document.

    Vega numbers clip paths and gradients across all pictures of a process. They get names that depend on
    the picture alone, and that start with `prefix`, so that one page can contain several pictures.
    """
    svg = str(start_engine().vegalite_to_svg(spec))
    names = dict.fromkeys(re.findall(r'\bid="((?:clip|gradient_)\d+)"', svg))
    numbers = {name: f"{prefix}-{number}" for number, name in enumerate(names)}
    with_ids = re.sub(
        r'(\bid="|url\(#|href="#)((?:clip|gradient_)\d+)',
        lambda match: match[1] + numbers.get(match[2], match[2]),
        svg,
    )
    return _GEOMETRY.sub(_rounded_geometry, with_ids.replace(' aria-hidden="true"', ""))


def _rounded_geometry(attribute: re.Match[str]) -> str:
    """Return an attribute with coordinates of two decimals; Vega writes up to 17 digits of each."""
    return _LONG_FRACTION.sub(r"\1", attribute[0])


def to_png(figure: ReportFigure, *, scale: float = 2.0, **options: Any) -> bytes:
    """Return the figure as a PNG image with `scale` device pixels per pixel, on white."""
    spec = _on_white(figure.complete_spec(**options))
    return bytes(start_engine().vegalite_to_png(spec, scale=scale))


def to_pdf(figure: ReportFigure, **options: Any) -> bytes:
    """Return the figure as a PDF document of one page."""
    return bytes(start_engine().vegalite_to_pdf(_on_white(figure.complete_spec(**options))))


def _on_white(spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec, "config": {**spec["config"], "background": "white"}}


def require_vl_convert() -> None:
    """Raise MissingExtraError if the package that draws specifications is not installed."""
    if find_spec("vl_convert") is None:
        raise MissingExtraError("figures", "report")


def start_engine() -> Any:
    """Return vl-convert, which starts a V8 engine; raise MissingExtraError if it is not installed."""
    require_vl_convert()
    import vl_convert

    _STARTED_ENGINES.add(os.getpid())
    return vl_convert


def warm_up_engine() -> str:
    """Start the engine, which takes half a second, and draw an empty picture."""
    return draw_svg({"data": {"values": []}, "mark": "point"}, "")


def has_engine() -> bool:
    """Return whether this process has a V8 engine, whose threads a forked process would lack."""
    return os.getpid() in _STARTED_ENGINES


_STARTED_ENGINES: set[int] = set()
"""The process, if it has started an engine, and its parents that had."""
