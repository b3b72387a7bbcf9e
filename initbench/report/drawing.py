"""The pictures and the script library of a page, made by other processes while this one builds figures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from html import escape
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from initbench.analysis.load_runs import garbage_collection_off
from initbench.analysis.process_map import background_processes
from initbench.data.download.checksums import cache_folder
from initbench.machine import available_cores
from initbench.report.figure import (
    STATIC_WIDTHS,
    TABLE,
    ReportFigure,
    Spec,
    draw_svg,
    has_engine,
    start_engine,
    warm_up_engine,
)
from initbench.report.panels import MAX_PANELS, PLACES
from initbench.report.parameters import AT_STEP, STEP
from initbench.report.theme import FONT, MEASURED_FONT
from initbench.store.files import write_atomic

MAX_PROCESSES = 3
"""Largest number of processes that draw; each of them starts an engine, which takes half a second."""
MAX_MARKS = 1000
"""Number of records beyond which the lines of a static picture have no marks."""
_EMBED = "window.initbenchVega = {vegaEmbed, vega};"


class PictureDrawer:
    """Draws static pictures in other processes, as far as this one may start any.

    Use it as a context manager, which starts the processes and stops them at the end. Build and render the
    page inside, as garbage collection is off there: a page has millions of numbers, and no cycles.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._exit = ExitStack()
        self._processes: Executor | None = None
        self._results: dict[str, Future[str]] = {}
        self._library: Future[str] | None = None

    def __enter__(self) -> PictureDrawer:
        """Start the processes and their engines."""
        self._exit.enter_context(garbage_collection_off())
        if not has_engine():  # forked processes could not draw
            count = min(MAX_PROCESSES, available_cores() - 1)
            self._processes = background_processes(count)
            if self._processes is not None:
                self._exit.callback(self._processes.shutdown, cancel_futures=True)
                for _ in range(count):
                    self._submit(warm_up_engine)
            if not _library_file().exists():
                self._library = self._submit(script_library)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Stop the processes; pictures that are still waiting are not drawn."""
        self._exit.close()

    def start(self, figure: ReportFigure) -> None:
        """Begin to draw a figure, unless one with its key was started before."""
        if figure.key in self._results:
            return
        drawn = self._submit(partial(static_picture, first_view(figure)))
        if drawn is not None:
            self._results[figure.key] = drawn

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
    first = replace(first_view(figure), spec=figure.static_spec or figure.spec)
    spec = first.complete_spec(legend=False)
    spec["config"]["font"] = MEASURED_FONT
    spec["layer"] = _still_layers(spec["layer"], len(spec["datasets"][TABLE]))
    spec |= {"autosize": "pad", "width": STATIC_WIDTHS[figure.size]}
    svg = draw_svg(spec, figure.key).replace(
        f'font-family="{MEASURED_FONT}"', f'font-family="{escape(FONT)}"'
    )
    start = svg.index("<svg")
    return svg[start:].replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def _still_layers(layers: Sequence[Spec], records: int) -> list[Spec]:
    """Return the layers of a picture on which nothing can be pointed at.

    They have no tooltips. If there are more than MAX_MARKS records, the lines of rows have no marks, which
    would cover each other.
    """
    encodings = [layer.get("encoding", {}) for layer in layers]
    drops_marks = records > MAX_MARKS and any("strokeDash" in encoding for encoding in encodings)
    return [
        {**layer, "encoding": {name: channel for name, channel in encoding.items() if name != "tooltip"}}
        for layer, encoding in zip(layers, encodings, strict=True)
        if not (drops_marks and "shape" in encoding)
    ]


def first_view(figure: ReportFigure) -> ReportFigure:
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
