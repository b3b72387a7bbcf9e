"""Pictures that other processes draw are those that this process would draw."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from initbench.analysis import process_map
from initbench.analysis.load_runs import load_run_summaries
from initbench.analysis.process_map import background_processes
from initbench.render.compare.display_options import View
from initbench.report import drawing
from initbench.report.build import build_page, figures_of
from initbench.report.drawing import MAX_MARKS, PictureDrawer, first_view, script_library, static_picture
from initbench.report.figure import ReportFigure, to_svg
from initbench.report.report_runs import ReportRuns, compare_for_report
from initbench.report.views.depth_profile import depth_figures
from initbench.report.views.histogram_grid import histogram_figures
from initbench.store.store import Store, StoredRun
from tests.report.report_runs import figure_of, report_of, stored_run, two_arms

pytest.importorskip("vl_convert")


@pytest.fixture(scope="module")
def runs(store_root: Path) -> ReportRuns:
    """The runs of the synthetic store."""
    store = Store(store_root)
    return compare_for_report(store, load_run_summaries(store, []), View())


@pytest.fixture(scope="module")
def figures(runs: ReportRuns) -> list[ReportFigure]:
    """The figures of the runs."""
    return list(figures_of(runs))


@pytest.fixture
def may_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork although torch is loaded: a new process that only draws takes no lock of torch."""
    monkeypatch.setattr(process_map, "_may_fork", lambda: True)
    monkeypatch.setattr(drawing, "has_engine", lambda: False)
    monkeypatch.setattr(drawing, "warm_up_engine", str)  # a copy of an engine does not work
    monkeypatch.setattr(drawing, "available_cores", lambda: 2)


def _name_of_process(figure: ReportFigure) -> str:
    return f"{figure.key} {os.getpid()}"


def _die(_figure: ReportFigure) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def test_static_pictures_need_only_thefirst_view(figures: list[ReportFigure]) -> None:
    counts = {}
    for figure in figures:
        first = first_view(figure)
        counts[figure.key] = (len(list(first.rows())), len(list(figure.rows())))
        assert to_svg(first, legend=False) == to_svg(figure, legend=False)
    fewer = {key for key, (first, all_) in counts.items() if first < all_}
    assert {"depth-q", "histograms-activation"} <= fewer
    assert all(first > 0 for first, _ in counts.values())


def test_texts_are_measured_in_the_same_font_everywhere(figures: list[ReportFigure]) -> None:
    picture = static_picture(figures[0])
    assert picture.startswith("<svg ") and "system-ui" in picture
    assert "Liberation" not in picture


@pytest.mark.usefixtures("may_fork")
def test_figures_are_drawn_by_another_process(
    figures: list[ReportFigure], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "static_picture", _name_of_process)
    first, second = figures[:2]
    with PictureDrawer() as drawer:
        drawer.start(first)
        drawer.start(first)
        key, process = drawer.picture(first).split()
        assert key == first.key
        assert int(process) != os.getpid()
        assert drawer.picture(second) == f"{second.key} {os.getpid()}"


@pytest.mark.usefixtures("may_fork")
def test_the_pictures_of_a_killed_process_are_drawn_here(
    figures: list[ReportFigure], monkeypatch: pytest.MonkeyPatch
) -> None:
    with PictureDrawer() as drawer:
        monkeypatch.setattr(drawing, "static_picture", _die)
        drawer.start(figures[0])
        monkeypatch.setattr(drawing, "static_picture", _name_of_process)
        for figure in figures[:3]:
            assert drawer.picture(figure) == f"{figure.key} {os.getpid()}"
            drawer.start(figure)


def test_figures_without_layers_are_drawn_before_layers_are_read(store_root: Path) -> None:
    events: list[str] = []

    class Drawer(PictureDrawer):
        def start(self, figure: ReportFigure) -> None:
            events.append(figure.key)

    class Source(Store):
        def read_if_there(self, run_id: str) -> StoredRun | None:
            events.append("read")
            return super().read_if_there(run_id)

    store = Source(store_root)
    report = compare_for_report(store, load_run_summaries(Store(store_root), []), View())
    assert events == []
    page = build_page(report, drawer=Drawer())
    first, last = events.index("read"), len(events) - events[::-1].index("read")
    assert "validation-accuracy" in events[:first]
    assert {"depth-q", "histograms-activation"} <= set(events[last:])
    keys = [figure.key for section in page.sections for figure in section.figures]
    assert sorted(keys) == sorted(event for event in events if event != "read")
    assert keys[0] == "histograms-activation"


def test_the_library_is_kept_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "cache_folder", lambda: tmp_path / "cache")
    script = script_library()
    (file,) = (tmp_path / "cache").iterdir()
    assert file.read_text(encoding="utf-8") == script and "initbenchVega" in script
    file.write_text("kept", encoding="utf-8")
    assert script_library() == "kept"


def test_a_library_that_cannot_be_kept_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr(drawing, "cache_folder", lambda: tmp_path / "file" / "cache")
    assert "initbenchVega" in script_library()


@pytest.mark.parametrize("count", [0, -1])
def test_without_processes_there_is_no_pool(count: int) -> None:
    assert background_processes(count) is None


def test_ticks_of_logarithmic_axes_fit_the_values_that_are_shown() -> None:
    run = stored_run()
    for snapshot in run.snapshots:
        for number, layer in enumerate(snapshot["layers"][:-1]):
            layer["act"]["std"] = 10.0**-number if snapshot["step"] else 20.0 + 10.0 * number
    figure = figure_of(depth_figures, report_of([run]), "depth-activation-std")
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", static_picture(figure))
    assert "20" in labels
    assert {"1", "2"} <= set(labels) and "1.0" not in labels  # the layers


def test_lines_of_many_records_have_no_marks() -> None:
    (figure,) = (f for f in depth_figures(report_of(two_arms())) if f.key == "depth-q")
    few = static_picture(figure)
    repeated = {name: values * (MAX_MARKS // 2) for name, values in figure.columns.items()}
    many = static_picture(replace(figure, columns=repeated))
    assert "mark-symbol" in few and "mark-symbol" not in many
    assert "mark-line" in many


def test_histograms_of_a_static_picture_have_the_shape_of_the_bars() -> None:
    figure = figure_of(histogram_figures, report_of(two_arms()), "histograms-activation")
    assert figure.static_spec is not None
    (outlines,) = (layer["data"]["values"] for layer in figure.static_spec["layer"] if "data" in layer)
    shown = list(first_view(figure).rows())
    assert [(each["row"], each["layer"]) for each in outlines] == [(r["row"], r["layer"]) for r in shown]
    for outline, record in zip(outlines, shown, strict=True):
        heights = [-float(number) for number in re.findall(r"V(-?[\d.]+)H", outline["outline"])]
        scale = max(heights) / max(record["shares"])
        assert heights == pytest.approx([scale * share for share in record["shares"]], abs=0.01)
