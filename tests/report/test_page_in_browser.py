"""The report page in a real browser: controls, links, downloads, keyboard, layout and colours."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic_runs import SyntheticRow, write_runs
from initbench.analysis.load_runs import load_run_summaries
from initbench.cli.main import run_command
from initbench.render.compare.display_options import View
from initbench.report.build import figures_of
from initbench.report.figure import ReportFigure
from initbench.report.report_runs import compare_for_report
from initbench.store.store import Store
from tests.report.conftest import Opener, OpenPage

HEALTHY, SCRIPT = "healthy \"quoted\" & 'single'", "<script>alert(1)</script>"
WIDTHS = (
    360,
    800,
    1040,
    *(pytest.param(width, marks=pytest.mark.slow) for width in (1000, 1080, 1280, 1600)),
)
CHECKS = (Path(__file__).parent / "page_checks.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def figures(store_root: Path) -> dict[str, ReportFigure]:
    """The figures that the page shows, by key."""
    store = Store(store_root)
    runs = load_run_summaries(store, [])
    return {figure.key: figure for figure in figures_of(compare_for_report(store, runs, View()))}


def with_parameter(figures: dict[str, ReportFigure], name: str) -> set[str]:
    """Return the keys of the figures that a parameter changes."""
    found = {
        key
        for key, figure in figures.items()
        if any(p["name"] == name for p in figure.spec.get("params", ()))
    }
    assert found
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Return the keys of the figures whose marks differ."""
    return {key for key in after if before[key] != after[key]}


def set_slider(page: Any, name: str, value: int) -> None:
    """Move a slider as a user does."""
    page.locator(f"#{name}").fill(str(value))


def test_names_are_text(report: OpenPage) -> None:
    names = report.page.locator("#legend span").all_inner_texts()
    assert {HEALTHY, SCRIPT, "=1+1"} < set(names)
    assert any("</script><b>🚀" in name for name in names)
    assert report.page.evaluate("document.querySelectorAll('main script:not(.figure-data)').length") == 0


def test_step_slider_changes_every_figure_of_a_step(
    report: OpenPage, figures: dict[str, ReportFigure]
) -> None:
    before = report.plots()
    report.change(lambda: set_slider(report.page, "step", 3))
    assert report.page.inner_text("#step-value") == "2,000"
    assert changed(before, report.plots()) == with_parameter(figures, "step")


def test_hidden_row_is_in_no_figure(report: OpenPage, figures: dict[str, ReportFigure]) -> None:
    row = report.page.locator("#legend li", has_text="healthy")
    colour = row.locator("line").get_attribute("stroke")
    marks = f".plot [stroke='{colour}'], .plot [fill='{colour}']"
    before = report.plots()
    assert report.page.locator(marks).count() > len(figures)
    report.change(lambda: row.locator("input").uncheck())
    assert report.page.locator(marks).count() == 0
    assert changed(before, report.plots()) == with_parameter(figures, "hidden")
    assert report.page.inner_text("#state") == "1 row is hidden."
    report.change(lambda: row.locator("input").check())
    assert report.page.locator(marks).count() > len(figures)


def test_baseline_makes_lines_relative(report: OpenPage, figures: dict[str, ReportFigure]) -> None:
    before, first = report.plots(), report.contents()
    report.change(lambda: report.page.select_option("#baseline", HEALTHY))
    assert report.page.inner_text("#state").startswith(f"Lines are differences from {HEALTHY}")
    assert changed(before, report.plots()) == with_parameter(figures, "baseline")
    report.change(lambda: report.page.click("#reset"))
    assert report.page.inner_text("#state") == ""
    assert report.contents() == first


def test_scale_button_switches_the_axis(report: OpenPage) -> None:
    button = report.page.locator("#depth-q .scale")
    labels_now = (
        "[...document.querySelectorAll('#depth-q .plot text')].map((t) => t.textContent).sort().join(' ')"
    )
    logarithmic = report.page.evaluate(labels_now)
    assert "1e-3 1e-4 " in logarithmic
    button.click()
    assert button.inner_text() == "Logarithmic axis"
    report.page.wait_for_function(f"(old) => {labels_now} !== old", arg=logarithmic)
    assert "e-" not in report.page.evaluate(labels_now)
    button.click()
    report.page.wait_for_function(f"(old) => {labels_now} === old", arg=logarithmic)


