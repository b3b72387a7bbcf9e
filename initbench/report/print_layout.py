"""Figures for print: column widths of papers, a fixed probe and baseline, and the caption in the picture."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any, Literal

from initbench.errors import UsageError
from initbench.render.text import plural
from initbench.report.canonical_pdf import canonical_pdf
from initbench.report.figure import ReportFigure, Spec, draw_svg, start_engine
from initbench.report.parameters import AT_STEP
from initbench.report.theme import PRINT_FONT, text_width

Columns = Literal[1, 2]

COLUMN_INCHES: dict[Columns, float] = {1: 3.3, 2: 6.9}
"""Widths of figures in papers of two columns, by the number of columns that a figure takes."""
FONT_POINTS = 7.0
"""Size of labels and captions in points."""
_FONT_PIXELS = 11.0
"""The same size in pixels of a specification: figures are drawn as on a page, and then scaled."""
POINTS_PER_INCH = 72
PIXELS_PER_INCH = 300
"""Resolution of PNG images."""
SUFFIXES = (".svg", ".png", ".pdf", ".csv", ".json")
"""Formats of figures: pictures, the numbers, and the Vega-Lite specification."""
_SCALE = FONT_POINTS / _FONT_PIXELS
"""Points per pixel of a specification."""
_PADDING = 3.0
_TEXT_SHARE = 0.85
"""Share of the width that a caption takes in formats that other programs draw, perhaps in a wider font."""


@dataclass(frozen=True)
class PrintLayout:
    """Width and words of a printed figure."""

    columns: Columns
    """Number of columns of a paper whose width the figure has."""
    heading: str | None = None
    """Bold text before the caption; the title of the figure if None."""
    has_caption: bool = True
    """Whether the picture contains the caption; a `heading` is drawn in any case."""

    @classmethod
    def of(
        cls, figure: ReportFigure, columns: int | None, *, heading: str | None, has_caption: bool
    ) -> PrintLayout:
        """Return the layout of a figure, with the number of columns that suits its size if None."""
        default: Columns = 2 if figure.size == "full" else 1
        number: Columns = default if columns is None else 1 if columns == 1 else 2
        return cls(number, heading, has_caption)

    @property
    def width(self) -> int:
        """Width in pixels of the specification."""
        return round(COLUMN_INCHES[self.columns] * POINTS_PER_INCH / _SCALE)


def figure_suffix(path: Path) -> str:
    """Return the suffix of a file, which determines the format of a figure.

    Raises:
        UsageError: If no format of figures has this suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        described = f"{suffix} of {path}" if suffix else f"{path}"
        raise UsageError(f"cannot choose a format from {described}: use {', '.join(SUFFIXES)}")
    return suffix


def full_caption(figure: ReportFigure, layout: PrintLayout) -> str:
    """Return heading, caption and notes as one paragraph."""
    return " ".join([f"{_heading(figure, layout).rstrip('.')}.", _caption(figure)])


def shows_one_step(figure: ReportFigure) -> bool:
    """Return whether the figure shows the layers of one probe of each row."""
    return AT_STEP in figure.spec.get("transform", ())


def at_step(figure: ReportFigure, step: int) -> ReportFigure:
    """Return the figure with the probe nearest to a step alone, and the step in its caption.

    In a figure that shows all steps, none of them is marked as selected.
    """
    if not shows_one_step(figure):
        return replace(figure, spec=_with_value(figure.spec, "step", -1))
    starts, ends = figure.columns["step"], figure.columns["until"]
    nearest = min(sorted(set(starts)), key=lambda start: abs(start - step))
    indices = [i for i, end in enumerate(ends) if starts[i] <= nearest < end]
    columns = {name: [values[i] for i in indices] for name, values in figure.columns.items()}
    moment = "at init" if nearest == 0 else f"after {plural(nearest, 'update')}"
    return replace(
        figure,
        columns=columns,
        caption=f"{figure.caption} Shown: {moment}.",
        spec=_with_value(figure.spec, "step", nearest),
    )


def relative_to(figure: ReportFigure, baseline: str) -> ReportFigure:
    """Return the figure with differences from a row, or ratios on logarithmic axes.

    A figure that cannot show them is returned unchanged.
    """
    if "baseline" not in figure.parameter_names:
        return figure
    is_ratio = "y" in figure.log_channels
    comparison = f"{'ratio to' if is_ratio else 'difference from'} {baseline}"
    spec = _with_value(figure.spec, "baseline", baseline)
    titles = {title: f"{title}: {comparison}" for title in _titles_of(spec, "shown")}
    form = f"Shown: {'ratios to' if is_ratio else 'differences from'} {baseline}, without bars and bands."
    return replace(figure, spec=_with_titles(spec, titles), caption=f"{figure.caption} {form}")


