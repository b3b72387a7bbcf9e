"""The pictures and the script library of a page, made by other processes while this one builds figures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from functools import partial
from html import escape
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from initbench.analysis.process_map import background_processes
from initbench.data.download.checksums import cache_folder
from initbench.machine import available_cores
from initbench.report.figure import ReportFigure, draw_svg, has_engine, start_engine
from initbench.report.panels import MAX_PANELS, PLACES
from initbench.report.parameters import AT_STEP, STEP
from initbench.report.theme import FONT, MEASURED_FONT
from initbench.store.files import write_atomic

MAX_PROCESSES = 3
"""Largest number of processes that draw; each of them starts an engine, which takes half a second."""
_AXIS_WIDTH = 50
"""Typical width in pixels of the labels and the title of the y axis."""
_EMBED = "window.initbenchVega = {vegaEmbed, vega};"


class PictureDrawer:
    """Draws static pictures in other processes, as far as this one may start any.

    Use it as a context manager, which stops the processes at the end.
    """

    def __init__(self) -> None:
        """Start nothing yet: the first figure starts the processes."""
        self._processes: Executor | None = None
        self._has_started = False
        self._results: dict[str, Future[str]] = {}
        self._library: Future[str] | None = None

    def __enter__(self) -> PictureDrawer:
        """Return the drawer."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Stop the processes; pictures that are still waiting are not drawn."""
        if self._processes is not None:
            self._processes.shutdown(cancel_futures=True)

    def start(self, figure: ReportFigure) -> None:
        """Begin to draw a figure, unless one with its key was started before."""
        if figure.key in self._results:
            return
        is_first, self._has_started = not self._has_started, True
        if is_first and not has_engine():  # forked processes could not draw
            self._processes = background_processes(min(MAX_PROCESSES, available_cores() - 1))
        drawn = self._submit(partial(static_picture, figure))
        if drawn is not None:
            self._results[figure.key] = drawn
        if is_first and not _library_file().exists():
            self._library = self._submit(script_library)

    def picture(self, figure: ReportFigure) -> str:
        """Return the picture of a figure, which is drawn now if it was not started."""
        return self._result(self._results.get(figure.key), partial(static_picture, figure))

    def library(self) -> str:
        """Return `script_library()`."""
        return self._result(self._library, script_library)

    def _submit(self, act: Callable[[], str]) -> Future[str] | None:
        with suppress(BrokenProcessPool, OSError):  # a process was killed, or the system refuses to start one
            return None if self._processes is None else self._processes.submit(act)
        return None

    @staticmethod
    def _result(future: Future[str] | None, act: Callable[[], str]) -> str:
        with suppress(BrokenProcessPool):
            if future is not None:
                return future.result()
        return act()


def static_picture(figure: ReportFigure) -> str:
    """Return the figure as an SVG element that scales with the page and is hidden from screen readers.

    The picture is the same on all machines: texts are measured in a font that vl-convert contains. The plot
    has a fixed size, since Vega lays out twice to fit a picture into a given width.
    """
    spec = _first_view(figure).complete_spec(legend=False)
    spec["config"]["font"] = MEASURED_FONT
    spec |= {"autosize": "pad", "width": spec["width"] - _AXIS_WIDTH}
    svg = draw_svg(spec, figure.key).replace(
        f'font-family="{MEASURED_FONT}"', f'font-family="{escape(FONT)}"'
    )
    start = svg.index("<svg")
    return svg[start:].replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def _first_view(figure: ReportFigure) -> ReportFigure:
    """Return the figure with only the data that it shows at first, which takes far less time to draw."""
    transforms = figure.spec.get("transform", ())
    indices: Sequence[int] = range(len(next(iter(figure.columns.values()), [])))
    if AT_STEP in transforms:
        starts, ends = figure.columns["step"], figure.columns["until"]
        indices = [i for i in indices if starts[i] <= STEP["value"] < ends[i]]
    if all(step in transforms for step in PLACES):
        orders = figure.columns["order"]
        drawn = sorted({orders[i] for i in indices})[:MAX_PANELS]
        indices = [i for i in indices if orders[i] in drawn]
    columns: dict[str, list[Any]] = {
        name: [values[i] for i in indices] for name, values in figure.columns.items()
    }
    return replace(figure, columns=columns)


def script_library() -> str:
    """Return the JavaScript of Vega, Vega-Lite and vega-embed, which vl-convert contains.

    It is the same for all pages. As vl-convert takes a second to put it together, it is kept as a file.
    """
    file = _library_file()
    with suppress(OSError, UnicodeDecodeError):
        return file.read_text(encoding="utf-8")
    script = str(start_engine().javascript_bundle(_EMBED))
    script = re.sub("</(?=script)", r"<\\/", script, flags=re.IGNORECASE)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, script)
    return script


def _library_file() -> Path:
    digest = hashlib.sha256(_EMBED.encode()).hexdigest()
    return cache_folder() / f"vega-{version('vl-convert-python')}-{digest[:8]}.js"