def test_click_on_a_point_selects_its_layer_everywhere(
    report: OpenPage, figures: dict[str, ReportFigure]
) -> None:
    before, first = report.plots(), report.contents()
    point = report.page.locator("#depth-q .plot .mark-symbol path").nth(2)
    point.scroll_into_view_if_needed()
    report.change(lambda: point.click(force=True))
    assert report.page.inner_text("#layer-value") == "3"
    assert changed(before, report.plots()) >= with_parameter(figures, "layer")
    report.change(lambda: set_slider(report.page, "layer", 0))
    assert report.page.inner_text("#layer-value") == "none"
    assert report.contents() == first


def test_hover_shows_the_exact_value(report: OpenPage, figures: dict[str, ReportFigure]) -> None:
    point = report.page.locator("#depth-q .plot .mark-symbol path").nth(1)
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    report.page.wait_for_selector("#vg-tooltip-element.visible")
    texts = report.page.locator("#vg-tooltip-element td").all_inner_texts()
    cells = dict(zip(texts[::2], texts[1::2], strict=True))
    record = next(
        record
        for record in figures["depth-q"].rows()
        if (record["row"], record["step"], record["layer"]) == (cells["row"], 0, int(cells["layer"]))
    )
    assert float(cells["q = E[h²]"]) == record["value"]


def test_tables_sort_by_number(report: OpenPage) -> None:
    heading = report.page.locator("#verdict th", has_text="test accuracy")
    column = "[...document.querySelectorAll('#verdict tbody tr')].map((row) => row.cells[4].textContent)"
    orders = {}
    for order in ("ascending", "descending"):
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == order
        cells = report.page.evaluate(column)
        orders[order] = [float(cell.split()[0]) for cell in cells if cell.strip(" -–—")]
        assert len(orders[order]) == 3
    assert orders["ascending"] == sorted(orders["ascending"])
    assert orders["descending"] == sorted(orders["descending"], reverse=True)


def test_link_restores_the_view(open_page: Opener) -> None:
    opened = open_page()
    set_slider(opened.page, "step", 2)
    set_slider(opened.page, "layer", 4)
    opened.page.select_option("#baseline", SCRIPT)
    opened.change(lambda: opened.page.locator("#legend li", has_text="=1+1").locator("input").uncheck())
    opened.settle()
    again = open_page("#" + opened.page.url.partition("#")[2])
    assert again.page.input_value("#step") == "2"
    assert again.page.input_value("#layer") == "4"
    assert again.page.input_value("#baseline") == SCRIPT
    assert not again.page.locator("#legend li", has_text="=1+1").locator("input").is_checked()
    assert again.contents() == opened.contents()


def test_damaged_link_shows_the_first_view(open_page: Opener) -> None:
    opened = open_page("#depth?step=x&layer=99999&baseline=no&hidden=no&%ff", draw=False)
    opened.page.wait_for_function("document.body.dataset.ready === 'true'")
    assert opened.page.inner_text("#state") == ""
    assert opened.page.input_value("#step") == "0"


def test_downloads_are_the_figure_and_its_data(report: OpenPage, figures: dict[str, ReportFigure]) -> None:
    # Files are read from memory and not downloaded, since Chromium delays the eleventh within a second.
    report.page.evaluate(
        """() => {
          const url = URL.createObjectURL;
          URL.createObjectURL = (file) => url(window.saved = file);
          window.clickLink = HTMLAnchorElement.prototype.click;
          HTMLAnchorElement.prototype.click = () => {};
        }"""
    )
    for key, figure in figures.items():
        report.page.click(f"#{key} .csv")
        text = report.page.evaluate("window.saved.text()")
        assert text == figure.to_csv()
        assert len(list(csv.reader(io.StringIO(text)))) == len(list(figure.rows())) + 1
    report.page.evaluate("() => { HTMLAnchorElement.prototype.click = window.clickLink; }")
    with report.page.expect_download() as download:
        report.page.click("#depth-q .svg")
    assert download.value.suggested_filename == "depth-q.svg"
    root = ET.parse(download.value.path()).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "layer" in texts
    assert SCRIPT in texts, "a picture of its own needs a legend"