def print_spec(figure: ReportFigure, layout: PrintLayout, *, has_font: bool = False) -> Spec:
    """Return the specification of the printed figure; one of its pixels is 7/11 of a point.

    Args:
        figure: The figure.
        layout: How it is printed.
        has_font: Whether it is drawn in PRINT_FONT for sure, so that captions can take the whole width.
    """
    spec = figure.complete_spec(width=layout.width, font_size=_FONT_PIXELS)
    text = _text_below(figure, layout, 1.0 if has_font else _TEXT_SHARE)
    return {
        **spec,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": {**spec["config"], "background": "white", "font": PRINT_FONT, "padding": _PADDING},
        **({"title": text} if text else {}),
    }


def print_figure(figure: ReportFigure, layout: PrintLayout, suffix: str) -> str | bytes:
    """Return the figure in the format of a suffix of SUFFIXES; the same figure gives the same bytes.

    Raises:
        MissingExtraError: If the format is a picture and the packages of the extra `report` are missing.
    """
    if suffix == ".csv":
        return figure.to_csv()
    spec = print_spec(figure, layout, has_font=suffix in (".png", ".pdf"))
    if suffix == ".json":
        return json.dumps(spec, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    converter = start_engine()
    if suffix == ".png":
        return bytes(converter.vegalite_to_png(spec, scale=_SCALE, ppi=PIXELS_PER_INCH))
    svg = draw_svg(spec, figure.key)
    if suffix == ".pdf":
        return canonical_pdf(bytes(converter.svg_to_pdf(_resized(svg, lambda points: f"{points:.6g}"))))
    sized = _resized(svg, lambda points: f"{points / POINTS_PER_INCH:.6g}in")
    words = f"<title>{escape(figure.title)}</title><desc>{escape(_caption(figure))}</desc>"
    opening, content = sized.split(">", 1)
    return f'{opening} role="img">{words}{content}\n'


def _resized(svg: str, format_size: Callable[[float], str]) -> str:
    """Return a document with the size of print; `format_size` formats a width or height in points."""
    opening, content = svg.split(">", 1)

    def resize(match: re.Match[str]) -> str:
        return f'{match[1]}="{format_size(float(match[2]) * _SCALE)}"'

    return re.sub(r'\b(width|height)="([\d.]+)"', resize, opening) + ">" + content


def _heading(figure: ReportFigure, layout: PrintLayout) -> str:
    return figure.title if layout.heading is None else layout.heading


def _caption(figure: ReportFigure) -> str:
    """Return the caption without a first sentence that is the title, which precedes it anyway."""
    return " ".join([figure.caption.removeprefix(f"{figure.title}. "), *figure.notes])


def _text_below(figure: ReportFigure, layout: PrintLayout, share: float) -> dict[str, Any]:
    """Return the title of Vega-Lite that stands below the figure: heading and wrapped caption."""
    if not layout.has_caption and layout.heading is None:
        return {}
    width = share * (layout.width - 2 * _PADDING)
    heading = _wrapped(_heading(figure, layout), width, 1.06 * _FONT_PIXELS)
    return {
        "text": heading,
        **({"subtitle": _wrapped(_caption(figure), width, _FONT_PIXELS)} if layout.has_caption else {}),
        "fontSize": _FONT_PIXELS,
        "subtitleFontSize": _FONT_PIXELS,
        "subtitleColor": "currentColor",
        "lineHeight": 1.25 * _FONT_PIXELS,
        "subtitleLineHeight": 1.25 * _FONT_PIXELS,
        "orient": "bottom",
        "anchor": "start",
        "frame": "bounds",
        "offset": 8,
    }


def _wrapped(text: str, width: float, font_size: float) -> list[str]:
    """Split a paragraph into lines of at most this width; a longer word is broken."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if text_width(longer, font_size) <= width:
            lines[-1] = longer
            continue
        lines += [word] if lines[-1] else []
        lines[-1] = lines[-1] or word
        while text_width(lines[-1], font_size) > width:
            count = len(lines[-1])
            while text_width(lines[-1][:count], font_size) > width:
                count -= 1
            lines[-1:] = [lines[-1][:count], lines[-1][count:]]
    return lines


def _with_value(spec: Spec, name: str, value: Any) -> Spec:
    params = [
        {**parameter, "value": value} if parameter["name"] == name else parameter
        for parameter in spec.get("params", ())
    ]
    return {**spec, "params": params}


def _with_titles(spec: Any, titles: Mapping[str, str]) -> Any:
    """Return a specification in which axes with the titles that are keys have the new ones."""
    if isinstance(spec, list):
        return [_with_titles(part, titles) for part in spec]
    if not isinstance(spec, dict):
        return spec
    copy = {key: _with_titles(value, titles) for key, value in spec.items()}
    if "scale" in spec and spec.get("title") in titles:
        copy["title"] = titles[spec["title"]]
    return copy


def _titles_of(spec: Any, field: str) -> Iterator[str]:
    """Yield the titles of the axes of a field."""
    if isinstance(spec, list):
        for part in spec:
            yield from _titles_of(part, field)
    elif isinstance(spec, dict):
        if spec.get("field") == field and "scale" in spec:
            yield spec["title"]
        for part in spec.values():
            yield from _titles_of(part, field)