def test_keyboard_reaches_and_operates_every_control(report: OpenPage) -> None:
    page = report.page
    focusable = page.evaluate(
        """() => {
          const all = document.querySelectorAll("a[href], input, select, button, summary, [tabindex='0']");
          const seen = [...all].filter((e) => e.checkVisibility() && !e.disabled);
          seen.forEach((e, i) => { e.dataset.order = String(i); });
          return seen.length;
        }"""
    )
    assert focusable > 30
    page.focus(".skip")
    reached = [0]
    for _ in range(focusable - 1):
        page.keyboard.press("Tab")
        reached.append(int(page.evaluate("document.activeElement.dataset.order ?? '-1'")))
    assert reached == list(range(focusable))

    def press(selector: str, key: str) -> None:
        page.focus(selector)
        page.keyboard.press(key)

    report.change(lambda: press(".row-shown", "Space"))
    assert not page.is_checked(".row-shown")
    report.change(lambda: press("#step", "ArrowRight"))
    assert page.input_value("#step") == "1"
    report.change(lambda: press("#layer", "ArrowRight"))
    assert page.inner_text("#layer-value") == "1"
    report.change(lambda: press("#baseline", "ArrowDown"))
    assert page.input_value("#baseline") != ""
    press("#verdict th button", "Enter")
    assert page.get_attribute("#verdict th", "aria-sort") == "ascending"
    press("#depth-q summary", "Enter")
    assert page.get_attribute("#depth-q details", "open") is not None
    report.change(lambda: press("#reset", "Enter"))
    assert page.is_checked(".row-shown")


@pytest.mark.slow
def test_play_shows_one_step_after_another(open_page: Opener) -> None:
    opened = open_page()
    opened.change(lambda: opened.page.click("#play"))
    assert opened.page.inner_text("#play") == "Pause"
    opened.page.click("#play")
    assert opened.page.inner_text("#play") == "Play"
    assert int(opened.page.input_value("#step")) >= 1
    still = open_page(reduced_motion="reduce")
    assert not still.page.is_visible("#play")
    assert still.page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_page_reads_without_scripts(open_page: Opener, figures: dict[str, ReportFigure]) -> None:
    page = open_page(draw=False, java_script_enabled=False).page
    for key, figure in figures.items():
        box = page.locator(f"#{key} .plot svg").bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) > 100
        assert page.locator(f"#{key} .plot svg path").count() > 3
        assert page.locator(f"#{key} tbody tr").count() == min(200, len(list(figure.rows())))
        assert not page.is_visible(f"#{key} .tools")
    assert page.locator("#verdict tbody tr").count() == 4
    assert page.locator("#legend span").count() == 4
    assert not page.is_visible("#sliders")
    assert not page.is_visible("#legend input")
    empty = (
        "[...document.querySelectorAll('main *')].filter((e) => e.tagName === 'DIV' && e.checkVisibility()"
    )
    assert page.evaluate(f"{empty} && !e.childElementCount && !e.textContent.trim()).length") == 0


def test_each_figure_is_described(report: OpenPage, figures: dict[str, ReportFigure]) -> None:
    for key, figure in figures.items():
        plot = report.page.locator(f"#{key} .plot")
        assert plot.get_attribute("role") == "img"
        assert plot.get_attribute("aria-label") == f"{figure.title}. {figure.takeaway}"


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overlaps(open_page: Opener, width: int) -> None:
    opened = open_page(width=width)
    assert opened.page.evaluate(f"{CHECKS}; overlaps()") == []


@pytest.mark.slow
def test_window_can_become_narrow(open_page: Opener) -> None:
    opened = open_page(width=1600)
    opened.page.set_viewport_size({"width": 360, "height": 900})
    opened.page.wait_for_function(
        "[...document.querySelectorAll('.plot')].every((p) => p.querySelector('svg').width.baseVal.value"
        " <= p.clientWidth + 1)"
    )
    opened.draw_all()
    assert opened.page.evaluate(f"{CHECKS}; overlaps()") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(open_page: Opener, scheme: str) -> None:
    opened = open_page(color_scheme=scheme)
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", paper))) < 60) == (scheme == "dark")
    opened.page.hover("#depth-q .plot .mark-symbol path >> nth=1", force=True)
    opened.page.wait_for_selector("#vg-tooltip-element.visible")
    assert opened.page.evaluate(f"{CHECKS}; lowContrasts()") == []


def test_print_has_the_figures_and_no_controls(open_page: Opener) -> None:
    opened = open_page(color_scheme="dark")
    opened.page.emulate_media(media="print")
    for selector in ("#sliders", "nav", ".tools", "#legend input", "#state", ".skip", "details.data"):
        assert not opened.page.locator(selector).first.is_visible(), selector
    assert opened.page.locator("#legend span").first.is_visible()
    assert opened.page.locator(".plot svg").first.is_visible()
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.page.evaluate(f"{CHECKS}; lowContrasts()") == []
    assert opened.page.pdf().startswith(b"%PDF")


def test_diverged_run_is_two_clicks_from_its_config(open_page: Opener) -> None:
    opened = open_page(draw=False)
    finding = opened.page.locator("#verdict .fold summary").first
    assert finding.is_visible()
    assert "layer 3 was the first to overflow" in finding.inner_text()
    opened.page.locator("#verdict tbody a", has_text="a name that is quite long").click()
    opened.page.wait_for_selector("#runs details[open] pre")
    config = opened.page.locator("#runs details[open] pre")
    assert "gain: 2.0" in config.inner_text()
    bottom = opened.page.evaluate("document.getElementById('controls').getBoundingClientRect().bottom")
    assert config.evaluate("(e) => e.getBoundingClientRect().top") >= bottom


@pytest.fixture(scope="session")
def many_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 24 rows."""
    folder = tmp_path_factory.mktemp("many")
    rows = [SyntheticRow(f"net_{number:02}", 0.9 + 0.01 * number) for number in range(24)]
    write_runs(folder / "runs", rows, depth=4, probes=2, bins=8)
    path = folder / "report.html"
    assert run_command(["report", "--runs-dir", str(folder / "runs"), "-o", str(path)]) == 0
    return path


@pytest.mark.slow
def test_many_rows_can_be_searched(open_page: Opener, many_rows: Path) -> None:
    opened = open_page(path=many_rows)
    page = opened.page
    assert page.locator("#legend li:visible").count() == 24
    page.fill("#filter", "NET_1")
    assert page.locator("#legend li:visible").count() == 10
    opened.change(lambda: page.click("#none"))
    assert page.inner_text("#state") == "10 rows are hidden."
    page.fill("#filter", "")
    opened.change(lambda: page.click("#none"))
    assert page.inner_text("#state") == "24 rows are hidden."
    page.fill("#filter", "net_07")
    opened.change(lambda: page.click("#all"))
    assert page.inner_text("#state") == "23 rows are hidden."
    headings = page.locator("#histograms-activation .plot text").all_text_contents()
    assert "net_07" in headings
    assert page.evaluate(f"{CHECKS}; overlaps()") == []
    height = page.evaluate("document.getElementById('controls').offsetHeight")
    assert height < 250


@pytest.mark.slow
def test_headings_are_not_covered_when_links_are_followed(open_page: Opener, many_rows: Path) -> None:
    opened = open_page(path=many_rows, reduced_motion="reduce")
    position = "(e) => e.getBoundingClientRect()"
    for link in opened.page.locator("nav a").all():
        link.click()
        target = str(link.get_attribute("href"))
        heading = opened.page.locator(f"{target} h2").evaluate(position)
        controls = opened.page.locator("#controls").evaluate(position)
        assert controls["bottom"] <= heading["top"] < 900, target
